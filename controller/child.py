"""One process of a run: how it is started, what it said, how it ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cartoseq.streaming.errors import CartoseqError, RunError

_STOP_TIMEOUT_S = 60.0


class ChildError(CartoseqError):
    """A process of the run ended with a message for the user; its exit code is that of the process.

    Args:
        message: What the process said last.
        exit_code: The exit code of the process.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Child:
    """One process of the run.

    Args:
        name: For the journal.
        arguments: Of ``cartoseq.controller.workers``.
        output: The file that keeps what it says.
    """

    def __init__(self, name: str, arguments: Sequence[str], output: Path) -> None:
        self.name = name
        self.output = output
        self.restarts = 0
        self.done = False
        self._arguments = list(arguments)
        self._said_before = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Start it, in a session of its own, so that a Ctrl-C in the terminal reaches the supervisor only.

        Returns:
            Its process number.
        """
        with self.output.open("ab") as stream:
            self._said_before = stream.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cartoseq.controller.workers", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
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

    def stop(self) -> None:
        """Ask it to end; kill it if it does not within a minute."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def finish(self) -> None:
        """Wait for its end.

        Raises:
            ChildError: it ended with a message for the user.
            RunError: it was killed, or ended by a fault of the program.
        """
        code = self._process.wait() if self._process else 0
        if code in MESSAGE_CODES:
            raise ChildError(self.last_words(), code)
        if code != 0:
            raise RunError(f"the {self.name} ended with code {code}: {self.last_words()} See {self.output}.")


#: Exit codes of errors that the user can act on and that a restart cannot mend (see ``streaming.errors``).
MESSAGE_CODES = frozenset({3, 5, 7, 9})
