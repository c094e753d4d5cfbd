"""Roof cases, the ceilings they state, and the probes beside a case."""

from __future__ import annotations

import dataclasses

import pytest
from synthetic import make_measurement

from ridgeline.analytical.ceilings import Bandwidth, Rate
from ridgeline.analytical.operators import STREAM_ARRAYS, Fma, Stream, make_problem
from ridgeline.bench.devices.cpu import Cpu, detect
from ridgeline.bench.plan import Case
from ridgeline.bench.roofs import (
    ceilings_from,
    limit_of,
    probes_for,
    roof_cases,
    stream_problems,
)
from ridgeline.kernels import registry
from ridgeline.results.measurement import Measurement


@pytest.fixture(scope="module")
def cpu() -> Cpu:
    registry.load()
    return detect()


def roof(case: Case, blocks_s: list[float], **changes: object) -> Measurement:
    return make_measurement(
        role="roof",
        operator=case.problem.operator,
        implementation=case.implementation.name,
        problem=case.problem.to_dict(),
        problem_label=case.problem.label,
        protocol=case.protocol,
        samples_s=[[s] for s in blocks_s],
        error_relative=0.0,
        error_tolerance=1e-3,
        **changes,
    )


def test_every_level_and_precision_is_measured_with_one_thread_and_all(cpu: Cpu) -> None:
    cases = roof_cases(cpu)
    assert len({c.case_id for c in cases}) == len(cases)
    for threads in {1, cpu.threads}:
        own = [c for c in cases if c.protocol.threads == threads]
        reached = {
            cpu.device.level_for(c.problem.footprint_bytes(), "warm", threads).name
            for c in own
            if isinstance(c.problem, Stream)
        }
        assert reached == {level.name for level in cpu.device.memory}
        assert {c.problem.precision for c in own if isinstance(c.problem, Fma)} == {
            "float64", "float32", "bfloat16", "int8",
        }  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_a_working_set_fits_its_level_and_not_the_one_before(cpu: Cpu, threads: int) -> None:
    problems = stream_problems(cpu.device, threads)
    assert len(problems) == len(STREAM_ARRAYS) * len(cpu.device.memory)
    levels = [cpu.device.level_for(p.footprint_bytes(), "warm", threads).name for p in problems]
    assert levels[:3] == [cpu.device.memory[0].name] * 3
    assert levels[-3:] == [cpu.device.main_memory.name] * 3


def test_a_giant_shared_cache_is_measured_in_the_part_that_two_threads_have(cpu: Cpu) -> None:
    private, shared = cpu.device.memory[-3], cpu.device.memory[-2]
    inner = private.capacity_for(2)
    giant = dataclasses.replace(shared, capacity_bytes=1000 * inner, per_core=False)
    device = dataclasses.replace(cpu.device, memory=(*cpu.device.memory[:-2], giant, cpu.device.memory[-1]))
    sizes = [p.footprint_bytes() for p in stream_problems(device, 2)]
    assert all(2 * inner <= size <= 8 * inner for size in sizes[-6:-3])
    assert min(sizes[-3:]) > 3.9 * giant.capacity_bytes, "and memory in four times all of it"


def test_a_ceiling_is_the_work_over_the_median_with_the_interval_turned_round(cpu: Cpu) -> None:
    case = next(c for c in roof_cases(cpu) if isinstance(c.problem, Fma))
    times = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95]
    (ceiling,) = ceilings_from([roof(case, times)], cpu.device)
    flop = case.problem.work().flop
    assert isinstance(ceiling, Rate)
    assert (ceiling.kind, ceiling.threads) == ("measured", case.protocol.threads)
    assert ceiling.value_per_s == pytest.approx(flop / 1.0)
    assert ceiling.low_per_s == pytest.approx(flop / 1.1)
    assert ceiling.high_per_s == pytest.approx(flop / 0.9)
    assert ceiling.source.title == "measured by Ridgeline"


def test_failed_roofs_and_ordinary_cases_state_no_ceiling(cpu: Cpu) -> None:
    case = roof_cases(cpu)[0]
    good = roof(case, [1.0] * 6)
    assert len(ceilings_from([good], cpu.device)) == 1
    assert ceilings_from([good.model_copy(update={"role": "case"})], cpu.device) == []
    failed = make_measurement(role="roof", status="crashed", reason="killed", samples_s=())
    assert ceilings_from([failed], cpu.device) == []


def test_probes_are_the_fastest_roofs_of_the_limits_of_the_case(cpu: Cpu) -> None:
    cases = roof_cases(cpu)
    level = cpu.device.main_memory.name
    # float64 units could do float32 work too; they are slower, as on every real core.
    records = [
        roof(c, [4.0 if c.problem.to_dict().get("precision") == "float64" else 1.0] * 6)
        for c in cases
        if c.protocol.threads == cpu.threads
    ]
    main = [r for r in records if limit_of(r, cpu.device) == level]
    fastest = main[1].model_copy(update={"samples_s": ((1e-3,),) * 6})
    records = [fastest if r is main[1] else r for r in records]
    device = cpu.device.with_ceilings(ceilings_from(records, cpu.device))
    gemm = make_problem("gemm", {"m": 64, "n": 512, "k": 512, "precision": "float32"})
    case = dataclasses.replace(
        cases[0],
        problem=gemm,
        implementation=registry.get_implementation("gemm", "torch"),
        protocol=cases[0].protocol.model_copy(update={"threads": cpu.threads, "cache": "cold"}),
    )
    probes = {p["limit"]: p for p in probes_for(case, device, records)}
    assert set(probes) == {level, "vector float32"}
    assert probes[level]["implementation"] == fastest.implementation
    assert probes[level]["problem"] == fastest.problem


def test_beside_a_product_in_tf32_its_own_ceiling_is_probed(cpu: Cpu) -> None:
    tf32 = Fma(precision="tfloat32", unit="matrix", groups=1, chains=1, lanes=16, depth=16, iterations=8)
    exact = next(c for c in roof_cases(cpu) if c.problem.to_dict().get("precision") == "float32")
    records = [roof(exact, [1.0] * 6), roof(dataclasses.replace(exact, problem=tf32), [1e-6] * 6)]
    device = cpu.device.with_ceilings(ceilings_from(records, cpu.device))
    gemm = make_problem("gemm", {"m": 512, "n": 512, "k": 512, "precision": "float32"})
    for implementation, limit in (("triton", "vector float32"), ("triton_tf32", "matrix tfloat32")):
        product = dataclasses.replace(
            exact, problem=gemm, implementation=registry.get_implementation("gemm", implementation), role="case"
        )
        assert [probe["limit"] for probe in probes_for(product, device, records)] == [limit]


def test_without_roofs_there_is_nothing_to_probe(cpu: Cpu) -> None:
    assert probes_for(roof_cases(cpu)[0], cpu.device, []) == []


def test_bandwidth_ceilings_name_their_level_and_access(cpu: Cpu) -> None:
    case = next(c for c in roof_cases(cpu) if isinstance(c.problem, Stream))
    (ceiling,) = ceilings_from([roof(case, [1.0] * 6)], cpu.device)
    assert isinstance(ceiling, Bandwidth)
    assert (ceiling.level, ceiling.access) == (cpu.device.memory[0].name, "read")
