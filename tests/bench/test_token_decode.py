"""How many copies of keys and values a cold decode step takes, and whether they were cold."""

from __future__ import annotations

import psutil
import pytest

from ridgeline.bench.paper_checks import token_decode
from ridgeline.bench.paper_checks.lab import Lab, Ratio, open_lab
from ridgeline.bench.paper_checks.token_decode import Copies
from ridgeline.kernels.registry import Unsupported

MIB = 2.0**20


def memory(monkeypatch: pytest.MonkeyPatch, there: float) -> None:
    class Memory:
        available = there / token_decode.MEMORY_SHARE

    monkeypatch.setattr(psutil, "virtual_memory", Memory)


def test_as_many_copies_as_pass_through_the_cache_or_as_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert token_decode.copies(MIB, MIB, MIB, MIB).count == 4
    memory(monkeypatch, 2000 * MIB)
    assert token_decode.copies(32 * MIB, MIB, 16 * MIB, MIB).count == 97
    memory(monkeypatch, 1000 * MIB)
    assert token_decode.copies(32 * MIB, MIB, 16 * MIB, MIB).count == 62
    memory(monkeypatch, 100 * MIB)
    with pytest.raises(
        Unsupported, match=r"a cold cache of 32 MiB takes 97 copies of 0\.017 GB, or 16 beside a dense decode"
    ):
        token_decode.copies(32 * MIB, MIB, 16 * MIB, MIB)


def test_what_passes_between_two_uses_of_a_copy() -> None:
    cold = Copies(62, touched_bytes=MIB, dense_bytes=16 * MIB, cache_bytes=32 * MIB)
    # 8 steps a quad: 7 whole quads lie between, each with 4 dense launches.
    assert cold.passed_bytes(8, 4) == (62 + 7 * 4 * 16) * MIB
    assert cold.passed_bytes(63, 4) == 62 * MIB, "no whole quad is sure to lie between"


def test_a_ratio_of_copies_that_came_back_too_soon_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cold = Copies(62, touched_bytes=MIB, dense_bytes=16 * MIB, cache_bytes=32 * MIB)
    with open_lab("cpu", threads=1) as lab:
        dense = lab.function(lambda: None, "dense")
        for fast_s, refused in ((1e-3, False), (5e-5, True)):  # 6 and 82 steps a quad
            ratio = Ratio(4.0, 3.9, 4.1, 100, slow_s=4e-3, fast_s=fast_s)
            monkeypatch.setattr(Lab, "ratio", lambda *_, ratio=ratio, **__: ratio)
            if refused:
                with pytest.raises(Unsupported, match="62 copies, as many as memory holds, came again after 62 MiB"):
                    token_decode.against_dense(lab, dense, [lambda: None], "sparse", cold)
            else:
                assert token_decode.against_dense(lab, dense, [lambda: None], "sparse", cold) is ratio
