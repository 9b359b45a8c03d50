"""A controller that is killed as by kill -9, at random moments, and started again on the same journal.

The simulators live in a process of their own and go on; what was moved is asked of them, by their control channel.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cartoseq.controller.ledger import Ledger
from cartoseq.controller.runjournal import read_journal

SCRIPT = Path(__file__).with_name("killed.py")
SPEED = 10.0
KILLS = 6
LONGEST_LIFE_S = 1.3
PATIENCE_S = 120.0
RACK = f"""\
speed = {SPEED}
[world.vessels]
wash = {{ volume_ul = 1000 }}
mix = {{ volume_ul = 1000 }}
other = {{ volume_ul = 10 }}
waste = {{}}
[world.selectors.inlets]
ports = {{ 1 = "other", 2 = "mix", 3 = "other", 4 = "wash" }}
[world.pipes.flow_cell]
volume_ul = 60
far = "inlets"
reagent = "wash"
[world.syringes.pump]
barrel_ul = 500
ports = {{ I = "flow_cell", O = "waste" }}
port = "O"
[world.plates.plate]
[world.lasers.red]
wavelength_nm = 640
rated_mw = 150
[[device]]
name = "pump"
kind = "cavro"
tcp = 0
settings = {{ syringe = "pump" }}
[[device]]
name = "valve"
kind = "vici"
tcp = 0
settings = {{ selector = "inlets", n_ports = 10 }}
[[device]]
name = "tec"
kind = "meerstetter"
tcp = 0
settings = {{ plates = ["plate"], address = 2 }}
[[device]]
name = "red"
kind = "cobolt"
tcp = 0
settings = {{ head = "red", warm_up_s = 0.5 }}
"""


def started(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, SCRIPT, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


class Bench:
    """A served rack, as its control channel tells of it."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, **request: object) -> dict[str, Any]:
        with socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_S) as channel:
            channel.sendall(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = json.loads(channel.makefile().readline())
        assert answer["ok"], answer
        return answer

    def addresses(self) -> dict[str, str]:
        return {name: about["addresses"][name] for name, about in self.ask(do="list")["devices"].items()}

    def truth(self) -> dict[str, Any]:
        truth: dict[str, Any] = self.ask(do="inspect")["truth"]
        return truth


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "rack.toml").write_text(RACK)
    process = started("rack", tmp_path / "rack.toml")
    try:
        yield Bench(int(said(process)))
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("seed", range(5))
def test_a_controller_that_is_killed_goes_on_and_no_fluid_is_moved_twice(
    bench: Bench, tmp_path: Path, seed: int
) -> None:
    dice, journal, kills = random.Random(seed), tmp_path / "journal.jsonl", 0
    arguments = ("run", json.dumps(bench.addresses()), journal, SPEED)
    while True:
        controller = started(*arguments)
        try:
            assert said(controller) == "begun"
            if kills < KILLS:
                time.sleep(dice.uniform(0.0, LONGEST_LIFE_S))
                assert controller.poll() is None, "the recipe is long enough to be killed so often"
                kills += 1
                continue
            last, _ = controller.communicate(timeout=PATIENCE_S)
            break
        finally:
            controller.kill()
            controller.communicate()
    assert last.startswith("completed"), last
    truth, ledger = bench.truth(), Ledger.of(read_journal(journal))
    moved = {name: 1000 - truth[f"{name}.volume_ul"] for name in ("wash", "mix")}
    assert moved == pytest.approx({"wash": 480, "mix": 100}, abs=1.0), "each flow once, and no more"
    assert ledger.drawn_ul == pytest.approx(moved, abs=1.0)
    assert truth["waste.volume_ul"] == pytest.approx(580, abs=1.0)
    assert ledger.waste_ul == pytest.approx(580, abs=1.0)
    assert not truth["red.emitting"]
    assert not truth["plate.regulated"]
