from __future__ import annotations

import os

import pytest


@pytest.fixture
def demonstration_adapters() -> str:
    """Where Micro-Manager's demonstration devices lie; tests that need them are skipped, loudly, where they are not."""
    if not os.environ.get("CARTOSEQ_MICRO_MANAGER"):
        pytest.skip(
            "MICRO-MANAGER'S DEMONSTRATION DEVICES NOT TRIED: now and then they crash the whole process "
            "(set CARTOSEQ_MICRO_MANAGER=1 to try them)"
        )
    pytest.importorskip("pymmcore", reason="PYMMCORE ABSENT: Micro-Manager's devices are not tested")
    adapters = pytest.importorskip("mm_test_adapters", reason="MM-TEST-ADAPTERS ABSENT: no demonstration devices")
    return str(adapters.device_adapter_path())
