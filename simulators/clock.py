"""Virtual time: an event loop whose clock jumps to the next thing that is due, so that hours pass in seconds.

Nothing waits for the wall clock: when no task can go on, the loop's time becomes that of its next timer. What runs in
it must take its time from the loop. The same program gives the same order of events every time. At a finite speed the
clock does not jump but runs, so many times as fast as the wall's.

A loop in which nothing is due any more, and nobody can wake it, would wait for ever: it raises `RuntimeError` instead.
Work that is handed to threads is done at once, in the loop's own thread, since virtual time cannot wait for them.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

T = TypeVar("T")


#: A program that is too slow for its speed gives up so much wall time before it makes up for the rest.
_MOST_BEHIND_S: Final = 0.1


class _JumpingSelector:
    """A selector that moves the clock: at once at an infinite speed, as time goes by at another."""

    def __init__(self, inner: selectors.BaseSelector, speed: float, wakes: bool) -> None:
        self._inner = inner
        self._wakes = wakes
        self._speed = speed
        self._wall_s = time.monotonic()
        self.now_s = 0.0

    @property
    def speed(self) -> float:
        """Virtual seconds per second."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._speed, self._wall_s = speed, time.monotonic()

    def select(self, timeout: float | None = None) -> Any:
        ready = self._inner.select(0)
        if timeout is None and not ready and not self._wakes:
            raise RuntimeError("virtual time stands still: every task waits for something that nothing brings")
        if math.isinf(self._speed):
            if ready:
                return ready
            if timeout is None:
                return self._inner.select(None)
            self.now_s += max(0.0, timeout)
            return ready
        return ready if ready and timeout is None else self._select_in_time(timeout)

    def _select_in_time(self, timeout: float | None) -> Any:
        """Wait as long as it takes at this speed; what computing took of the wall's time counts."""
        wait_s = None
        if timeout is not None:
            wait_s = max(0.0, max(0.0, timeout) / self._speed - (time.monotonic() - self._wall_s))
        ready = self._inner.select(wait_s)
        wall_s = time.monotonic()
        passed_s = (wall_s - self._wall_s) * self._speed
        if timeout is not None:
            passed_s = min(passed_s, timeout) if ready else max(0.0, timeout)
        self.now_s += passed_s
        self._wall_s = max(self._wall_s + passed_s / self._speed, wall_s - _MOST_BEHIND_S)
        return ready

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time; its clock begins at 0 s.

    Args:
        speed: Virtual seconds per second; infinite by default: nothing waits.
        wakes: Whether somebody outside may wake it (`call_soon_threadsafe`, a signal): then it may wait for ever.
    """

    def __init__(self, speed: float = math.inf, *, wakes: bool = False) -> None:
        self._jumping = _JumpingSelector(selectors.DefaultSelector(), speed, wakes)
        super().__init__(self._jumping)  # type: ignore[arg-type]

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now_s

    @property
    def speed(self) -> float:
        """Virtual seconds per second; may be changed at any time."""
        return self._jumping.speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._jumping.speed = speed

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
