from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoseq.controller.progress import (
    Rate,
    about,
    duration,
    half_block_picture,
    library_lines,
    pace,
    phase,
    waiting,
)
from cartoseq.controller.supervisor import LiveState


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def seen(*samples: tuple[float, int, float]) -> tuple[Rate, Clock]:
    clock = Clock()
    rate = Rate(clock)
    for at_s, reads, fraction in samples:
        clock.now_s = 100 + at_s
        rate.add(reads, fraction)
    return rate, clock


COUNTS = {"reads_total": 1000, "located_exact": 700, "located_corrected": 100, "assigned": 600, "molecules": 480}


def state(**changes) -> LiveState:
    status = {"position": 3, "complete": False, "libraries": {"rna": {**COUNTS, "saturation": 0.2}}}
    readers = {0: {"bytes_done": 50, "bytes_total": 100, "reads": 2000, "growing": False}}
    return LiveState(**{"status": status, "readers": readers, **changes})


def test_a_rate_is_told_only_after_some_seconds_of_reads():
    assert seen()[0].reads_per_s is None
    assert seen((0, 0, 0.0), (20, 0, 0.0))[0].reads_per_s is None
    assert seen((0, 0, 0.0), (20, 50, 0.1), (22, 100, 0.2))[0].left_s is None
    rate, _ = seen((0, 0, 0.0), (20, 50, 0.1), (24, 450, 0.3))
    assert rate.reads_per_s == pytest.approx(100)
    assert rate.left_s == pytest.approx(0.7 / 0.05)


def test_a_rate_forgets_what_was_long_ago():
    rate, _ = seen((0, 1, 0.0), (50, 2, 0.1), (60, 1002, 0.2), (70, 2002, 0.3))
    assert rate.reads_per_s == pytest.approx(100)


def test_nothing_gained_leaves_no_estimate_and_is_noticed():
    rate, clock = seen((0, 10, 0.1), (5, 10, 0.1))
    assert rate.left_s is None
    clock.now_s += 3
    assert rate.still_s == pytest.approx(8)
    assert pace(state(), rate)[1:] == ["no new reads for 8 s"]


def test_before_the_first_read_nothing_stands_still():
    rate, clock = seen((0, 0, 0.0))
    clock.now_s += 100
    assert rate.still_s == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (190, "3 min 10 s"), (3600, "1 h 0 min"), (7530, "2 h 5 min")],
)
def test_durations_are_said_as_a_person_says_them(seconds, text):
    assert duration(seconds) == text


def test_estimates_above_a_minute_come_in_steps_of_ten_seconds():
    assert [about(seconds) for seconds in (42.2, 61, 64, 67)] == ["42 s", "1 min 0 s", "1 min 0 s", "1 min 10 s"]


def test_the_pace_says_nothing_that_is_not_known():
    assert pace(state(), seen((0, 1000, 0.2))[0]) == ["1,000 reads"]
    rate, _ = seen((0, 0, 0.0), (1, 200, 0.1), (9, 1000, 0.5))
    assert pace(state(restarts=1), rate) == ["1,000 reads", "100 reads/s", "10 s left", "1 restart"]


def test_growing_files_have_no_end_to_estimate():
    growing = state(readers={0: {"bytes_done": 9, "bytes_total": 10, "reads": 9, "growing": True}})
    rate, _ = seen((0, 0, 0.0), (1, 200, 0.1), (9, 1000, 0.5))
    assert pace(growing, rate) == ["1,000 reads", "100 reads/s"]


def test_the_fraction_is_what_is_folded_of_what_was_read():
    assert state().fraction == pytest.approx(0.5 * 0.5)
    assert LiveState().fraction == 0
    assert state(records=12).fraction == pytest.approx(0.25)


def test_the_phases_of_a_run():
    assert phase(LiveState()) == "opening the chip and the references"
    nothing = {"position": 0, "complete": False, "libraries": {}}
    assert phase(LiveState(status=nothing)) == "waiting for the first reads"
    assert phase(state(status=nothing)) == "folding the first reads"
    assert phase(state()) == ""
    assert phase(state(stopping=True)).startswith("stopping")
    assert phase(state(status={**state().status, "complete": True}, stopping=True)) == "writing the maps"


def test_waiting_says_what_to_do():
    full = "3 MiB are free on the log's disk, 1024 are reserved. Free some space: the run waits."
    assert waiting(state()) == ""
    assert waiting(state(waiting=full)) == f"WAITING: the disk is full: {full}"
    assert waiting(state(waiting="RUN/log: Input/output error.")) == "WAITING: RUN/log: Input/output error."


def test_a_line_for_each_library_that_has_reads():
    status = state().status
    status["libraries"] |= {"dna-2": {**COUNTS, "saturation": 0.0}, "none": dict.fromkeys(COUNTS, 0)}
    lines = library_lines(state(status=status))
    assert lines[0] == "rna    80.0 % on the chip, 60.0 % assigned, 480 molecules, saturation 20.0 %"
    assert len(lines) == 2
    assert lines[1].startswith("dna-2  80.0 %")


def colours_of(image, columns=10, rows=5):
    """The upper and the lower colour of each character, line by line."""
    cells = []
    for line in half_block_picture(np.asarray(image, np.uint32), columns, rows):
        styles = [None] * len(line)
        for start, end, style in line.spans:
            styles[start:end] = [style] * (end - start)
        cells.append([(style.color.triplet, style.bgcolor.triplet) for style in styles])
    return cells


def test_a_character_holds_two_pixels():
    (line,) = colours_of([[0, 9], [9, 0]])
    dark, light = (13, 8, 35), (252, 246, 190)
    assert line == [(dark, light), (light, dark)]


def test_an_image_without_counts_is_dark_and_an_odd_height_is_filled_up():
    cells = colours_of(np.zeros((3, 4)))
    assert len(cells) == 2
    assert {colour for line in cells for pair in line for colour in pair} == {(13, 8, 35)}


def test_without_colours_there_are_shades():
    lines = half_block_picture(np.array([[0, 9, 1], [0, 9, 1]], np.uint32), 10, 5, colours=False)
    assert [line.plain for line in lines] == [" █░"]


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(1, 12), st.booleans())
def test_a_picture_fits_and_its_lines_are_of_one_width(height, width, columns, rows, colours):
    image = np.random.default_rng(1).integers(0, 50, (height, width), np.uint32)
    lines = half_block_picture(image, columns, rows, colours=colours)
    assert 1 <= len(lines) <= rows
    assert len({line.cell_len for line in lines}) == 1
    assert 1 <= lines[0].cell_len <= columns
