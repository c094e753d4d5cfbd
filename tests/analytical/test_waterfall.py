"""The waterfall: parts add up to the gap, each cause costs what it must, and what is unknown is said."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.limits import limits
from ridgeline.analytical.operators import gemm_work
from ridgeline.analytical.waterfall import PARTS, Tiling, Waterfall, waterfall
from ridgeline.analytical.work import Work, fma_key

A100 = catalogue()["nvidia-a100-sxm4-80gb"]
MEGAHERTZ = 1410.0


def full(m: Any, n: Any, k: Any, measured_s: Any, **changes: Any) -> Waterfall:
    work = gemm_work(m, n, k, "bfloat16")
    facts = {
        "launch_s": 2e-6,
        "clock_mhz": MEGAHERTZ,
        "tiling": Tiling(rows=m, columns=n, tile_rows=128.0, tile_columns=256.0, units=108.0),
        "moved_bytes": work.bytes,
        **changes,
    }
    return waterfall(work, A100, measured_s, **facts)


sizes = st.integers(1, 10_000).map(float)


@given(sizes, sizes, sizes, st.floats(1e-7, 1.0), st.floats(500.0, 2000.0), st.floats(1.0, 9.0))
@settings(max_examples=60)
def test_the_parts_add_up_to_the_gap(m: float, n: float, k: float, time: float, clock: float, more: float) -> None:
    found = full(m, n, k, time, clock_mhz=clock, moved_bytes=gemm_work(m, n, k, "bfloat16").bytes * more)
    assert tuple(found.parts) == PARTS
    assert not found.unknown
    largest = max(time, *map(abs, found.parts.values()))
    assert sum(found.parts.values()) == pytest.approx(time - found.ideal_s, abs=1e-14 * largest)
    assert found.explained_s + found.parts["residual"] == pytest.approx(time)
    for name in ("overhead", "cache", "tile quantisation", "wave quantisation", "unfused traffic"):
        assert found.parts[name] >= 0.0


@given(st.lists(st.tuples(sizes, sizes, sizes, st.floats(1e-6, 1e-1)), min_size=1, max_size=5).map(np.array))
@settings(max_examples=25)
def test_a_column_equals_its_numbers(rows: Any) -> None:
    together = full(*rows.T)
    for i, row in enumerate(rows.tolist()):
        alone = full(*row)
        assert {name: float(part[i]) for name, part in together.parts.items()} == pytest.approx(
            {name: float(part) for name, part in alone.parts.items()}, rel=1e-12, abs=1e-18
        )


def test_by_hand() -> None:
    """8192 x 4096 x 4096 on an A100: 32 x 32 tiles of 256 x 128 in 9.48 waves of 108; ten waves are paid."""
    flop = 2.0 * 8192 * 4096 * 4096
    peak = limits(Work(operations={fma_key("bfloat16"): 1.0}), A100).overlapped_s
    found = full(8192.0, 4096.0, 4096.0, 1.4e-3, tiling=Tiling(
        rows=8192.0, columns=4096.0, tile_rows=256.0, tile_columns=128.0, units=108.0,
    ))  # fmt: skip
    assert found.ideal_s == pytest.approx(flop * peak)
    assert found.parts["overhead"] == pytest.approx(2e-6)
    assert found.parts["tile quantisation"] == pytest.approx(0.0, abs=1e-12)
    assert found.parts["wave quantisation"] == pytest.approx(flop * peak * (10 * 108 / 1024 - 1.0))
    assert found.parts["residual"] > 0.0


def test_an_overhanging_tile_costs_a_full_one() -> None:
    tiling = Tiling(rows=129.0, columns=256.0, tile_rows=128.0, tile_columns=256.0, units=108.0)
    assert tiling.pieces == 2.0
    assert tiling.tile_factor == pytest.approx(256.0 / 129.0)
    assert tiling.wave_factor == pytest.approx(108.0 / 2.0)
    split = dataclasses.replace(tiling, splits=4.0, batch=3.0)
    assert (split.pieces, split.tile_factor) == (24.0, pytest.approx(256.0 / 129.0))


def test_half_the_clock_doubles_arithmetic() -> None:
    slow = full(8192.0, 4096.0, 4096.0, 4e-3, clock_mhz=MEGAHERTZ / 2.0)
    assert slow.parts["clock"] == pytest.approx(slow.ideal_s)


def test_the_cache_part_is_what_warm_operands_save() -> None:
    cold, warm = (full(1.0, 4096.0, 4096.0, 5e-5, warm=w) for w in (False, True))
    moved = gemm_work(1.0, 4096.0, 4096.0, "bfloat16").bytes
    bandwidth = A100.bandwidth("HBM")
    assert bandwidth is not None
    assert cold.parts["cache"] > 0.0
    assert cold.ideal_s + cold.parts["cache"] == pytest.approx(moved / bandwidth.value_per_s)
    assert warm.parts["cache"] == 0.0


def test_unfused_traffic() -> None:
    moved = gemm_work(1.0, 4096.0, 4096.0, "bfloat16").bytes
    found = full(1.0, 4096.0, 4096.0, 5e-5, moved_bytes=3.0 * moved, tiling=None)
    bandwidth = A100.bandwidth("HBM")
    assert bandwidth is not None
    assert found.parts["unfused traffic"] == pytest.approx(2.0 * moved / bandwidth.value_per_s, rel=1e-3)
    with pytest.raises(ValueError, match="less than the compulsory bytes"):
        full(1.0, 4096.0, 4096.0, 5e-5, moved_bytes=0.5 * moved)


def test_a_negative_residual_is_shown() -> None:
    assert full(8192.0, 4096.0, 4096.0, 1e-4).parts["residual"] < 0.0


def test_what_is_unknown_is_in_the_residual_and_said() -> None:
    work = gemm_work(512.0, 512.0, 512.0, "bfloat16")
    found = waterfall(work, A100, 1e-4)
    assert set(found.unknown) == {"overhead", "clock", "tile quantisation", "wave quantisation", "unfused traffic"}
    assert set(found.parts) == {"cache", "residual"}
    assert sum(found.parts.values()) == pytest.approx(1e-4 - found.ideal_s)
    clockless = dataclasses.replace(A100, rates=tuple(dataclasses.replace(r, clock_mhz=None) for r in A100.rates))
    assert "does not state the clock of" in waterfall(work, clockless, 1e-4, clock_mhz=1000.0).unknown["clock"]
