"""The processes of a run: a reader for each library, the recorder and the binner.

``python -m cartoseq.controller.workers ROLE RUN SOCKETS [LIBRARY]`` is what the supervisor starts; a person has no need
to. Each role ends by itself when its work is done, soon after SIGTERM, and when the supervisor is gone, which it knows
by the end of its standard input. What a reader had not got acknowledged by then is read again the next time. An error
that the user can act on is the last line on stderr, and its exit code is the process's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cartoseq.analysis.runfolder import RunFolder, existing_run
from cartoseq.controller.config import Experiment, Library, thaw
from cartoseq.streaming.errors import CartoseqError, InputError, RunError

if TYPE_CHECKING:
    from cartoseq.drivers.basecalls.fastq import FastqSource
    from cartoseq.streaming.feed import BlockSource
    from cartoseq.streaming.liveview import LivePublisher

#: The roles that prepare a run, and a replay, which does without the files of the reads.
PREPARATIONS = ("prepare", "prepare-replay")
#: The journal's event that says how the barcodes in the names of reads are written.
CODEC_FOUND = "barcodes in names understood"
#: How long a process waits for its recorder before it gives up, in seconds.
RECORDER_TIMEOUT_S = 60.0
#: So many reads are looked at before a run starts.
FIRST_READS = 10_000
#: A chip that fewer of these reads fit is the wrong one.
LOWEST_HIT_RATE = 0.02
#: How long a reader waits at a stretch before it looks whether it is to stop.
_PATIENCE_S = 0.2
#: A reader says no more often how far it is.
_PROGRESS_INTERVAL_S = 0.1
#: The exit code of a process that was told to stop before its work was done: 128 + SIGTERM.
STOPPED = 143
_FULL = (errno.ENOSPC, errno.EDQUOT)


def endpoint(sockets: Path, name: str) -> str:
    """The address of a process of the run, in the run's private socket folder."""
    return f"ipc://{sockets / name}"


def run_number(run: RunFolder) -> int:
    """The run's number on the wire, from its descriptor."""
    number = run.read_descriptor()["run"]
    assert isinstance(number, int)
    return number


def record(run: RunFolder, sockets: Path, experiment: Experiment, stop: threading.Event) -> None:
    """Keep the base calls, and tell whether the disk takes them: the recorder."""
    from cartoseq.streaming import recorder
    from cartoseq.streaming.liveview import LivePublisher

    with LivePublisher(endpoint(sockets, "recorder-status")) as live:
        recorder.serve(
            run.log,
            run.read_descriptor(),
            endpoint(sockets, "recorder"),
            stop=stop,
            on_status=lambda status: live.publish("recorder", json.dumps(asdict(status)).encode()),
            segment_bytes=experiment.run.segment_mib << 20,
            reserve_bytes=experiment.run.reserve_mib << 20,
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
        if not _patiently(source.open, stop, RECORDER_TIMEOUT_S) or source.ended:
            return
        try:
            with open_source(experiment, number, skip_reads=source.recorded_clusters, stop=stop) as blocks:
                note_codec(run, experiment.library[number], blocks)
                _hand_on(blocks, source, live, experiment.library[number].follow_until, stop)
        except RunError:
            # Waiting for a growing file ends with an error when a stop is asked for: then it is none.
            if not stop.is_set():
                raise
        except InputError:
            # The block before the damage is still under way.
            source.poll(RECORDER_TIMEOUT_S)
            raise


def _hand_on(
    blocks: FastqSource, source: BlockSource, live: LivePublisher, follow_until: Path | None, stop: threading.Event
) -> None:
    said_s = 0.0

    def say() -> None:
        done, total = blocks.progress
        growing = follow_until is not None and not follow_until.exists()
        progress = {"bytes_done": done, "bytes_total": total, "reads": blocks.reads, "growing": growing}
        live.publish("progress", json.dumps(progress).encode())

    for block in blocks:
        if not _patiently(partial(source.send, block), stop):
            return
        if time.monotonic() - said_s >= _PROGRESS_INTERVAL_S:
            said_s = time.monotonic()
            say()
    say()
    _patiently(partial(source.finish, {"reads": blocks.reads}), stop)


def _patiently(call: Callable[[float], object], stop: threading.Event, timeout_s: float | None = None) -> bool:
    """Wait for the recorder, however long its disk is full, but not beyond a stop.

    Returns:
        Whether the call was answered; if not, a stop is asked for.
    """
    from cartoseq.streaming.feed import NoAnswerError

    give_up_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    while not stop.is_set():
        try:
            call(_PATIENCE_S)
        except NoAnswerError:
            if time.monotonic() > give_up_s:
                raise
        else:
            return True
    return False


def note_codec(run: RunFolder, library: Library, source: FastqSource) -> None:
    """Note in the journal how the barcodes in the names of a library's reads are written, where that was found out."""
    if library.grouped_names == "auto" and source.grouped is not None:
        run.note(CODEC_FOUND, library=library.name, codec=str(source.grouped.codec))


def prepare(run: RunFolder, experiment: Experiment, say: Callable[[str], None], *, look_at_reads: bool) -> None:
    """Index chip and references, compile the kernels, and look whether the first reads fit the chip.

    Args:
        run: The run's folder.
        experiment: The experiment.
        say: Is told what is being done.
        look_at_reads: Whether there are reads to look at. A replay has them in its log, and the files may be gone.

    Raises:
        InputError: a table, a reference or a FASTQ file is missing, malformed or does not fit.
    """
    from cartoseq.analysis.counters import located
    from cartoseq.controller.folding import make_fold
    from cartoseq.controller.rehearsing import rehearsals_beside
    from cartoseq.controller.sources import open_source

    looked_at = experiment.model_copy(
        update={"run": experiment.run.model_copy(update={"block_clusters": FIRST_READS, "expected_molecules": None})}
    )
    with rehearsals_beside():
        fold = make_fold(looked_at, say)
        say("compiling the kernels")
        for number, library in enumerate(looked_at.library if look_at_reads else ()):
            if library.follow_until is not None:
                # Its first reads may be hours away.
                continue
            with open_source(looked_at, number) as blocks:
                note_codec(run, library, blocks)
                fold.libraries[number].add(next(blocks))
            counters = fold.libraries[number].counters
            total, found = counters["reads_total"], located(counters)
            if found < LOWEST_HIT_RATE * total:
                raise InputError(
                    experiment.chip.barcodes,
                    f"no spot matches {total - found:,} of the first {total:,} reads of library {library.name} "
                    f"({100 * found / total:.1f} % fit)",
                    remedy=f"Is this the chip of this library? It is called {fold.libraries[number].frame.name}."
                    + (' Or is it another codec? grouped_names = "auto" finds out.' if library.grouped_names else ""),
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


def _stop_when_told(told: Callable[[], None]) -> None:
    """Call a function on SIGTERM, and when the supervisor is gone: its end of our standard input is closed then."""
    signal.signal(signal.SIGTERM, lambda *_: told())
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        # Not sys.stdin, whose lock a thread must not hold while the program ends.
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="watch-supervisor", daemon=True).start()


def _leave() -> None:
    """End now, removing temporary files on the way."""
    raise SystemExit(STOPPED)


def main(arguments: list[str]) -> int:
    """Run one role.

    Returns:
        The exit code.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    role, folder, sockets = arguments[0], Path(arguments[1]), Path(arguments[2])
    stop = threading.Event()
    _stop_when_told(_leave if role in PREPARATIONS else stop.set)
    try:
        run = existing_run(folder)
        experiment = thaw(run.settings.read_text(encoding="utf-8"), run.settings)
        if role == "recorder":
            record(run, sockets, experiment, stop)
        elif role == "binner":
            bin_live(run, sockets, experiment, stop)
        elif role == "reader":
            read(run, sockets, experiment, stop, int(arguments[3]))
        elif role in PREPARATIONS:
            prepare(run, experiment, lambda phase: print(phase, flush=True), look_at_reads=role == PREPARATIONS[0])
        else:
            roles = ", ".join((*PREPARATIONS, "recorder", "reader", "binner"))
            raise InputError(role, "there is no such role", remedy=f"Roles are {roles}.")
    except CartoseqError as error:
        _last_words(str(error))
        return error.exit_code
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _last_words(f"{error.filename or folder}: the disk is full. Free some space and go on with --resume.")
        return 7
    return STOPPED if stop.is_set() else 0


def _last_words(text: str) -> None:
    # What a process says goes to a file, and its disk may be full.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
