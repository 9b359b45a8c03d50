"""Other people's clients against our simulators: they cannot share a misunderstanding of ours.

They are not installed with the tests: ``pip install "cartoseq[oracles]"``. What is not there is skipped by name.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cartoseq.simulators.hosts import PtyHost, TcpHost

Serve = Callable[[Any], Any]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start hosts in a thread of their own, since these clients block; all are closed at the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    hosts: list[TcpHost | PtyHost] = []

    def start(make: Callable[[], TcpHost | PtyHost]) -> TcpHost | PtyHost:
        async def made() -> TcpHost | PtyHost:
            host = make()
            await host.start()
            hosts.append(host)
            return host

        return asyncio.run_coroutine_threadsafe(made(), loop).result(10)

    try:
        yield start
    finally:
        for host in hosts:
            asyncio.run_coroutine_threadsafe(host.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
