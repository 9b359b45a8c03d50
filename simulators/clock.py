"""Virtual time: an event loop whose clock jumps to the next thing that is due, so that hours pass in seconds.

Nothing waits for the wall clock: when no task can go on, the loop's time becomes that of its next timer. What runs in
it must take its time from the loop. The same program gives the same order of events every time.

A loop in which nothing is due any more, and nobody can wake it, would wait for ever: it raises `RuntimeError` instead.
Work that is handed to threads is done at once, in the loop's own thread, since virtual time cannot wait for them.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector:
    """A selector that never waits: it moves the clock instead."""

    def __init__(self, inner: selectors.BaseSelector) -> None:
        self._inner = inner
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = self._inner.select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("virtual time stands still: every task waits for something that nothing brings")
            self.now_s += max(0.0, timeout)
        return ready

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time; its clock begins at 0 s."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector(selectors.DefaultSelector())
        super().__init__(self._jumping)  # type: ignore[arg-type]

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now_s

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run a function at once, in this thread; the executor is not used."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time, as `asyncio.run` does in wall time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
