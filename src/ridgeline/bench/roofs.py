"""The roofs of this machine: ``stream`` and ``fma`` cases whose fastest results are its measured ceilings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from ridgeline.analytical.ceilings import Bandwidth, Ceiling, Rate, Source
from ridgeline.analytical.device import Device
from ridgeline.analytical.operators import STREAM_ARRAYS, Fma, Stream, make_problem
from ridgeline.analytical.problem import Problem
from ridgeline.analytical.statistics import summarise
from ridgeline.analytical.work import RateKey
from ridgeline.bench.devices.unit import RoofSpec
from ridgeline.bench.plan import PROTOCOL_VERSION, Case
from ridgeline.kernels.registry import get_implementation
from ridgeline.results.measurement import Measurement, Protocol

if TYPE_CHECKING:
    from ridgeline.bench.devices.unit import Session, Unit

PRECISIONS = ("float64", "float32", "bfloat16", "int8")
LAUNCH_BYTES = 2e8
"""Bytes one launch moves at least: about 1 ms from L1, so that the call's own 2 us are nothing."""
LAUNCH_FLOP = 4e8
"""Operations of one launch per thread: 3 to 10 ms for float32."""
DRAM_FACTOR = 4.0
"""Working set of the DRAM cases in last-level caches: likwid and STREAM ask for at least four."""


def roof_cases(unit: Unit) -> list[Case]:
    """Every case that measures a ceiling of the unit."""
    return [
        Case(
            spec.problem,
            get_implementation(spec.problem.operator, spec.implementation),
            unit.placement,
            Protocol(timer=unit.timer, cache="warm", threads=spec.threads, version=PROTOCOL_VERSION),
            role="roof",
            facts=unit.facts(),
        )
        for spec in unit.roofs()
    ]


def cpu_roofs(device: Device, threads: int, last_level_cache_bytes: float) -> list[RoofSpec]:
    """The ceilings of a CPU, with one thread and with all."""
    specs = []
    for count in sorted({1, threads}):
        for problem in stream_problems(device, count):
            large = problem.footprint_bytes() > last_level_cache_bytes
            names = ["native"] + (["native_nontemporal"] if large and problem.operation != "read" else [])
            specs += [RoofSpec(problem, name, count) for name in names]
        specs += [RoofSpec(problem, "native", count) for problem in fma_problems(count)]
    return specs


def stream_problems(device: Device, threads: int) -> list[Stream]:
    """read, copy and triad for each memory level, with a working set that this level holds and the one before does not."""
    problems = []
    inner = 0.0
    for level in device.memory:
        capacity = level.capacity_for(threads)
        if level is device.main_memory:
            total = DRAM_FACTOR * inner
        elif level.per_core:
            total = capacity / 2
        else:
            # A shared cache is shared with neighbours of a virtual machine too: use a quarter of it, or less where that is
            # much more than what lies before it. Two threads of a cache of 480 MiB read 45 GB/s up to 64 MiB, and 20, as
            # from memory, from 128 MiB on.
            total = max(2 * inner, min(capacity / 4, 8 * inner))
        for operation, arrays in STREAM_ARRAYS.items():
            elements = int(total / (4 * sum(arrays))) // 1024 * 1024
            moved = 4.0 * sum(arrays) * elements
            problems.append(Stream(operation=operation, elements=elements, passes=max(1, round(LAUNCH_BYTES / moved))))
        inner = capacity
    return problems


def fma_problems(threads: int) -> list[Fma]:
    """The peak multiply-add rate of each precision, in the shape this CPU's instructions have."""
    from ridgeline.kernels.native.fma import fma_shape

    problems = []
    for precision in PRECISIONS:
        shape = fma_shape(precision)
        per_iteration = 2.0 * shape.chains * shape.lanes * shape.products
        problems.append(
            Fma(
                precision=precision,
                unit="vector",
                groups=threads,
                chains=shape.chains,
                lanes=shape.lanes,
                depth=shape.products,
                iterations=round(LAUNCH_FLOP / per_iteration),
            )
        )
    return problems


def limit_of(record: Measurement, device: Device) -> str:
    """Name of the ceiling that a roof record measures."""
    problem = make_problem(record.operator, record.problem)
    if isinstance(problem, Stream):
        return device.level_for(problem.footprint_bytes(), record.protocol.cache, record.protocol.threads).name
    return _fma_key(problem).label


def _fma_key(problem: Problem) -> RateKey:
    (key,) = problem.expected_work().operations
    return key


def ceilings_from(records: Iterable[Measurement], device: Device) -> list[Ceiling]:
    """The measured ceilings that roof records state; right but noisy ones count, with their wide interval."""
    ceilings: list[Ceiling] = []
    for record in records:
        if record.role != "roof" or record.status not in ("ok", "unstable"):
            continue
        summary = summarise(record.used_samples_s)
        problem = make_problem(record.operator, record.problem)
        work = problem.expected_work()
        amount = float(work.bytes if isinstance(problem, Stream) else work.flop)
        medians = [median(block) for block in record.used_samples_s]
        value = amount / summary.median
        low = amount / (summary.high if summary.high is not None else max(medians))
        high = amount / (summary.low if summary.low is not None else min(medians))
        facts: dict[str, Any] = {
            "value_per_s": value,
            "low_per_s": min(low, value),
            "high_per_s": max(high, value),
            "kind": "measured",
            "threads": record.protocol.threads,
            "source": Source(
                title="measured by Ridgeline",
                detail=f"run {record.run_id}: {record.operator} {record.implementation}, {record.problem_label}",
                date=record.started_at[:10],
            ),
        }
        if isinstance(problem, Stream):
            ceilings.append(Bandwidth(level=limit_of(record, device), access=problem.operation, **facts))
        else:
            key = _fma_key(problem)
            ceilings.append(Rate(unit=key.unit, a=key.a, b=key.b, accumulator=key.accumulator, **facts))
    return ceilings


def probes_for(case: Case, device: Device, roof_records: Sequence[Measurement]) -> list[dict[str, Any]]:
    """The roofs to measure again beside a case: the fastest one of every limit in its bound."""
    from ridgeline.analytical.roofline import bound

    threads = case.protocol.threads
    measured = device.select(("measured",), threads)
    level = device.level_for(case.problem.footprint_bytes(), case.protocol.cache, threads)
    limits = bound(case.work(), measured, level.name)
    if limits is None:
        return []
    probes = []
    for term in limits.terms:
        best = _fastest(term.limit, device, roof_records, threads)
        if best is not None:
            probes.append(
                {
                    "limit": term.limit,
                    "operator": best.operator,
                    "problem": best.problem,
                    "implementation": best.implementation,
                    "threads": threads,
                }
            )
    return probes


def _fastest(limit: str, device: Device, records: Sequence[Measurement], threads: int) -> Measurement | None:
    def rate(record: Measurement) -> float:
        (ceiling,) = ceilings_from([record], device)
        return ceiling.value_per_s

    matching = [
        r
        for r in records
        if r.status in ("ok", "unstable") and r.protocol.threads == threads and limit_of(r, device) == limit
    ]
    return max(matching, key=rate, default=None)


class RoofProbe:
    """A roof kept ready in the worker, to be measured in a few milliseconds just before and after a case."""

    BLOCKS = 5

    def __init__(self, probe: Mapping[str, Any], session: Session) -> None:
        import torch

        from ridgeline.kernels.registry import Context, get_operator

        problem = make_problem(probe["operator"], probe["problem"])
        operator = get_operator(problem.operator)
        generator = torch.Generator().manual_seed(0)
        implementation = get_implementation(problem.operator, probe["implementation"])
        run = implementation.prepare(problem, {}, Context(session.torch_device, probe["threads"]))
        inputs = session.place(operator.make_inputs(problem, generator))
        out = session.place({"out": operator.make_output(problem)})["out"]
        work = problem.expected_work()
        self._amount = float(work.bytes if isinstance(problem, Stream) else work.flop)
        self._timer = session.timer

        def launch(count: int) -> None:
            for _ in range(count):
                run(inputs, out)

        self._launch = launch
        launch(1)

    def rates(self) -> Iterable[float]:
        """Bytes or operations per second of a few launches; the first brings the buffers and the clock back up."""
        self._launch(1)
        for _ in range(self.BLOCKS):
            yield self._amount / self._timer.time(self._launch, 1)
