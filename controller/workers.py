"""The processes of a run: a reader for each library, the recorder and the binner.

``python -m cartoseq.controller.workers ROLE RUN SOCKETS [LIBRARY]`` is what the supervisor starts; a person has no need
to. Each role ends by itself when its work is done, on SIGTERM after its current block is safe, and when the
supervisor is gone. An error that the user can act on is the last line on stderr, and its exit code is the process's.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from cartoseq.analysis.runfolder import RunFolder, existing_run
from cartoseq.controller.config import Experiment, thaw
from cartoseq.streaming.errors import CartoseqError, InputError, RunError

#: How long a process waits for its recorder before it gives up, in seconds.
RECORDER_TIMEOUT_S = 60.0
#: So many reads are looked at before a run starts.
FIRST_READS = 10_000
#: A chip that fewer of these reads fit is the wrong one.
LOWEST_HIT_RATE = 0.02
_WATCH_INTERVAL_S = 0.5


def endpoint(sockets: Path, name: str) -> str:
    """The address of a process of the run, in the run's private socket folder."""
    return f"ipc://{sockets / name}"


def run_number(run: RunFolder) -> int:
    """The run's number on the wire, from its descriptor."""
    number = descriptor(run)["run"]
    assert isinstance(number, int)
    return number


def descriptor(run: RunFolder) -> dict[str, object]:
    """What every segment of the log says of its run: number, settings and program."""
    content: dict[str, object] = json.loads(run.descriptor.read_text(encoding="utf-8"))
    return content


def record(run: RunFolder, sockets: Path, experiment: Experiment, stop: threading.Event) -> None:
    """Keep the base calls: the recorder."""
    from cartoseq.streaming import recorder

    recorder.serve(
        run.log,
        descriptor(run),
        endpoint(sockets, "recorder"),
        stop=stop,
        segment_bytes=experiment.run.segment_mib << 20,
    )


def read(run: RunFolder, sockets: Path, experiment: Experiment, stop: threading.Event, number: int) -> None:
    """Read the base calls of one library and hand them to the recorder: a reader.

    Raises:
        InputError: a file is damaged; every whole record before the damage was handed on and is safe.
    """
    from cartoseq.controller.sources import open_source
    from cartoseq.streaming.feed import BlockSource
    from cartoseq.streaming.liveview import LivePublisher

    with (
        BlockSource(endpoint(sockets, "recorder"), number, run_number(run)) as source,
        LivePublisher(endpoint(sockets, f"reader-{number}")) as live,
    ):
        source.open(RECORDER_TIMEOUT_S)
        if source.ended:
            return
        try:
            with open_source(experiment, number, skip_reads=source.recorded_clusters, stop=stop) as blocks:
                for block in blocks:
                    source.send(block)
                    done, total = blocks.progress
                    progress = {"bytes_done": done, "bytes_total": total, "reads": blocks.reads}
                    live.publish("progress", json.dumps(progress).encode())
                    if stop.is_set():
                        return
                source.finish({"reads": blocks.reads})
        except RunError:
            # Waiting for a growing file ends with an error when a stop is asked for: then it is none.
            if not stop.is_set():
                raise
        except InputError:
            # The block before the damage is still under way.
            source.poll(RECORDER_TIMEOUT_S)
            raise


def prepare(experiment: Experiment) -> None:
    """Index chip and references, compile the kernels, and look whether the first reads fit the chip.

    Raises:
        InputError: a table, a reference or a FASTQ file is missing, malformed or does not fit.
    """
    from cartoseq.analysis.counters import located
    from cartoseq.controller.folding import make_fold
    from cartoseq.controller.sources import open_source

    looked_at = experiment.model_copy(
        update={"run": experiment.run.model_copy(update={"block_clusters": FIRST_READS, "expected_molecules": None})}
    )
    fold = make_fold(looked_at)
    for number, library in enumerate(looked_at.library):
        if library.follow_until is not None:
            # Its first reads may be hours away.
            continue
        with open_source(looked_at, number) as blocks:
            fold.libraries[number].add(next(blocks))
        counters = fold.libraries[number].counters
        total, found = counters["reads_total"], located(counters)
        if found < LOWEST_HIT_RATE * total:
            raise InputError(
                experiment.chip.barcodes,
                f"no spot matches {total - found:,} of the first {total:,} reads of library {library.name} "
                f"({100 * found / total:.1f} % fit)",
                remedy=f"Is this the chip of this library? Name in the file: {fold.libraries[number].frame.name}.",
            )


def bin_live(run: RunFolder, sockets: Path, experiment: Experiment, stop: threading.Event) -> None:
    """Fold the log as it grows: the binner."""
    from cartoseq.analysis.binner import Binner
    from cartoseq.controller.folding import make_fold
    from cartoseq.streaming.feed import BlockFeed
    from cartoseq.streaming.liveview import LivePublisher

    with LivePublisher(endpoint(sockets, "binner")) as live:
        binner = Binner(
            make_fold(experiment),
            state_path=run.state,
            maps_path=run.maps,
            qc_path=run.qc,
            publish=live.publish,
            checkpoint_s=experiment.run.checkpoint_s,
        )
        with BlockFeed(endpoint(sockets, "recorder"), run_number(run), binner.fold.position) as feed:
            binner.run(feed, stopped=stop.is_set, ended=lambda: False)


def fold_log(run: RunFolder, log: Path, experiment: Experiment, show: Callable[[str, bytes], None]) -> None:
    """Fold what a log holds into a run folder, without a recorder: a replay, or the end of a run that failed.

    Args:
        run: The folder that the maps go to.
        log: The folder of the log.
        experiment: What the log's base calls mean.
        show: Takes a topic and a payload for a live view.
    """
    from cartoseq.analysis.binner import Binner, LogFeed
    from cartoseq.controller.folding import make_fold
    from cartoseq.streaming.log import LogReader

    binner = Binner(
        make_fold(experiment),
        state_path=run.state,
        maps_path=run.maps,
        qc_path=run.qc,
        publish=show,
        checkpoint_s=experiment.run.checkpoint_s,
    )
    feed = LogFeed(LogReader(log), binner.fold.position)
    binner.run(feed, stopped=lambda: False, ended=lambda: feed.ended)


def _stop_when_told(stop: threading.Event) -> None:
    """Set the event on SIGTERM, and when the process that started this one is gone."""
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while not stop.wait(_WATCH_INTERVAL_S):
            if os.getppid() != parent:
                stop.set()

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def main(arguments: list[str]) -> int:
    """Run one role.

    Returns:
        The exit code.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    role, folder, sockets = arguments[0], Path(arguments[1]), Path(arguments[2])
    stop = threading.Event()
    _stop_when_told(stop)
    try:
        run = existing_run(folder)
        experiment = thaw(run.settings.read_text(encoding="utf-8"), run.settings)
        if role == "recorder":
            record(run, sockets, experiment, stop)
        elif role == "binner":
            bin_live(run, sockets, experiment, stop)
        elif role == "reader":
            read(run, sockets, experiment, stop, int(arguments[3]))
        elif role == "prepare":
            prepare(experiment)
        else:
            raise InputError(role, "there is no such role", remedy="Roles are prepare, recorder, reader and binner.")
    except CartoseqError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno in (28, 122):  # no space left, quota exceeded
            print(
                f"{error.filename or folder}: the disk is full. Free some space and go on with --resume.",
                file=sys.stderr,
            )
            return 7
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
