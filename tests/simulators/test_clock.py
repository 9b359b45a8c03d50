from __future__ import annotations

import asyncio
import time

import pytest

from cartoseq.simulators.clock import run_virtual


def test_hours_pass_in_no_time_and_in_order() -> None:
    seen: list[tuple[float, str]] = []

    async def worker(name: str, pause_s: float) -> None:
        for _ in range(3):
            await asyncio.sleep(pause_s)
            seen.append((asyncio.get_running_loop().time(), name))

    async def main() -> None:
        await asyncio.gather(worker("slow", 3600.0), worker("quick", 1500.0))

    begin_s = time.perf_counter()
    run_virtual(main())
    assert time.perf_counter() - begin_s < 5.0
    assert [name for _, name in seen] == ["quick", "quick", "slow", "quick", "slow", "slow"]
    assert [at_s for at_s, _ in seen] == pytest.approx([1500, 3000, 3600, 4500, 7200, 10800])


def test_a_deadlock_is_an_error_and_not_a_wait_for_ever() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="virtual time stands still"):
        run_virtual(main())


def test_work_for_threads_is_done_at_once() -> None:
    async def main() -> int:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await asyncio.to_thread(lambda: 42)

    assert run_virtual(main()) == 42
