"""The C library, built once; every test gets a fresh card, and afterwards there is no GPU again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_nvml import FakeNvml, build


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def _loaded(fake_library: Path) -> FakeNvml:
    import pynvml

    try:  # a machine with a driver has the real library in this process from here on
        pynvml.nvmlInit()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return FakeNvml(fake_library)
    pytest.skip("a real NVIDIA driver is here")


@pytest.fixture
def nvml(_loaded: FakeNvml) -> Iterator[FakeNvml]:
    _loaded.reset()
    yield _loaded
    _loaded.disable()
