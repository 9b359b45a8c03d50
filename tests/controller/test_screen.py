"""What stands on a terminal, told by a small one that understands what the screen writes."""

from __future__ import annotations

import io
import re
import time

import numpy as np
import pytest
from rich.console import Console

from cartoseq.analysis.liveimage import encode_image
from cartoseq.controller import screen as screen_module
from cartoseq.controller.progress import Rate
from cartoseq.controller.screen import PlainScreen, TerminalScreen, screen_on
from cartoseq.controller.supervisor import LiveState

_TOKEN = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


def rows_of(written: str, width: int) -> list[str]:
    """The rows of a terminal, as they stand after all that was written."""
    rows, row, column, wraps = [""], 0, 0, True
    for token in _TOKEN.finditer(written):
        number, letter, back, down, text = token.groups()
        if back:
            column = 0
        elif down:
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif text:
            assert wraps is False or column + len(text) <= width, "a line wraps"
            rows[row] = (rows[row].ljust(column)[:column] + text + rows[row][column + len(text) :])[:width]
            column += len(text)
        elif letter == "A":
            row -= int(number)
            assert row >= 0
        elif letter == "K":
            rows[row] = rows[row][:column]
        elif letter == "J":
            rows[row + 1 :] = []
            rows[row] = rows[row][:column]
        elif (number, letter) in (("?7", "l"), ("?7", "h")):
            wraps = letter == "h"
    return [line.rstrip() for line in rows]


def terminal(width: int = 80, height: int = 24, colours: str | None = "truecolor") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    return Console(
        file=file, force_terminal=True, color_system=colours, width=width, height=height, legacy_windows=False,
        no_color=colours is None, _environ={"TERM": "xterm-256color"},
    )  # fmt: skip


def written(console: Console) -> str:
    return console.file.buffer.getvalue().decode()


def painted(screen: TerminalScreen, console: Console) -> list[str]:
    """What stands there after the next painting."""
    time.sleep(2.5 * screen_module._PAINT_INTERVAL_S)
    with screen._lock:
        return rows_of(written(console), console.width)


def state(*, complete: bool = False, reads: int = 1000, **changes) -> LiveState:
    counts = {"located_exact": 700, "located_corrected": 100, "assigned": 600, "molecules": 480, "saturation": 0.2}
    status = {"position": 3, "complete": complete, "libraries": {"rna": {"reads_total": reads, **counts}}}
    readers = {0: {"bytes_done": 50, "bytes_total": 100, "reads": 2000, "growing": False}}
    image = encode_image(np.arange(60 * 60, dtype=np.uint32).reshape(60, 60))
    return LiveState(status=status, readers=readers, images={"rna": image}, **changes)


def test_nothing_is_left_when_it_ends_but_what_was_said():
    console = terminal()
    with TerminalScreen(console) as screen:
        screen.doing("indexing the chip")
        assert painted(screen, console)[0][2:] == "indexing the chip ..."
        screen.say("Something to remember.")
        screen.doing("simulating", 0.5)
        assert painted(screen, console)[1].endswith("50 %")
        screen.show(state())
        painted(screen, console)
    assert rows_of(written(console), 80) == ["Something to remember.", ""]
    assert written(console).endswith("\x1b[?25h")


@pytest.mark.parametrize(
    ("width", "height", "pictured"), [(120, 40, 20), (80, 24, 20), (60, 12, 8), (40, 8, 0), (20, 3, 0)]
)
def test_picture_bar_and_counts_fit_any_terminal(width, height, pictured):
    console = terminal(width, height)
    with TerminalScreen(console) as screen:
        screen.show(state())
        rows = painted(screen, console)
        assert len(rows) <= height
        assert sum(set(row) == {"▀"} for row in rows) == pictured
        if height > 4:
            assert rows[-4][2:].startswith("mapping  ━")
            assert rows[-4].endswith("25 %")
            assert rows[-3] == "1,000 reads"
            assert rows[-2].startswith("rna  80.0 % on the chip"[: width - 1])
            assert rows[-1] == ""


def test_a_line_that_did_not_change_is_not_painted_again():
    console = terminal()
    with TerminalScreen(console) as screen:
        screen.show(state())
        painted(screen, console)
        before = len(written(console))
        painted(screen, console)
        again = written(console)[before:]
    assert "▀" not in again
    assert "mapping" in again


def test_waiting_stands_in_place_of_the_bar_and_is_never_cut():
    console = terminal(60)
    why = "3 MiB are free on the log's disk, 1024 are reserved. Free some space: the run waits."
    with TerminalScreen(console) as screen:
        screen.show(state(waiting=why))
        text = " ".join(painted(screen, console))
    assert f"WAITING: the disk is full: {why}" in text
    assert "mapping" not in text


def test_before_the_first_reads_there_is_no_picture_and_no_zero():
    console = terminal()
    with TerminalScreen(console) as screen:
        screen.show(LiveState())
        assert [row[2:] for row in painted(screen, console)] == ["opening the chip and the references ...", ""]
        screen.show(state(reads=0))
        assert [row[2:] for row in painted(screen, console)] == ["folding the first reads ...", ""]


def test_the_picture_of_a_complete_run_stays():
    console = terminal()
    with TerminalScreen(console) as screen:
        screen.show(state(complete=True))
        assert painted(screen, console)[-4][2:] == "writing the maps ..."
        screen.doing("drawing")
        rows = painted(screen, console)
        assert rows[-2][2:] == "drawing ..."
    kept = rows_of(written(console), 80)
    assert len(kept) == 21
    assert all(set(row) == {"▀"} for row in kept[:-1])


def test_without_colours_the_picture_is_made_of_shades():
    console = terminal(colours=None)
    with TerminalScreen(console) as screen:
        screen.show(state())
        text = "\n".join(painted(screen, console))
    assert "█" in text
    assert "▀" not in text
    assert "38;2" not in written(console)


def test_two_libraries_stand_side_by_side():
    both = state()
    both.images["dna"] = both.images["rna"]
    console = terminal()
    with TerminalScreen(console) as screen:
        screen.show(both)
        rows = painted(screen, console)
    assert re.fullmatch(r"(▀{37})  \1", rows[0])


class Gone(io.StringIO):
    def write(self, text):
        raise OSError(5, "Input/output error")

    @property
    def encoding(self):
        return "utf-8"


def test_a_terminal_that_goes_away_ends_nothing():
    with TerminalScreen(Console(file=Gone(), force_terminal=True, width=80, height=24)) as screen:
        screen.doing("something")
        screen.show(state())
        screen.say("nobody hears this")
    plain = PlainScreen(Console(file=Gone()))
    plain.say("nor this")
    plain.doing("nor that")


class Lines:
    """A plain screen on a clock of the test's."""

    def __init__(self, monkeypatch):
        self.now_s = 1000.0
        monkeypatch.setattr(screen_module.time, "monotonic", lambda: self.now_s)
        self.file = io.StringIO()
        self.screen = PlainScreen(Console(file=self.file, width=80))
        self.screen._rate = Rate(lambda: self.now_s)

    def show(self, after_s: float, state: LiveState) -> list[str]:
        self.now_s += after_s
        before = len(self.file.getvalue())
        self.screen.show(state)
        return self.file.getvalue()[before:].splitlines()


def test_plain_lines_come_every_five_seconds_and_say_nothing_unknown(monkeypatch):
    lines = Lines(monkeypatch)
    assert lines.show(1, LiveState()) == []
    assert lines.show(5, LiveState()) == ["opening the chip and the references"]
    assert lines.show(1, state()) == []
    rest = "rna: 80.0 % on the chip, 60.0 % assigned, 480 molecules, saturation 20.0 %"
    assert lines.show(4, state()) == [f"25 %, 1,000 reads; {rest}"]
    rest = "rna: 40.0 % on the chip, 30.0 % assigned, 480 molecules, saturation 20.0 %"
    assert lines.show(5, state(reads=2000)) == [f"50 %, 2,000 reads, 200 reads/s, 10 s left; {rest}"]


def test_plain_lines_say_at_once_that_the_run_waits_and_that_it_goes_on(monkeypatch):
    lines = Lines(monkeypatch)
    waits = state(waiting="3 MiB are free. Free some space: the run waits.")
    said = ["WAITING: the disk is full: 3 MiB are free. Free some space: the run waits."]
    assert lines.show(0.1, waits) == said
    assert lines.show(30, waits) == []
    assert lines.show(31, waits) == said
    assert lines.show(0.1, state()) == ["going on"]


def test_plain_lines_say_once_what_is_being_done(monkeypatch):
    lines = Lines(monkeypatch)
    for fraction in (0.0, 0.1, 0.2):
        lines.screen.doing("simulating", fraction)
        lines.now_s += 3
    assert lines.file.getvalue().splitlines() == ["simulating ...", "simulating: 20 %"]


@pytest.mark.parametrize(
    ("term", "is_terminal", "kind"),
    [("xterm", True, TerminalScreen), ("dumb", True, PlainScreen), ("xterm", False, PlainScreen)],
)
def test_the_screen_fits_where_it_stands(term, is_terminal, kind):
    console = Console(file=io.StringIO(), force_terminal=is_terminal, _environ={"TERM": term})
    with screen_on(console) as screen:
        assert isinstance(screen, kind)
