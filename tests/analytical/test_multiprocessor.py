"""Multiprocessors: limits, rates and their sources; occupancy against published examples; the issue bound's arithmetic."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.issue_bound import issue_bound
from ridgeline.analytical.multiprocessor import Multiprocessor, multiprocessors
from ridgeline.analytical.occupancy import occupancy

TARGETS = ("gfx942", "gfx950", "sm_100", "sm_120", "sm_80", "sm_89", "sm_90")
SM80, SM90 = multiprocessors()["sm_80"], multiprocessors()["sm_90"]


def test_every_target_is_described_with_sources() -> None:
    assert tuple(multiprocessors()) == TARGETS
    for target, unit in multiprocessors().items():
        assert unit.target == target
        for fact in (unit.limits, *unit.rates.values(), *unit.matrix):
            assert fact.source.title.strip()
            assert fact.kind in ("datasheet", "derived", "assumed", "measured")


@pytest.mark.parametrize("unit", multiprocessors().values(), ids=lambda u: u.target)
def test_rates_give_the_peaks_of_the_data_sheet(unit: Multiprocessor) -> None:
    device = catalogue()[unit.device]
    assert device.unit_count
    checked = 0
    for rate in device.rates:
        if rate.sparsity != "dense" or rate.clock_mhz is None:
            continue
        per_cycle = rate.value_per_s / (device.unit_count * rate.clock_mhz * 1e6)
        if rate.unit == "matrix" and rate.a in {p for m in unit.matrix for p in m.precisions}:
            # The L40S states its rates at a lower clock than its highest; the B200's tfloat32 is rounded down.
            assert unit.matrix_flop_per_cycle(rate.a) == pytest.approx(per_cycle, rel=0.03), rate.label
            checked += 1
        if rate.unit == "special":
            assert unit.rates["special"].lanes_per_cycle == pytest.approx(per_cycle, rel=0.01)
        if rate.unit == "vector" and rate.a == "float32" and unit.warp_size == 32:
            assert 2 * unit.rates["float32"].lanes_per_cycle == pytest.approx(per_cycle, rel=0.03)
    assert checked >= 3


@pytest.mark.parametrize(
    ("warps", "registers", "blocks", "fraction"),
    [
        # CUDA C++ Best Practices Guide, "Calculating Occupancy", compute capability 7.0, whose limits 8.0 shares.
        (4, 37, 12, 0.75),
        (10, 37, 4, 0.625),
        (4, 32, 16, 1.0),
        (8, 255, 1, 0.125),
    ],
)
def test_occupancy_by_registers_is_that_of_nvidias_guide(
    warps: int, registers: int, blocks: int, fraction: float
) -> None:
    found = occupancy(SM80, registers=registers, shared_bytes=0, warps=warps)
    assert (found.blocks, found.fraction) == (blocks, fraction)
    assert "registers" in found.limited_by


@pytest.mark.parametrize(
    ("registers", "waves"), [(64, 8), (72, 7), (80, 6), (96, 5), (128, 4), (168, 3), (256, 2), (512, 1)]
)
def test_occupancy_by_vector_registers_is_that_of_amds_notes(registers: int, waves: int) -> None:
    # "Register pressure in AMD CDNA2 GPUs" (AMD lab notes): wavefronts of a SIMD by registers of a lane, of four SIMDs.
    found = occupancy(multiprocessors()["gfx942"], registers=registers, shared_bytes=0, warps=1)
    assert found.warps == 4 * waves
    fewer = occupancy(multiprocessors()["gfx942"], registers=registers + 1, shared_bytes=0, warps=1)
    assert fewer.warps < found.warps or fewer.blocks == 0


def test_occupancy_by_the_other_limits() -> None:
    # The system takes 1 KiB for each block: three of 75 KiB fill the 228 KiB, three of 76 KiB do not fit.
    shared = occupancy(SM90, registers=32, shared_bytes=75 * 1024, warps=4)
    assert (shared.blocks, shared.limited_by) == (3, ("shared memory",))
    assert occupancy(SM90, registers=32, shared_bytes=76 * 1024, warps=4).blocks == 2
    small = occupancy(SM90, registers=16, shared_bytes=0, warps=1)
    assert (small.blocks, small.fraction, small.limited_by) == (32, 0.5, ("blocks",))
    full = occupancy(SM90, registers=16, shared_bytes=0, warps=32)
    assert (full.blocks, full.limited_by) == (2, ("warps",))
    ada = occupancy(multiprocessors()["sm_89"], registers=32, shared_bytes=0, warps=4)
    assert (ada.blocks, ada.fraction, ada.limited_by) == (12, 1.0, ("warps",))
    lds = multiprocessors()
    assert occupancy(lds["gfx942"], registers=64, shared_bytes=81920, warps=8).limited_by == ("shared memory",)
    assert occupancy(lds["gfx942"], registers=64, shared_bytes=81920, warps=8).blocks == 0
    assert occupancy(lds["gfx950"], registers=64, shared_bytes=81920, warps=8).blocks == 2
    with pytest.raises(ValueError, match="0 warps"):
        occupancy(SM90, registers=1, shared_bytes=0, warps=0)


@given(
    st.sampled_from(list(multiprocessors().values())), st.integers(0, 255), st.integers(0, 240_000), st.integers(1, 32)
)
def test_occupancy_never_exceeds_the_hardware(unit: Multiprocessor, registers: int, shared: int, warps: int) -> None:
    found = occupancy(unit, registers=registers, shared_bytes=shared, warps=warps)
    assert found.limited_by
    assert found.warps <= unit.limits.warps
    assert found.blocks * warps * registers * unit.warp_size <= unit.limits.registers
    assert found.blocks * shared <= unit.limits.shared_bytes
    more = occupancy(unit, registers=registers + 1, shared_bytes=shared + 1, warps=warps)
    assert more.blocks <= found.blocks


def test_issue_bound_of_flash_attention_on_hopper_is_the_papers() -> None:
    # FlashAttention-3 (Shah et al. 2024), section 3.1: at d = 128 there are 512 times as many operations of the matrix
    # unit as exponentials, which run 256 times slower, so that exponentials take half the matrix unit's cycles.
    m, n, d = 128, 128, 128
    found = issue_bound(SM90, {"special": m * n}, {"bfloat16": 4.0 * m * n * d})
    assert found is not None
    assert found.cycles["special"] / found.cycles["matrix"] == pytest.approx(0.5)
    assert (found.bound_by, found.overlapped_share) == ("matrix", 1.0)
    assert found.serial_share == pytest.approx(2 / 3)


def test_issue_bound_of_flash_attention_on_blackwell_is_the_papers() -> None:
    # FlashAttention-4 (arXiv 2603.05451), forward at M = N = D = 128: 1024 cycles of the tensor cores, 1024 of the
    # exponential unit, 768 of shared memory.
    words = (2 * 128 * 128 + 128 * 128) * 2 / 4
    found = issue_bound(
        multiprocessors()["sm_100"], {"special": 128 * 128, "operand_word": words}, {"bfloat16": 4.0 * 128**3}
    )
    assert found is not None
    assert (found.cycles["matrix"], found.cycles["special"], found.cycles["load_store"]) == (1024, 1024, 768)


def test_issue_slots_bound_but_do_not_add_up() -> None:
    found = issue_bound(SM90, {"instruction": 12800, "float32": 6400}, {"bfloat16": 4096.0 * 10})
    assert found is not None
    assert (found.overlapped_cycles, found.bound_by) == (100, "issue")
    assert found.serial_cycles == 100, "the sum of the pipes, 60, is less than the slots take"
    assert (found.overlapped_share, found.serial_share) == (0.1, 0.1)


def test_what_has_no_rate_is_named_and_not_made_up() -> None:
    found = issue_bound(SM90, {"float32": 128.0, "tensor_memory": 4096.0}, {})
    assert found is not None
    assert (found.overlapped_cycles, found.overlapped_share) == (1.0, None)
    assert found.not_counted == {"tensor_memory": 4096.0}
    assert issue_bound(SM90, {"tensor_memory": 1.0}, {}) is None
    with pytest.raises(ValueError, match="no rate of the matrix unit on int4"):
        issue_bound(SM90, {}, {"int4": 1.0})


@given(
    st.dictionaries(st.sampled_from(sorted(SM90.rates)), st.floats(1.0, 1e6), min_size=1),
    st.floats(1.0, 1e9),
    st.sampled_from(sorted(SM90.rates)),
    st.floats(1.0, 1e6),
)
def test_more_work_never_raises_a_bound(results: dict[str, float], flop: float, kind: str, extra: float) -> None:
    before = issue_bound(SM90, results, {"bfloat16": flop})
    after = issue_bound(SM90, {**results, kind: results.get(kind, 0.0) + extra}, {"bfloat16": flop})
    assert before is not None
    assert after is not None
    assert before.overlapped_cycles <= before.serial_cycles
    assert after.overlapped_share is not None
    assert before.overlapped_share is not None
    assert after.overlapped_share <= before.overlapped_share <= 1.0
    assert (after.serial_share or 0.0) <= (before.serial_share or 0.0)


def test_a_faster_pipe_lowers_only_its_own_cycles() -> None:
    rates = {**SM90.rates, "special": dataclasses.replace(SM90.rates["special"], lanes_per_cycle=32.0)}
    faster = dataclasses.replace(SM90, rates=rates)
    work = {"special": 1600.0, "float32": 1280.0}
    slow, fast = issue_bound(SM90, work, {}), issue_bound(faster, work, {})
    assert slow is not None
    assert fast is not None
    assert (slow.cycles["special"], fast.cycles["special"]) == (100.0, 50.0)
    assert slow.cycles["fma"] == fast.cycles["fma"] == 10.0
