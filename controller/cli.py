"""The command ``cartoseq``.

Each command imports what it needs when it runs, so that ``--help`` is quick. An error that the user can act on is one
message on stderr and its exit code: 2 usage, 3 input or settings, 5 run failed, 6 device failed, 7 disk, 9 version,
130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cartoseq import __version__
from cartoseq.streaming.errors import CartoseqError, DiskError, InputError

if TYPE_CHECKING:
    from rich.console import Console

    from cartoseq.analysis.runfolder import RunFolder
    from cartoseq.controller.instrument import Instrument
    from cartoseq.drivers.capabilities import Device

#: What may not be read is told where it is read, like any other fault of a file.
_PATH = click.Path(path_type=Path, readable=False)
#: The recipe of `cartoseq demo` and the instrument that is simulated for it.
_DEMONSTRATION = Path(__file__).parent / "demonstration"
_FORMATS = ("gef", "gem", "h5ad", "mtx", "png")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cartoseq")
def cli() -> None:
    """Spatial DNA and RNA sequencing: from base calls to the tissue's maps.

    \b
    cartoseq demo
    cartoseq map experiment.toml --out RUN
    """


@cli.command("map")
@click.argument("experiment", type=_PATH)
@click.option("--out", "folder", type=_PATH, required=True, help="The run's folder, to be made.")
@click.option("--resume", is_flag=True, help="Go on with the run that lies in the folder.")
def map_command(experiment: Path, folder: Path, resume: bool) -> None:
    """Map the reads of an EXPERIMENT file (TOML, docs/experiment.md).

    \b
    cartoseq map experiment.toml --out RUN
    cartoseq map experiment.toml --out RUN --resume
    """
    from cartoseq.controller.mapping import map_experiment
    from cartoseq.controller.screen import screen_on

    with screen_on(_console()) as screen:
        run = map_experiment(experiment, folder, resume=resume, screen=screen)
    _say_what_lies_where(run)


@cli.command()
@click.option("--out", "folder", type=_PATH, help="Where to put it [default: runs/demo].")
@click.option("--reads", type=click.IntRange(min=1000), default=1_000_000, show_default=True, help="Read pairs.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Another tissue, chip and noise."
)
def demo(folder: Path | None, reads: int, seed: int) -> None:
    """Simulate a chip with a tissue on it and an instrument that images and sequences it, and map the reads.

    \b
    cartoseq demo
    cartoseq demo --reads 200000 --out my-demo
    """
    from cartoseq.analysis.runfolder import FULL_DISK, unwritable_folder
    from cartoseq.controller.running import Simulation, run_recipe
    from cartoseq.controller.screen import screen_on

    folder = folder or _unused(Path("runs"), "demo")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(folder, "something lies there already", remedy="Name a folder that does not exist.")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        raise unwritable_folder(folder, error) from error
    with screen_on(_console()) as screen:
        screen.doing("simulating a chip and a tissue")
        from cartoseq.simulators.experiment import ExperimentSettings, simulate_experiment

        def written(done: int, of: int) -> None:
            screen.doing(f"simulating {of:,} read pairs", done / of)

        experiment = simulate_experiment(folder / "simulated", ExperimentSettings(seed=seed, reads=reads), written)
        run = run_recipe(
            _DEMONSTRATION / "recipe.toml",
            _DEMONSTRATION / "instrument.toml",
            folder / "run",
            experiment_path=experiment,
            simulation=Simulation(),
            screen=screen,
        )
    _say_what_lies_where(run)


@cli.command()
@click.argument("folder", metavar="RUN", type=_PATH)
@click.option("--out", "target", type=_PATH, required=True, help="The new folder, to be made.")
def replay(folder: Path, target: Path) -> None:
    """Fold the log of a RUN again, from its start: the same maps, byte for byte.

    \b
    cartoseq replay RUN --out RUN2
    """
    from cartoseq.controller.mapping import replay as replay_run
    from cartoseq.controller.screen import screen_on

    with screen_on(_console()) as screen:
        run = replay_run(folder, target, screen)
    _say_what_lies_where(run)


@cli.command()
@click.argument("folder", metavar="RUN", type=_PATH)
@click.option(
    "--format",
    "formats",
    multiple=True,
    required=True,
    type=click.Choice(_FORMATS),
    help="May be given several times.",
)
@click.option("--library", help="Only this library.")
@click.option("--bin", "bin_size", type=click.FloatRange(min=0, min_open=True), help="Bin size, in spots.")
@click.option("--gene", help="png: the map of this gene.")
@click.option("--out", type=_PATH, help="Where to put the files [default: RUN/exports].")
def export(
    folder: Path,
    formats: tuple[str, ...],
    library: str | None,
    bin_size: float | None,
    gene: str | None,
    out: Path | None,
) -> None:
    """Write the maps of a RUN as files that other programs open.

    \b
    cartoseq export RUN --format gef --format h5ad
    cartoseq export RUN --format png --gene Pcp4 --bin 20
    """
    from cartoseq.analysis.exports.export import export_run

    for path in export_run(folder, list(formats), library=library, bin_size=bin_size, gene=gene, out=out):
        click.echo(path)


@cli.command()
@click.argument("folder", metavar="RUN", type=_PATH)
def report(folder: Path) -> None:
    """Write the report of a RUN: one HTML file that needs no network.

    \b
    cartoseq report RUN
    """
    from cartoseq.analysis.report import write_report

    click.echo(write_report(folder))


@cli.command()
@click.argument("folder", metavar="RUN", type=_PATH)
@click.option(
    "--pixel-um",
    type=click.FloatRange(min=0.1, max=100),
    default=1.0,
    show_default=True,
    help="Size of a pixel of the registered picture.",
)
@click.option("--mirrored/--not-mirrored", default=None, help="How the chip lies [default: as the scan says].")
@click.option("--quarter-turns", type=click.IntRange(0, 3), help="Its right angles, x towards y [default: as above].")
@click.option("--pitch-nm", type=click.Choice(("500", "600", "715")), help="Of its spots [default: as above].")
def register(
    folder: Path, pixel_um: float, mirrored: bool | None, quarter_turns: int | None, pitch_nm: str | None
) -> None:
    """Register the tissue pictures of a RUN to its chip by the track lines, again.

    \b
    cartoseq register RUN
    cartoseq register RUN --pixel-um 0.5
    """
    from cartoseq.controller.registering import register_run

    register_run(
        folder,
        click.echo,
        pixel_um=pixel_um,
        mirrored=mirrored,
        quarter_turns=quarter_turns,
        pitch_nm=None if pitch_nm is None else int(pitch_nm),
    )


@cli.command()
@click.argument("folder", metavar="RUN", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="The whole of qc.json.")
def qc(folder: Path, as_json: bool) -> None:
    """Say what became of every read of a RUN.

    \b
    cartoseq qc RUN
    cartoseq qc RUN --json
    """
    from cartoseq.analysis.runfolder import existing_run
    from cartoseq.controller.closing import final_lines

    run = existing_run(folder)
    if not run.qc.is_file():
        raise InputError(folder, "the run has counted nothing yet", remedy="Wait for its first snapshot.")
    content = run.read_qc()
    if as_json:
        click.echo(run.qc.read_text(encoding="utf-8"), nl=False)
        return
    for line in final_lines(content):
        click.echo(line)
    for name, library in content["libraries"].items():
        click.echo(f"\n{name}")
        for counter, count in library["counters"].items():
            click.echo(f"  {counter:<20}{count:>16,}")


@cli.command()
@click.argument("experiment", type=_PATH)
def check(experiment: Path) -> None:
    """Check an EXPERIMENT file without running it.

    \b
    cartoseq check experiment.toml
    """
    from cartoseq.controller.config import load_experiment

    found = load_experiment(experiment)
    names = ", ".join(f"{library.name} ({library.layer})" for library in found.library)
    click.echo(f"{experiment}: sound. Libraries: {names}.")


@cli.command()
@click.argument("recipe", type=_PATH)
@click.option("--instrument", type=_PATH, required=True, help="The instrument file (TOML, docs/instrument.md).")
@click.option("--out", "folder", type=_PATH, default=Path(), help="Where the run will write [default: here].")
@click.option("--dry-run/--no-dry-run", default=True, help="Do it on the simulated instrument as well [default: yes].")
def plan(recipe: Path, instrument: Path, folder: Path, dry_run: bool) -> None:
    """Say what a RECIPE file (TOML, docs/recipe.md) comes to: time line, reagents, time, pictures, disk.

    \b
    cartoseq plan recipe.toml --instrument bench.toml
    cartoseq plan recipe.toml --instrument bench.toml --no-dry-run
    """
    from cartoseq.controller.planning import plan as say_plan

    say_plan(recipe, instrument, folder, click.echo, with_dry_run=dry_run)


@cli.command("run")
@click.argument("recipe", type=_PATH)
@click.option("--instrument", type=_PATH, required=True, help="The instrument file (TOML, docs/instrument.md).")
@click.option("--out", "folder", type=_PATH, required=True, help="The run's folder, to be made.")
@click.option("--experiment", type=_PATH, help="Map the reads of this EXPERIMENT file when sequencing has ended.")
@click.option("--resume", is_flag=True, help="Go on with the run that lies in the folder.")
@click.option("--simulate", is_flag=True, help="Simulate the instrument, in virtual time.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    help="With --simulate: simulated seconds per second [default: as fast as it goes].",
)
def run_command(
    recipe: Path,
    instrument: Path,
    folder: Path,
    experiment: Path | None,
    resume: bool,
    simulate: bool,
    speed: float | None,
) -> None:
    """Run a RECIPE (TOML, docs/recipe.md) on an instrument. Ctrl-C stops it, a second one aborts it.

    \b
    cartoseq run recipe.toml --instrument bench.toml --out RUN
    cartoseq run recipe.toml --instrument bench.toml --out RUN --experiment experiment.toml
    cartoseq run recipe.toml --instrument bench.toml --out RUN --simulate --speed 60
    """
    import math

    from cartoseq.controller.running import Simulation, run_recipe
    from cartoseq.controller.screen import screen_on

    if speed is not None and not simulate:
        raise click.UsageError("--speed is that of simulated time: give --simulate as well.")
    simulation = Simulation(speed if speed is not None else math.inf) if simulate else None
    with screen_on(_console()) as screen:
        run = run_recipe(
            recipe,
            instrument,
            folder,
            experiment_path=experiment,
            resume=resume,
            simulation=simulation,
            screen=screen,
        )
    if experiment is not None:
        _say_what_lies_where(run)
    else:
        _say_what_the_instrument_left(run)


@cli.command()
@click.argument("folder", metavar="RUN", type=_PATH)
def status(folder: Path) -> None:
    """Say how the RUN of an instrument stands.

    \b
    cartoseq status RUN
    """
    from cartoseq.controller.running import status as say_status

    say_status(folder, click.echo)


@cli.command()
@click.argument("folder", metavar="RUN", type=_PATH)
@click.option("--now", is_flag=True, help="At once, and not at the next checkpoint; a stroke is let finish.")
def pause(folder: Path, now: bool) -> None:
    """Pause the RUN of an instrument.

    \b
    cartoseq pause RUN
    cartoseq pause RUN --now
    """
    from cartoseq.controller.running import order

    order(folder, "pause", click.echo, now=now)


@cli.command()
@click.argument("folder", metavar="RUN", type=_PATH)
def resume(folder: Path) -> None:
    """Let the RUN of an instrument go on that the operator or a fault holds.

    \b
    cartoseq resume RUN
    """
    from cartoseq.controller.running import order

    order(folder, "resume", click.echo)


@cli.command()
@click.argument("folder", metavar="RUN", type=_PATH)
def stop(folder: Path) -> None:
    """End the RUN of an instrument once the stroke under way is done.

    \b
    cartoseq stop RUN
    """
    from cartoseq.controller.running import order

    order(folder, "stop", click.echo)


@cli.command()
@click.argument("folder", metavar="RUN", type=_PATH)
def abort(folder: Path) -> None:
    """End the RUN of an instrument at once.

    \b
    cartoseq abort RUN
    """
    from cartoseq.controller.running import order

    order(folder, "abort", click.echo)


@cli.command()
@click.argument("rack", type=_PATH)
def simulate(rack: Path) -> None:
    """Serve the simulated devices of a RACK file (TOML, docs/rack.md) until it is interrupted.

    \b
    cartoseq simulate rack.toml
    """
    from cartoseq.controller.simulating import simulate as serve

    serve(rack, click.echo)


@cli.group()
def devices() -> None:
    """Look after the devices of an instrument FILE (TOML, docs/instrument.md), by hand.

    \b
    cartoseq devices list bench.toml
    cartoseq devices check bench.toml
    cartoseq devices move bench.toml stage x_um=1000 y_um=2000
    cartoseq devices check bench.toml --simulate
    """


_SIMULATE = click.option("--simulate", is_flag=True, help="On simulated devices, in no time, without hardware.")


@devices.command("list")
@click.argument("file", type=_PATH)
@_SIMULATE
def devices_list(file: Path, simulate: bool) -> None:
    """Say which serial ports there are, and which devices the FILE describes.

    \b
    cartoseq devices list bench.toml
    """
    from cartoseq.controller.handling import list_devices
    from cartoseq.controller.instrument import load_instrument

    instrument = load_instrument(file)
    if simulate:
        from cartoseq.controller.simulatedbench import simulate_instrument

        list_devices(instrument, click.echo, simulate_instrument(instrument).simulators())
    else:
        list_devices(instrument, click.echo)


@devices.command("check")
@click.argument("file", type=_PATH)
@_SIMULATE
def devices_check(file: Path, simulate: bool) -> None:
    """Open each device: who it is, how it stands, its faults. Ends with 6 if one is not well.

    \b
    cartoseq devices check bench.toml
    cartoseq devices check bench.toml --simulate
    """
    from cartoseq.controller.handling import check_devices

    instrument, devices, run = _devices_of(file, simulate=simulate)
    run(check_devices(instrument, devices, click.echo))


@devices.command("move")
@click.argument("file", type=_PATH)
@click.argument("device")
@click.argument("settings", nargs=-1, required=True, metavar="KEY=VALUE...")
@_SIMULATE
def devices_move(file: Path, device: str, settings: tuple[str, ...], simulate: bool) -> None:
    """Move one DEVICE by hand, within its limits. If that fails or is interrupted, it is made safe.

    \b
    cartoseq devices move bench.toml stage x_um=1000 y_um=2000
    cartoseq devices move bench.toml valve port=3
    cartoseq devices move bench.toml pump initialize=yes aspirate_ul=100 flow_ul_per_s=10
    cartoseq devices move bench.toml obis power_mw=5 emission=on
    """
    from cartoseq.controller.handling import move_device

    instrument, devices, run = _devices_of(file, simulate=simulate)
    run(move_device(instrument, devices, device, settings, click.echo))


def _devices_of(file: Path, *, simulate: bool) -> tuple[Instrument, dict[str, Device], Callable[..., object]]:
    """An instrument, its drivers, and what runs a coroutine on them."""
    import asyncio

    from cartoseq.controller.instrument import build_devices, load_instrument

    instrument = load_instrument(file)
    if not simulate:
        return instrument, build_devices(instrument), asyncio.run
    from cartoseq.controller.simulatedbench import simulate_instrument
    from cartoseq.simulators.clock import run_virtual

    return instrument, simulate_instrument(instrument).drivers(), run_virtual


@cli.command()
def schema() -> None:
    """Print the JSON Schema of the experiment file, for editors.

    \b
    cartoseq schema > experiment-v1.json
    """
    from cartoseq.controller.config import experiment_schema

    click.echo(json.dumps(experiment_schema(), indent=2))


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _say_what_lies_where(run: RunFolder) -> None:
    from cartoseq.controller.closing import final_lines, where_lines

    for line in [*final_lines(run.read_qc()), *where_lines(run)]:
        click.echo(line)


def _say_what_the_instrument_left(run: RunFolder) -> None:
    from cartoseq.controller.closing import instrument_lines

    for line in instrument_lines(run):
        click.echo(line)


def _unused(folder: Path, stem: str) -> Path:
    candidate, number = folder / stem, 1
    while candidate.exists():
        number += 1
        candidate = folder / f"{stem}-{number}"
    return candidate


def main() -> None:
    """Run the command line: errors for people as one message, never a traceback for what they can mend."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.Abort:
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CartoseqError as error:
        _complain(f"cartoseq: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _complain("Interrupted.")
        sys.exit(130)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _complain(f"cartoseq: {error.filename or 'output'}: the disk is full. Free some space and try again.")
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO):
            remedy = "Correct the permissions, or the disk."
            _complain(f"cartoseq: {error.filename or 'a file'}: {error.strerror}. {remedy}")
        else:
            raise
        sys.exit(DiskError.exit_code)


def _complain(text: str) -> None:
    # The terminal may be gone.
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


if __name__ == "__main__":
    main()
