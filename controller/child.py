"""One process of a run: how it is started, what it said, how it ended.

A process is given the reading end of a pipe as its standard input. Nothing is ever written to it: it closes when the
program that started the process is gone, however it went, and the process then ends by itself.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cartoseq.streaming.errors import CartoseqError, RunError

#: Exit codes of errors that the user can act on and that a restart cannot mend (see ``streaming.errors``).
MESSAGE_CODES = frozenset({3, 5, 7, 9})
#: What is started, before the arguments.
PROGRAM = (sys.executable, "-m", "cartoseq.controller.workers")
_STOP_TIMEOUT_S = 60.0
_POLL_S = 0.1


class ChildError(CartoseqError):
    """A process of the run ended with a message for the user; its exit code is that of the process.

    Args:
        message: What the process said last.
        exit_code: The exit code of the process.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


class Child:
    """One process of the run.

    Args:
        name: For the journal.
        arguments: Of ``cartoseq.controller.workers``.
        output: The file that keeps what it says.
        inherited: Descriptors that it holds as long as it lives.
    """

    def __init__(self, name: str, arguments: Sequence[str], output: Path, inherited: Sequence[int] = ()) -> None:
        self.name = name
        self.output = output
        self.restarts = 0
        self.done = False
        #: When to start it again, in monotonic seconds; None while it runs.
        self.due_s: float | None = None
        self._arguments = list(arguments)
        self._inherited = tuple(inherited)
        self._said_before = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, relay: bool = False) -> int:
        """Start it, in a session of its own, so that a Ctrl-C in the terminal reaches the supervisor only.

        Args:
            relay: Whether :meth:`finish` passes on what it says on stdout.

        Returns:
            Its process number.
        """
        self._let_go()
        self.due_s = None
        with self.output.open("ab") as stream:
            self._said_before = stream.tell()
            self._process = subprocess.Popen(
                [*PROGRAM, *self._arguments],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if relay else stream,
                stderr=stream,
                start_new_session=True,
                pass_fds=self._inherited,
            )
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code (negative: the signal that killed it), or None while it runs."""
        return self._process.poll() if self._process else None

    def last_words(self) -> str:
        """The last line that it said since its last start."""
        with self.output.open("rb") as stream:
            stream.seek(self._said_before)
            lines = stream.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def ask_to_end(self) -> None:
        """Ask it to end."""
        if self.exit_code is None and self._process is not None:
            self._process.terminate()

    def stop(self, timeout_s: float = _STOP_TIMEOUT_S) -> None:
        """Ask it to end; kill it if it does not in time."""
        self.ask_to_end()
        if self._process is not None:
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        self._let_go()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._let_go()

    def finish(self, say: Callable[[str], None], stopped: Callable[[], bool]) -> bool:
        """Wait for its end, passing on what it says.

        Args:
            say: Is given each line.
            stopped: Whether the user wants to stop.

        Returns:
            Whether it ended by itself; if not, it was stopped.

        Raises:
            ChildError: it ended with a message for the user.
            RunError: it was killed, or ended by a fault of the program.
        """
        process = self._process
        assert process is not None
        assert process.stdout is not None
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                while not stopped():
                    if not selector.select(_POLL_S):
                        continue
                    line = process.stdout.readline()
                    if not line:
                        break
                    say(line.decode(errors="replace").strip())
            if stopped():
                self.stop()
                return False
            code = process.wait()
        except BaseException:
            self.kill()
            raise
        self._let_go()
        if code in MESSAGE_CODES:
            raise ChildError(self.last_words(), code)
        if code != 0:
            raise RunError(
                f"the {self.name} {how_it_ended(code)}. It last said: {self.last_words()} See {self.output}."
            )
        return True

    def _let_go(self) -> None:
        """Close our ends of the pipes of a process that has ended."""
        if self._process is not None:
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
