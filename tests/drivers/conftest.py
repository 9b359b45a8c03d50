from __future__ import annotations

import pytest


@pytest.fixture
def demonstration_adapters() -> str:
    """Where Micro-Manager's demonstration devices lie; tests that need them are skipped, loudly, where they are not."""
    pytest.importorskip("pymmcore", reason="PYMMCORE ABSENT: Micro-Manager's devices are not tested")
    adapters = pytest.importorskip("mm_test_adapters", reason="MM-TEST-ADAPTERS ABSENT: no demonstration devices")
    return str(adapters.device_adapter_path())
