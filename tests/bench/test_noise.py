"""The noise of the machine, from measurements with known blocks."""

from __future__ import annotations

import dataclasses

import pytest

from ridgeline.bench.callables import Measured
from ridgeline.bench.noise import CASE_S, describe_noise, measure_noise
from ridgeline.results.measurement import Conditions, LeftOutBlock

QUIET = Measured(
    median_s=1.0,
    interval_low_s=0.98,
    interval_high_s=1.02,
    unstable_reason="",
    samples_s=tuple((0.9 + 0.02 * n,) for n in range(11)),
    calls_per_sample=1,
    conditions=tuple(Conditions(steal_s=0.01) for _ in range(11)),
    left_out=(),
    device="d",
    timer="t",
    threads=1,
)


def test_the_precision_is_that_of_a_case_and_not_of_the_shorter_look() -> None:
    noise = describe_noise(QUIET, CASE_S / 4, 0.5)
    assert noise.precision_relative == pytest.approx(0.01)
    assert noise.spread_relative == pytest.approx(0.16)
    assert noise.steal_s == pytest.approx(0.11)
    assert (noise.left_out_share, noise.causes) == (0.0, ())


def test_disturbed_blocks_are_counted_by_cause_and_no_interval_is_no_precision() -> None:
    left_out = tuple(LeftOutBlock(block=n, cause="hypervisor" if n == 0 else "other processes") for n in range(3))
    loud = dataclasses.replace(
        QUIET, interval_low_s=None, interval_high_s=None, left_out=left_out, conditions=(Conditions(),) * 11
    )
    noise = describe_noise(loud, 1.0, 3.0)
    assert noise.precision_relative is None
    assert noise.steal_s is None
    assert noise.left_out_share == pytest.approx(3 / 11)
    assert noise.causes == ("other processes", "hypervisor")


def test_this_machine_can_be_looked_at() -> None:
    noise = measure_noise(0.3)
    assert noise.spread_relative >= 0.0
    assert 0.0 <= noise.left_out_share <= 1.0
