from __future__ import annotations

import re
from collections import namedtuple
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from cartoseq.controller import cli, planning
from cartoseq.controller.instrument import load_instrument
from cartoseq.controller.planning import clock, describe
from cartoseq.controller.recipe import STEPS, Channel, ChipFacts, Flow, Reagent, Recipe, load_recipe, parse_recipe
from cartoseq.controller.settingsfile import value_text
from cartoseq.streaming.errors import InputError, RunError

PROJECT = Path(__file__).resolve().parents[2]
BENCH = PROJECT / "instruments" / "bench.toml"
STEREO_SEQ = PROJECT / "recipes" / "stereo-seq-library.toml"
MANUAL = PROJECT / "docs" / "recipe.md"
Usage = namedtuple("Usage", "total used free")


def planned(monkeypatch: pytest.MonkeyPatch, recipe: Path, *, free_bytes: int = 10**12) -> list[str]:
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda _: Usage(0, 0, free_bytes))  # type: ignore[attr-defined]
    lines: list[str] = []
    planning.plan(recipe, BENCH, Path(), lines.append)
    return lines


def seconds(text: str) -> int:
    hours, minutes, rest = map(int, text.split(":"))
    return 3600 * hours + 60 * minutes + rest


def test_a_run_of_thousands_of_actions_is_told_on_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = planned(monkeypatch, STEREO_SEQ)
    assert lines[0] == "Stereo-seq library run, 25 + 10, turn, 100, on Bench"
    assert len(lines) < 70
    text = "\n".join(lines)
    assert "sequence read 1 (25C10M): 35 cycles" in text
    assert "cycle 1, block first_cycle:" in text
    assert "cycle 2, block cycle:" in text
    assert "one turn, block turn:" in text
    # a block is opened once, wherever it is done again
    assert text.count("flow 200 ul of incorporation_mix at 25 ul/s, kept in the syringe") == 1
    assert "image 7 x 5 tiles in green, red" in text
    assert re.search(r"^wash_buffer +1 +59,020 +110,000 +500 +50,980$", text, re.MULTILINE)
    assert "time      5:53 (h:min), 3,412 actions" in lines
    assert "pictures  9,450" in lines
    assert "disk      106.3 GB of pictures and base calls; 1,000.0 GB are free" in lines


def test_the_steps_follow_each_other_and_end_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [re.match(r" +(\d+:\d\d:\d\d) +(\d+:\d\d:\d\d) +(\d+) ", line) for line in planned(monkeypatch, STEREO_SEQ)]
    steps = [(seconds(row[1]), seconds(row[2]), int(row[3])) for row in rows if row]
    recipe, _ = load_recipe(STEREO_SEQ)
    assert [number for _, _, number in steps] == list(range(1, len(recipe.step) + 1))
    for (begin, length, _), (following, _, _) in pairwise(steps):
        assert begin + length == pytest.approx(following, abs=1)


def test_the_steps_of_a_block_add_up_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = planned(monkeypatch, STEREO_SEQ)
    start = next(number for number, line in enumerate(lines) if "cycle 2, block cycle:" in line)
    whole = seconds(lines[start].split()[0])
    inside = []
    for line in lines[start + 1 :]:
        row = re.match(r" {13}(\d:\d\d:\d\d) {4}( \d|\d\d)  ", line)
        if row is None:
            break
        inside.append(seconds(row[1]))
    assert len(inside) == 10
    assert sum(inside) == pytest.approx(whole, abs=3)


def test_a_disk_that_is_too_small_is_told_after_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda _: Usage(0, 0, 10**10))  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"the run writes about 106\.3 GB, and the disk has 10\.0 GB free"):
        planning.plan(STEREO_SEQ, BENCH, Path(), lines.append)
    assert "disk      106.3 GB of pictures and base calls; 10.0 GB are free" in lines


def test_the_disk_is_that_of_the_folder_that_is_still_to_be_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Path] = []

    def usage(folder: Path) -> Any:
        asked.append(folder)
        return Usage(0, 0, 10**12)

    monkeypatch.setattr(planning.shutil, "disk_usage", usage)  # type: ignore[attr-defined]
    planning.plan(STEREO_SEQ, BENCH, tmp_path / "runs" / "new", lambda _: None)
    assert asked == [tmp_path]


def test_the_command_prints_the_plan_and_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = PROJECT / "recipes" / "tissue-imaging.toml"
    done = CliRunner().invoke(cli.cli, ["plan", str(recipe), "--instrument", str(BENCH), "--out", str(tmp_path)])
    assert done.exit_code == 0
    assert done.output.startswith("Tissue imaging, on Bench\n")
    bad = tmp_path / "bad.toml"
    bad.write_text(recipe.read_text(encoding="utf-8").replace('"green"', '"grene"', 1), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["cartoseq", "plan", str(bad), "--instrument", str(BENCH)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == InputError.exit_code
    assert 'there is no laser "grene". The instrument has: green, red.' in capsys.readouterr().err


WORDS = {
    'do = "flow"\nreagent = "w"\nvolume_ul = 9\nflow_ul_per_s = 1\nsettle_s = 2': (
        "flow 9 ul of w at 1 ul/s, settle 2 s"
    ),
    'do = "push_back"\nvolume_ul = 9\nflow_ul_per_s = 3': "push 9 ul back at 3 ul/s",
    'do = "empty"': "empty the syringe",
    'do = "prime"\nvolume_ul = 9\nflow_ul_per_s = 3': "prime w: 9 ul each at 3 ul/s",
    'do = "prime"\nreagents = ["v"]\nvolume_ul = 9\nflow_ul_per_s = 3': "prime v: 9 ul each at 3 ul/s",
    'do = "wash"\nreagent = "w"\nvolume_ul = 9\nflow_ul_per_s = 3': "wash with 9 ul of w at 3 ul/s",
    'do = "incubate"\nduration_s = 30': "incubate 30 s",
    'do = "set_temperature"\ntemperature_c = 37.5': "set 37.5 C",
    'do = "wait_stable"': "wait for the temperature",
    'do = "temperature_off"': "temperature regulation off",
    'do = "laser"\ndevice = "green"\non = true\npower_mw = 5': "green on at 5 mW",
    'do = "laser"\ndevice = "green"\non = false': "green off",
    'do = "use"\nblock = "b"': "block b",
    'do = "repeat"\nblock = "b"\ntimes = 3': "block b, 3 times",
    'do = "checkpoint"\nlabel = "here"': "checkpoint here",
    'do = "hold"\nmessage = "Load the chip."': "wait for the operator: Load the chip.",
}


@pytest.mark.parametrize("step", WORDS)
def test_a_step_is_described_in_a_few_words(step: str) -> None:
    recipe = parse_recipe(
        'name = "x"\n[reagents]\nw = { port = 1, loaded_ul = 9, prime = true }\nv = { port = 2, loaded_ul = 9 }\n'
        f'[[block.b]]\ndo = "empty"\n[[step]]\n{step}\n'
    )
    assert describe(recipe, recipe.step[0]) == WORDS[step]


def test_a_time_is_written_as_clocks_do() -> None:
    assert [clock(time_s) for time_s in (0, 59.6, 3599, 3600, 360_061)] == [
        "0:00:00",
        "0:01:00",
        "0:59:59",
        "1:00:00",
        "100:01:01",
    ]


# ----------------------------------------------------------------------------------------------------------- the manual


def default_of(field: Any) -> str:
    if field.is_required():
        return "required"
    if field.default is None:
        return "–"
    return f"`{value_text(list(field.default) if isinstance(field.default, tuple) else field.default)}`"


def sections() -> dict[str, str]:
    parts = re.split(r"^#{2,4} +(.*)$", MANUAL.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


TABLES: dict[str, tuple[type[BaseModel], set[str]]] = {
    **{f"`{kind}`": (model, {"do", "on_fault", "tries"}) for kind, model in STEPS.items()},
    "Above the tables": (Recipe, {"chip", "reagents", "block", "step"}),
    "`[reagents]`, one for each bottle": (Reagent, set()),
    "`[chip]`, optional": (ChipFacts, set()),
    "Every step": (Flow, set(Flow.model_fields) - {"on_fault", "tries"}),
    "A channel, one picture of a tile": (Channel, set()),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_manual_tells_every_key_as_the_model_does(name: str) -> None:
    model, left_out = TABLES[name]
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \| ([^|]*) \|$", sections()[name], re.MULTILINE)
    assert rows == [
        (key, default_of(field), field.description) for key, field in model.model_fields.items() if key not in left_out
    ]
    if name.strip("`") in STEPS:
        assert (model.__doc__ or "").strip() in sections()[name]


def test_the_manual_has_no_steps_that_there_are_not() -> None:
    shown = {
        name.strip("`") for name in re.findall(r"^#### (`\w+`)$", MANUAL.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert shown == set(STEPS)
    assert load_instrument(BENCH).name == "Bench"


def test_the_command_does_a_dry_run_unless_it_is_told_not_to(tmp_path: Path) -> None:
    recipe = PROJECT / "recipes" / "tissue-imaging.toml"
    arguments = ["plan", str(recipe), "--instrument", str(BENCH), "--out", str(tmp_path)]
    done = CliRunner().invoke(cli.cli, arguments)
    assert done.exit_code == 0
    dry, commands = done.output.splitlines()[-2:]
    assert re.fullmatch(
        r"dry run   completed in 0:00:\d\d \(h:min:s\); the time above is \d\.\d% (longer|shorter)", dry
    )
    assert re.fullmatch(r"commands  [\d,]+ to the devices, digest [0-9a-f]{16}", commands)
    assert list(tmp_path.iterdir()) == []
    assert "dry run" not in CliRunner().invoke(cli.cli, [*arguments, "--no-dry-run"]).output


def test_a_dry_run_that_ends_early_is_an_error(tmp_path: Path) -> None:
    text = (PROJECT / "recipes" / "tissue-imaging.toml").read_text(encoding="utf-8")
    (tmp_path / "narrow.toml").write_text(text.replace("sweep_um = 80", "sweep_um = 2"), encoding="utf-8")
    done = CliRunner().invoke(cli.cli, ["plan", str(tmp_path / "narrow.toml"), "--instrument", str(BENCH)])
    assert isinstance(done.exception, RunError)
    assert "dry run   device_fault after 0:00:" in done.output
    assert "no sharpest picture within 2 um" in str(done.exception)
