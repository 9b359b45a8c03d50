from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from cartoseq.analysis.charts import Line, line_chart, ticks
from cartoseq.analysis.report import render_report, waterfall, write_report
from cartoseq.analysis.run import open_run
from cartoseq.streaming.errors import InputError


class _Tags(HTMLParser):
    """Checks that elements close in order, and collects what they refer to."""

    EMPTY = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.count: dict[str, int] = {}

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.links += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "action", "data")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report(finished_run):
    return render_report(open_run(finished_run))


def test_it_is_one_well_formed_file_that_needs_no_network(report):
    tags = _Tags()
    tags.feed(report)
    assert tags.open == []
    assert tags.count["svg"] == 6
    assert tags.count["img"] == 2 * (2 + 4)
    assert "script" not in tags.count
    assert "link" not in tags.count
    assert all(link.startswith("data:image/png;base64,") for link in tags.links)
    assert re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", report) == []
    assert 'name="viewport"' in report


def test_same_run_same_bytes(make_run, tmp_path):
    a, b = (make_run(tmp_path / where / "run", libraries=("rna",)) for where in "ab")
    assert write_report(a).read_bytes() == write_report(b).read_bytes()
    assert write_report(a) == a / "report.html"
    assert sorted(path.name for path in a.iterdir()) == ["maps.h5", "qc.json", "report.html", "run.toml"]


def test_it_tells_the_headline_numbers_rules_and_versions(report, finished_run):
    run = open_run(finished_run)
    text = re.sub(r"<[^>]+>", " ", report)
    counters = run.counters["rna"]
    for expected in (
        "mouse-brain",
        "B01234C5",
        f"{counters['reads_total']:,}",
        "Mean MID per bin 20",
        "Mean genes per bin 20",
        "Total genes",
        "Intronic reads are counted with their gene: 600 of 6,000",
        "genome window (1,000,000 bp)",
        "method greedy",
        "by 1 substitution,",
        "numpy",
        "first 12 records",
        "read_structures = [",
    ):
        assert expected in text, expected
    binned = run.libraries["rna"].binned(20)
    bins = len({*zip(binned.x.tolist(), binned.y.tolist(), strict=True)})
    assert f"{3000 / bins:,.1f}" in text
    assert f"{binned.x.size / bins:,.1f}" in text


@pytest.mark.parametrize(("layer", "annotated"), [("rna", "Transcriptome"), ("dna", "In genome windows")])
def test_every_level_of_the_waterfall_adds_up(finished_run, layer, annotated):
    counters = open_run(finished_run).counters[layer]
    steps = {(step.level, step.name): step for step in waterfall(counters, layer)}

    def reads(name: str) -> int:
        return steps[1, name].reads if (1, name) in steps else steps[0, name].reads

    assert reads("Total Reads") == reads("Invalid CID") + reads("Valid CID")
    assert reads("Valid CID") == reads("Discarded MID") + reads("Clean")
    assert reads("Clean") == reads("Unmapped") + reads("Multi-mapped") + reads("Uniquely Mapped")
    unannotated = reads("Unannotated") if layer == "rna" else 0
    assert reads("Uniquely Mapped") == unannotated + reads(annotated)
    assert reads(annotated) == reads("Duplicates") + reads("Unique Reads")
    assert reads("Unique Reads") == counters["molecules"]

    # The reasons below a level add up to it as well.
    below: dict[str, int] = {}
    level = ""
    for step in waterfall(counters, layer):
        if step.level == 2:
            below[level] = below.get(level, 0) + step.reads
        else:
            level = step.name
    assert {name: reads(name) for name in below if name != annotated} == {
        name: count for name, count in below.items() if name != annotated
    }
    assert sum(step.kept for step in waterfall(counters, layer) if step.level < 2) == 6


def test_a_run_without_a_read_has_a_report(make_run, tmp_path):
    folder = make_run(tmp_path / "run", molecules=0)
    text = write_report(folder).read_text()
    assert re.findall(r"\bnan\b", re.sub(r"base64,[^\"]+", "", text).lower()) == []


def test_a_chip_with_real_valued_coordinates_has_a_report(make_run, tmp_path):
    folder = make_run(tmp_path / "run", listed=True, pitch_um=None, libraries=("rna",))
    assert "<b>3,000</b>" in write_report(folder).read_text()


def test_an_unfinished_run_is_marked(make_run, tmp_path):
    folder = make_run(tmp_path / "run", libraries=("rna",))
    qc = json.loads((folder / "qc.json").read_text())
    (folder / "qc.json").write_text(json.dumps({**qc, "complete": False}))
    assert "not complete: the latest snapshot" in write_report(folder).read_text()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ('mid_collapse = "off"', "none were merged"),
        ('mid_collapse = "saw"', "five or more"),
        ("count_intronic = false", "Intronic reads are not counted"),
        ("mismatches = 0", "by 0 substitutions"),
    ],
)
def test_the_rules_are_those_of_the_configuration(make_run, tmp_path, setting, sentence):
    folder = make_run(tmp_path / "run", libraries=("rna",))
    key = setting.split(" = ")[0]
    settings = re.sub(rf"{key} = .*", setting, (folder / "run.toml").read_text(), count=1)
    (folder / "run.toml").write_text(settings)
    assert sentence in write_report(folder).read_text()


def test_names_cannot_smuggle_html(make_run, tmp_path):
    folder = make_run(tmp_path / "<script>run", libraries=("rna<script>",))
    assert "<script" not in write_report(folder).read_text()


def test_quality_is_over_called_bases(finished_run, report):
    library = open_run(finished_run).maps.libraries["rna"]
    called = library.base_counts[:25, :4].sum()
    good = library.quality_counts[:25, 30:].sum()
    mean = (library.quality_counts[:25] @ range(64)).sum() / called
    row = re.search(
        r"CID \(spatial barcode\)</td><td class=\"n\">25</td><td class=\"n\">([\d.]+)</td><td class=\"n\">([\d.]+)%",
        report,
    )
    assert row is not None
    assert row.groups() == (f"{mean:.1f}", f"{100 * good / called:.1f}")


def test_what_is_no_run_is_said_so(tmp_path):
    with pytest.raises(InputError, match="no run"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 100, [0, 20, 40, 60, 80, 100]), (0.5, 95.5, [20, 40, 60, 80]), (0, 0.3, [0, 0.1, 0.2, 0.3]), (5, 5, [5])],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high, 5) == pytest.approx(expected)


def test_a_gap_in_a_line_lifts_the_pen():
    chart = line_chart(
        [Line("q", [0, 1, 2, 3], [1.0, float("nan"), 1.0, 2.0], "#000")],
        title="a < b",
        x_label="cycle",
        y_label="Phred",
        y_range=(0, 2),
    )
    assert re.search(r'd="M[\d. ]+M[\d. ]+L[\d. ]+"', chart)
    assert "a &lt; b" in chart
    assert "nan" not in chart


def test_where_the_tissue_was_imaged_the_report_shows_it(run_with_images, report):
    run = open_run(run_with_images)
    shown = render_report(run)
    tags = _Tags()
    tags.feed(shown)
    assert tags.open == []
    assert tags.count["img"] == 2 * (2 + 4) + 3
    assert shown == render_report(open_run(run_with_images))
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown))
    counts = run.images.counts(run.libraries["rna"])
    for expected in (
        "Image QC passed",
        "Tiles (TotalFOVCount) 16",
        f"(GoodFOVCount) {run.images.qc['good_fields']}",
        f"rna {counts.molecules:,} {counts.molecules / counts.molecules_total:.1%} {counts.reads:,}",
        "what lies under the tissue stands in the section on the tissue",
    ):
        assert expected in text
    assert "No tissue is segmented" not in text
    assert "No tissue is segmented" in report
    assert "TotalFOVCount" not in report
