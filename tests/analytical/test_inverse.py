"""Inverse questions: the answer meets what was asked, and the next value on the other side does not."""

from __future__ import annotations

import math
from typing import Any

import llama_layer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.inverse import (
    InverseError,
    bandwidth_for_time_bytes_per_s,
    bandwidth_to_be_compute_bound_bytes_per_s,
    intensity_to_be_compute_bound_flop_per_byte,
    largest_within,
    smallest_float,
    step_bandwidth_to_be_compute_bound_bytes_per_s,
    with_bandwidth,
)
from ridgeline.analytical.limits import limits
from ridgeline.analytical.operators import gemm_work
from ridgeline.analytical.work import Work

H100 = catalogue()["nvidia-h100-sxm5-80gb"]


@given(st.floats(1.0, 1e4), st.floats(1.0, 1e4), st.floats(1.0, 1e4))
@settings(max_examples=40)
def test_at_that_bandwidth_unit_and_memory_take_as_long(m: float, n: float, k: float) -> None:
    work = gemm_work(m, n, k, "bfloat16")
    asked = bandwidth_to_be_compute_bound_bytes_per_s(work, H100)
    there = limits(work, with_bandwidth(H100, H100.main_memory.name, asked), level=H100.main_memory.name)
    assert there.of("unit") == pytest.approx(work.bytes / asked)


def test_ridge_point() -> None:
    work = gemm_work(np.array([8.0, 4096.0]), 4096.0, 4096.0, "bfloat16")
    rate, bandwidth = H100.rate(next(iter(work.operations))), H100.bandwidth("HBM")
    assert rate is not None
    assert bandwidth is not None
    ridge = rate.value_per_s / bandwidth.value_per_s
    assert intensity_to_be_compute_bound_flop_per_byte(work, H100) == pytest.approx([ridge, ridge])
    needed = bandwidth_to_be_compute_bound_bytes_per_s(work, H100)
    assert needed == pytest.approx(rate.value_per_s / work.intensity_flop_per_byte)
    assert bandwidth_to_be_compute_bound_bytes_per_s(Work(read_bytes={"kv": 5.0}), H100) == math.inf


@given(st.integers(1, 1000), st.integers(1, 1000), st.floats(0.0, 2000.0))
def test_the_largest_number_within_a_limit(least: int, span: int, limit: float) -> None:
    def seconds(number: int) -> float:
        return 1.5 * number

    most = least + span
    if seconds(least) > limit:
        with pytest.raises(InverseError, match=f"even {least} takes"):
            largest_within(seconds, limit, least, most)
        return
    found = largest_within(seconds, limit, least, most)
    assert least <= found <= most
    assert seconds(found) <= limit
    assert found == most or seconds(found + 1) > limit


@given(st.floats(1.0, 1e29))
def test_the_smallest_float_is_exact(edge: float) -> None:
    assert smallest_float(lambda x: x >= edge, 1.0, 1e30) == edge


def test_no_answer_is_said() -> None:
    with pytest.raises(InverseError, match="no answer up to"):
        smallest_float(lambda x: False, 1.0, 2.0)


def decode(batch: int) -> Any:
    return llama_layer.operations_of(float(batch), 1.0, 2048.0)


def step_s(operations: Any, device: Any) -> float:
    return sum(float(o.count * limits(o.work, device).overlapped_s) for o in operations if not o.fusible)


def test_which_batch_meets_a_limit() -> None:
    found = largest_within(lambda batch: step_s(decode(batch), H100), 10e-3, 1, 4096)
    assert step_s(decode(found), H100) <= 10e-3 < step_s(decode(found + 1), H100)
    assert 30 < found < 120


def test_what_bandwidth_meets_a_limit() -> None:
    found = bandwidth_for_time_bytes_per_s(lambda device: step_s(decode(1), device), H100, 2e-3)
    at, under = (step_s(decode(1), with_bandwidth(H100, "HBM", b)) for b in (found, np.nextafter(found, 0.0)))
    assert at <= 2e-3 < under
    assert found == pytest.approx(15.28e9 / 2e-3, rel=0.02)
    prefill = llama_layer.operations_of(1.0, 2048.0, 2048.0)
    with pytest.raises(InverseError, match=r"no bandwidth of HBM meets 1 ms on nvidia-h100.*ms are left"):
        bandwidth_for_time_bytes_per_s(lambda device: step_s(prefill, device), H100, 1e-3)


def test_what_bandwidth_makes_a_step_compute_bound() -> None:
    found = step_bandwidth_to_be_compute_bound_bytes_per_s(decode(8), H100)
    stated = H100.bandwidth("HBM")
    assert stated is not None

    def share(bytes_per_s: float) -> float:
        terms = [
            (float(o.count * limits(o.work, H100).of("unit")), float(o.count * o.work.bytes) / bytes_per_s)
            for o in decode(8)
            if not o.fusible
        ]
        return sum(c for c, m in terms if c >= m) / sum(max(pair) for pair in terms)

    assert share(found) >= 0.5 > share(found * (1.0 - 1e-9))
    assert found > stated.value_per_s
    with pytest.raises(InverseError, match="share must lie between"):
        step_bandwidth_to_be_compute_bound_bytes_per_s(decode(8), H100, share=1.5)
