"""Roofs at the clock that was seen."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.clock_correction import device_at_clock, raised_to_clock, rate_at_clock
from ridgeline.analytical.work import Work, fma_key

H100 = catalogue()["nvidia-h100-sxm5-80gb"]


@given(st.floats(100.0, 3000.0))
def test_a_rate_follows_the_clock_and_a_bandwidth_does_not(clock_mhz: float) -> None:
    moved = device_at_clock(H100, clock_mhz)
    assert moved is not None
    assert moved.bandwidths == H100.bandwidths
    for before, after in zip(H100.rates, moved.rates, strict=True):
        assert before.clock_mhz is not None
        assert after.value_per_s / before.value_per_s == pytest.approx(clock_mhz / before.clock_mhz)
        assert after.clock_mhz == clock_mhz


@given(st.floats(100.0, 3000.0))
def test_physics_is_only_ever_raised(clock_mhz: float) -> None:
    raised = raised_to_clock(H100, clock_mhz)
    for before, after in zip(H100.rates, raised.rates, strict=True):
        assert before.clock_mhz is not None
        assert after.value_per_s == pytest.approx(before.value_per_s * max(1.0, clock_mhz / before.clock_mhz))


def test_a_rate_without_a_clock_is_not_moved() -> None:
    unknown = dataclasses.replace(H100.rates[0], clock_mhz=None)
    assert rate_at_clock(unknown, 1000.0) is None
    assert device_at_clock(dataclasses.replace(H100, rates=(unknown,)), 1000.0) is None
    assert raised_to_clock(dataclasses.replace(H100, rates=(unknown,)), 9000.0).rates == (unknown,)


@pytest.mark.parametrize("clock_mhz", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_clock_is_refused(clock_mhz: float) -> None:
    with pytest.raises(ValueError, match="positive number of MHz"):
        device_at_clock(H100, clock_mhz)


@pytest.mark.parametrize("name", ["nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb", "nvidia-h200-sxm-141gb"])
def test_the_clocks_of_the_catalogue_explain_its_rates(name: str) -> None:
    """multiprocessors x operations per clock x clock, a power of two of operations; data sheets round to 2 %."""
    multiprocessors = 108 if "a100" in name else 132
    for rate in catalogue()[name].rates:
        assert rate.clock_mhz is not None
        per_clock = rate.value_per_s / (multiprocessors * rate.clock_mhz * 1e6)
        nearest = 2 ** round(math.log2(per_clock))
        assert per_clock == pytest.approx(nearest, rel=0.02)


def test_work_in_tf32_is_held_against_the_tf32_rate() -> None:
    work = Work(operations={fma_key("float32", "matrix"): 6.0, fma_key("float32", "vector"): 2.0})
    moved = work.in_tfloat32()
    assert moved.flop == work.flop
    (tf32,) = [key for key in moved.operations if key.a == "tfloat32"]
    assert moved.operations[tf32] == 6.0
    assert H100.rate(tf32) is not None
    assert H100.rate(tf32).unit == "matrix"  # type: ignore[union-attr]
