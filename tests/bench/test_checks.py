"""The checker: in full and sampled, poison, tolerance, the worst element; and launches whose buffers change."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ridgeline.analytical.operators import Gemm, Stream
from ridgeline.bench.checks import SAMPLED_ROWS, Checker, IncorrectError, poison
from ridgeline.bench.devices.cpu_session import CpuSession
from ridgeline.bench.launches import make_launches
from ridgeline.kernels import registry
from ridgeline.kernels.registry import Unsupported, get_implementation, get_operator

registry.load()
SMALL = Gemm(m=40, n=24, k=16, precision="float32")
LARGE = Gemm(m=400, n=800, k=400, precision="float32")


class Case:
    """A checker of ``gemm`` with inputs and the right output."""

    def __init__(self, problem: Gemm, tolerance: float = 1e-5) -> None:
        self.operator = get_operator("gemm")
        self.generator = torch.Generator().manual_seed(3)
        self.constants = self.operator.make_constants(problem, self.generator)
        self.inputs = self.operator.make_inputs(problem, self.generator)
        self.right = self.operator.reference(problem, self.constants, self.inputs, None)
        self.checker = Checker(self.operator, problem, self.constants, self.generator, tolerance)

    def check(self, out: Any) -> dict[str, Any]:
        self.checker.check(self.inputs, out, "now")
        return self.checker.facts()

    def refused(self, out: Any) -> str:
        with pytest.raises(IncorrectError) as caught:
            self.check(out)
        return str(caught.value)


def test_small_outputs_are_checked_in_full() -> None:
    case = Case(SMALL)
    facts = case.check(case.right.float())
    assert facts["rows_checked"] == 40
    assert 0.0 < facts["error_relative"] < 1e-6
    for row in range(40):
        out = case.right.float()
        out[row, 7] += 1.0
        assert "relative error" in Case(SMALL).refused(out)


def test_large_outputs_are_sampled_with_their_first_and_last_row_always() -> None:
    case = Case(LARGE)
    out = case.right.float()
    facts = case.check(out)
    assert 3 <= facts["rows_checked"] <= SAMPLED_ROWS
    for row in (0, 399):
        broken = out.clone()
        broken[row] = 0.0
        assert "relative error" in case.refused(broken)


def test_other_rows_are_sampled_each_time_so_that_a_wrong_one_is_found_in_the_end() -> None:
    case = Case(LARGE)
    out = case.right.float()
    out[100:150] = 0.0  # an eighth of the rows: missed by 14 random ones with probability 0.15
    for _ in range(20):
        try:
            case.check(out)
        except IncorrectError:
            return
    pytest.fail("50 of 400 rows are wrong, and 20 samples of 14 rows did not see it")


@pytest.mark.parametrize("operation", ["copy", "triad"])
def test_long_arrays_are_sampled_in_rows_of_their_own(operation: str) -> None:
    problem = Stream(operation=operation, elements=5 * 1024 * 1024, passes=1)
    operator, generator = get_operator("stream"), torch.Generator().manual_seed(3)
    inputs = operator.make_inputs(problem, generator)
    right = operator.reference(problem, {}, inputs, None).float()
    checker = Checker(operator, problem, {}, generator, operator.tolerance(problem).relative)
    checker.check(inputs, right, "now")
    assert 3 <= checker.rows_checked <= SAMPLED_ROWS
    for broken in (slice(0, 1024), slice(-1, None), slice(1024 * 1024, None)):
        out = right.clone()
        out[broken] = 0.0
        with pytest.raises(IncorrectError, match="relative error"):
            checker.check(inputs, out, "now")


def test_arrays_that_fill_no_rows_are_compared_whole() -> None:
    problem = Stream(operation="copy", elements=4_500_001, passes=1)
    operator, generator = get_operator("stream"), torch.Generator().manual_seed(3)
    inputs = operator.make_inputs(problem, generator)
    out = inputs["a"].clone()
    out[3_000_000] = 0.0
    with pytest.raises(IncorrectError, match="relative error"):
        Checker(operator, problem, {}, generator, 0.0).check(inputs, out, "now")


def test_poison_that_is_left_is_found() -> None:
    case = Case(SMALL)
    out = case.right.float()
    poison(out[3:5])
    assert case.refused(out) == "now: 48 of 960 checked elements are not finite or not written"
    out[3:5] = float("inf")
    assert "48 of 960" in case.refused(out)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_poison_of_floats_is_not_a_number(dtype: Any) -> None:
    out = torch.zeros(3, dtype=dtype)
    poison(out)
    assert torch.isnan(out).all()


def test_poison_of_integers_is_found() -> None:
    problem = Gemm(m=40, n=24, k=16, precision="int8")
    case = Case(problem, tolerance=0.0)
    out = case.right.to(torch.int32)
    assert case.check(out)["error_relative"] == 0.0
    poison(out[3, :1])
    assert "relative error" in case.refused(out)
    right = case.right.to(torch.int32)
    right[0, 0] += 1
    assert "above the tolerance 0" in case.refused(right)


def test_the_tolerance_is_the_border() -> None:
    case = Case(SMALL, tolerance=1e-3)
    assert case.check(case.right * (1 + 0.9e-3))["error_relative"] == pytest.approx(0.9e-3)
    assert "relative error 0.0011 is above the tolerance 0.001" in case.refused(case.right * (1 + 1.1e-3))


def test_the_worst_element_and_the_worst_of_all_checks_are_kept() -> None:
    case = Case(SMALL, tolerance=1.0)
    out = case.right.clone()
    typical = float(case.right.square().mean().sqrt())
    out[5, 6] += 3.0 * typical
    facts = case.check(out)
    assert facts["error_worst"] == pytest.approx(3.0)
    assert facts["error_relative"] == pytest.approx(3.0 / 960**0.5)
    after = case.check(case.right)
    assert after["error_worst"] == facts["error_worst"]
    assert after["error_relative"] == facts["error_relative"]
    assert after["rows_checked"] == 80


def test_a_reference_of_zeros_is_held_to_absolute_errors() -> None:
    case = Case(SMALL)
    case.inputs["a"].zero_()
    assert case.check(torch.zeros(40, 24))["error_relative"] == 0.0
    assert "relative error" in case.refused(torch.full((40, 24), 1e-3))


def launches_of(problem: Gemm, cold: bool, cache_bytes: float = 1e5) -> Any:
    return make_launches(
        get_operator("gemm"),
        problem,
        get_implementation("gemm", "torch"),
        CpuSession(),
        threads=1,
        cold=cold,
        cache_bytes=cache_bytes,
        seed=5,
    )


@pytest.mark.parametrize("count", [1, 3, 4])
def test_values_and_addresses_change_between_warm_blocks(count: int) -> None:
    launches, checker, _ = launches_of(SMALL, cold=False)
    launches.check_all_ways("before")
    seen = []
    for _ in range(6):
        launches.before_block(count)
        launches.launch(count)
        watched = launches._watched
        assert torch.isfinite(watched.out).all()
        seen.append((watched.inputs["a"].data_ptr(), watched.out.data_ptr(), float(watched.inputs["a"][0, 0])))
        launches.after_block()
    assert len({value for _, _, value in seen}) > 1
    assert all(seen[i][:2] != seen[i + 1][:2] for i in range(5))
    assert checker.facts()["rows_checked"] >= 80


def test_cold_launches_pass_through_three_caches_before_a_buffer_comes_again() -> None:
    launches, _, _ = launches_of(SMALL, cold=True, cache_bytes=1e5)
    slots = launches._slots
    assert (len(slots) - 1) * SMALL.footprint_bytes() >= 3e5
    assert len({slot.inputs["a"].data_ptr() for slot in slots}) == len(slots)
    assert len({slot.out.data_ptr() for slot in slots}) == len(slots)
    assert len({id(slot.run) for slot in slots}) == len(slots)


def test_a_cold_block_of_more_launches_than_copies_is_unsupported_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ridgeline.bench.launches.MOST_SLOTS", 8)
    launches, _, _ = launches_of(Gemm(m=1, n=1, k=1, precision="float32"), cold=True, cache_bytes=1e6)
    assert not launches.stays_cold
    launches.before_block(8)
    evicted = float(launches._evict[0])
    launches.launch(8)
    launches.after_block()
    launches.before_block(8)
    assert float(launches._evict[0]) == evicted + 1.0, "each block begins with an emptied cache"
    with pytest.raises(Unsupported, match=r"a cold block of 9 launches comes twice to its 8 copies .*measure it warm"):
        launches.before_block(9)


def test_a_rotation_that_passes_through_the_cache_may_come_again() -> None:
    launches, _, _ = launches_of(SMALL, cold=True, cache_bytes=1e5)
    assert launches.stays_cold
    launches.before_block(10 * launches.rotation)
