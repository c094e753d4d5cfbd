"""The harness's buffers: values and addresses that change, inputs that must not be rolled, and cold rotation."""

from __future__ import annotations

import pytest
import torch

from ridgeline.analytical.operators import Gemm
from ridgeline.analytical.problem import NO_STRUCTURE, Structure
from ridgeline.bench.devices.cpu_session import CpuSession
from ridgeline.bench.launches import COLD_FACTOR, EVICT_FACTOR, Slot, make_launches, roll_into, rolled
from ridgeline.kernels.gemm.operator import GemmOperator
from ridgeline.kernels.registry import Context, RegistryError, Run, Tensors, get_implementation, load

load()
PROBLEM = Gemm(m=64, n=48, k=32, precision="float32")


class Watching:
    """A right kernel that notes what it was given."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.addresses: list[int] = []

    def prepare(self, problem: Gemm, constants: Tensors, context: Context) -> Run:
        def run(inputs: Tensors, out: torch.Tensor) -> None:
            self.values.append(float(inputs["a"][0, 0]))
            self.addresses.append(inputs["a"].data_ptr())
            torch.matmul(inputs["a"], constants["b"], out=out)

        return run


def launches_of(operator: GemmOperator, seen: Watching, *, cold: bool, cache_bytes: float = 1e5):  # type: ignore[no-untyped-def]
    import dataclasses

    implementation = dataclasses.replace(get_implementation("gemm", "torch"), prepare=seen.prepare)
    made = make_launches(
        operator, PROBLEM, implementation, CpuSession(), threads=1, cold=cold, cache_bytes=cache_bytes, seed=1
    )
    return made[0]


def test_warm_blocks_change_address_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    # These blocks last microseconds, so the time allowed for checks would leave most of them out.
    monkeypatch.setattr("ridgeline.bench.launches.CHECK_SHARE", 1e9)
    seen = Watching()
    launches = launches_of(GemmOperator(), seen, cold=False)
    for _ in range(4):
        launches.before_block(3)
        launches.launch(3)
        launches.after_block()
    assert len(set(seen.addresses)) == 2
    assert len(set(seen.values)) >= 4


def test_cold_rotation_passes_through_three_caches_before_it_returns() -> None:
    seen = Watching()
    cache = 1e5
    launches = launches_of(GemmOperator(), seen, cold=True, cache_bytes=cache)
    launches.launch(200)
    again = seen.addresses.index(seen.addresses[0], 1)
    assert again * PROBLEM.footprint_bytes() > COLD_FACTOR * cache
    assert len(set(seen.values)) > 10


def test_buffers_that_were_renewed_leave_the_cache_before_their_checked_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ridgeline.bench.launches.CHECK_SHARE", 1e9)
    cache, seen, gaps = 1e5, Watching(), []
    launches = launches_of(GemmOperator(), seen, cold=True, cache_bytes=cache)
    renew, check = launches._renew, launches._check
    renewed: list[tuple[int, int]] = []

    def note_renewal(slot: Slot) -> None:
        renewed.append((slot.inputs["a"].data_ptr(), len(seen.addresses)))
        renew(slot)

    def note_check(when: str) -> None:
        buffer, then = renewed[-1]
        gaps.append(seen.addresses[then:].index(buffer))
        check(when)

    monkeypatch.setattr(launches, "_renew", note_renewal)
    monkeypatch.setattr(launches, "_check", note_check)
    for _ in range(40):
        launches.before_block(5)
        launches.launch(5)
        launches.after_block()
    assert len(gaps) >= 5
    assert len(gaps) in (len(renewed), len(renewed) - 1)
    assert min(gaps) * PROBLEM.footprint_bytes() >= EVICT_FACTOR * cache


def test_fixed_inputs_are_never_rolled() -> None:
    class Fixed(GemmOperator):
        name = "gemm"
        fixed_inputs = frozenset({"a"})

    seen = Watching()
    launches = launches_of(Fixed(), seen, cold=False)
    launches.check_all_ways("now")
    launches.check_all_ways("again")
    assert len(set(seen.values)) == 2  # one for each of the two slots


class Realised(GemmOperator):
    """A product whose structure is how many elements of A are positive."""

    name = "gemm"
    redrawn = False

    def make_inputs(self, problem: Gemm, generator: torch.Generator) -> Tensors:
        return super().make_inputs(problem, generator if self.redrawn else torch.Generator().manual_seed(1))

    def structure(self, problem: Gemm, constants: Tensors, inputs: Tensors) -> Structure:
        return Structure({"positive": float((inputs["a"] > 0).sum())}, "digest")


def test_the_structure_is_that_of_the_inputs() -> None:
    launches = launches_of(Realised(), Watching(), cold=True)
    assert launches.structure.digest == "digest"
    assert 0 < launches.structure.figure("positive") < PROBLEM.m * PROBLEM.k
    assert launches_of(GemmOperator(), Watching(), cold=False).structure == NO_STRUCTURE


def test_a_structure_that_differs_from_buffer_to_buffer_is_refused() -> None:
    operator = Realised()
    operator.redrawn = True
    with pytest.raises(RegistryError, match="differ in structure: draw it with the problem's seed"):
        launches_of(operator, Watching(), cold=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("by", [1, 5, 23])
def test_rolling_into_a_kept_tensor_gives_what_a_new_one_would(dtype: torch.dtype, by: int) -> None:
    source = torch.randint(-8, 8, (4, 6), generator=torch.Generator().manual_seed(1)).to(dtype)
    for laid_out in (source, source.T):
        target = torch.empty_like(laid_out)
        roll_into(target, laid_out, by)
        assert torch.equal(target.float(), rolled(laid_out, by).float())
