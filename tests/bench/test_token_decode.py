"""How many copies of keys and values a cold decode step takes."""

from __future__ import annotations

import pytest

from ridgeline.bench.paper_checks import token_decode
from ridgeline.kernels.registry import Unsupported


def test_more_copies_than_memory_holds_are_refused() -> None:
    assert token_decode.copies(2.0**20, 2.0**20, 2.0**20) == 4
    with pytest.raises(Unsupported, match="a cold cache of 1024 MiB takes 3073 copies of"):
        token_decode.copies(2.0**30, 2.0**20, 2.0**40)
