"""Beside the showcase: comparisons, other tools' numbers, and a contributed run with conditions and several processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import showcase

from ridgeline.results.comparison import Comparison
from ridgeline.results.counters import Counters
from ridgeline.results.imported import Imported
from ridgeline.results.measurement import Measurement
from ridgeline.results.store import Store

COMPARED = "20261123T000000Z-00000001"
TIMED_ELSEWHERE = "20261123T000001Z-00000001-imported"
COUNTED = "20261123T000002Z-00000001-counters"
CONTRIBUTED = "20261120T120000Z-00000001"

# record, operator, implementations of A and B, true ratio, noise, further fields
COMPARISONS: tuple[tuple[str, str, str, str, float, float, dict[str, Any]], ...] = (
    ("c-faster", "gemm", "torch_matmul", "native_avx512", 0.81, 0.02, {}),
    ("c-slower", "gemm", "native_avx512", "native_avx512", 1.062, 0.015, {"revisions": ("", "0123456789abcdef")}),
    ("c-same", "gemm", "native_avx512", "native_avx512", 1.001, 0.012, {"revisions": ("aaaa000", "bbbb111")}),
    ("c-unclear", "attention", "torch_sdpa", "native_flash", 1.015, 0.08, {}),
    ("c-left-out", "attention", "torch_sdpa", "native_flash", 0.93, 0.01, {"left_out": (5, 17, 40)}),
    ("c-replay", "gemm", "torch_matmul", "native_avx512", 0.9, 0.01, {"timer": "replay"}),
    ("c-failed", "gemm", "torch_matmul", "broken", 1.0, 0.01, {"status": "incorrect"}),
)


def comparison(position: int, n_quads: int = 64) -> Comparison:
    """Comparison number ``position``: log-normal quads about the true ratio, with a slow drift that quads cancel."""
    record, operator, a, b, ratio, noise, more = COMPARISONS[position]
    problem = showcase.measurement(0 if operator == "gemm" else 7, showcase.RUN)
    rng = np.random.default_rng(position)
    quads: dict[str, Any] = {}
    status = more.get("status", "ok")
    revisions = more.get("revisions", ("", ""))
    checked = {"error_relative": 2e-7, "error_tolerance": 1e-5, "rows_checked": 64} if status == "ok" else {}
    if status == "ok":
        base = 1e-3 * (1.0 + 0.1 * np.linspace(0.0, 1.0, n_quads))[:, None]
        a_s = base * np.exp(noise * rng.standard_normal((n_quads, 2)))
        b_s = base * ratio * np.exp(noise * rng.standard_normal((n_quads, 2)))
        for quad in more.get("left_out", ()):
            b_s[quad] *= 1.3
        quads = {
            "a_s": a_s.tolist(),
            "b_s": b_s.tolist(),
            "a_first": [i % 2 == 0 for i in range(n_quads)],
            "arrangement": [i // 16 for i in range(n_quads)],
            "left_out": [
                {"block": quad, "cause": "power limit" if quad == 17 else "other processes"}
                for quad in more.get("left_out", ())
            ],
            "looks": (24, 31, 41, 53, 64),
            "measured_s": 2.5,
        }
    return Comparison(
        record_id=record,
        run_id=COMPARED,
        started_at="2026-11-23T00:00:00+00:00",
        operator=operator,
        problem=problem.problem,
        problem_label=problem.problem_label,
        placement=problem.placement,
        protocol={**problem.protocol.model_dump(), "timer": more.get("timer", "perf_counter")},
        side_a={"implementation": a, "revision": revisions[0], **checked},
        side_b={"implementation": b, "revision": revisions[1], **checked},
        status=status,
        reason="" if status == "ok" else "B (broken): relative error 0.5 against a tolerance of 1e-05",
        margin=0.02,
        confidence=0.99,
        budget_s=5.0,
        **quads,
    )


def loaded(process: int, timer: str = "perf_counter") -> Measurement:
    """The first case in one of several processes: two blocks left out, conditions of every block, but no clock."""
    record = showcase.measurement(0, CONTRIBUTED)
    blocks = len(record.samples_s)
    rng = np.random.default_rng(100 + process)
    slow = {3: "other processes", 8: "power limit"}
    samples = tuple(
        tuple(s * (1.0 + 0.01 * process) * (1.25 if index in slow else 1.0) for s in block)
        for index, block in enumerate(record.samples_s)
    )
    conditions = [
        {
            "load_other": 0.9 if index == 3 else float(rng.uniform(0.0, 0.1)),
            "power_w": float(60.0 + rng.standard_normal()),
            "temperature_c": 55.0 + 0.2 * index,
            "limited_s": 0.02 if index == 8 else 0.0,
        }
        for index in range(blocks)
    ]
    values = record.model_dump()
    return Measurement.model_validate(
        {
            **values,
            "record_id": f"p-{process}",
            "process": process,
            "samples_s": samples,
            "conditions": conditions,
            "left_out": [{"block": block, "cause": cause} for block, cause in slow.items()],
            "protocol": {**values["protocol"], "timer": timer},
        }
    )


def imported() -> Imported:
    """A benchmark of pytest-benchmark without its samples."""
    return Imported(
        record_id="i-0",
        run_id=TIMED_ELSEWHERE,
        started_at="2026-11-23T00:00:01+00:00",
        tool="pytest-benchmark",
        tool_version="5.1.0",
        source_file="bench.json",
        source_digest="0" * 64,
        benchmark="test_gemm.py::test_gemm[512]",
        parameters={"n": 512},
        device_text="x86_64, Some CPU @ 2.60GHz",
        statistics={
            "rounds": 20, "min_s": 1.1e-3, "max_s": 1.6e-3, "mean_s": 1.25e-3, "median_s": 1.2e-3,
            "stddev_s": 1e-4, "iqr_s": 8e-5,
        },
        samples_reason="the file has statistics only",
    )  # fmt: skip


def counted() -> Counters:
    """A profile of the showcase's first case: twice the compulsory bytes."""
    case = showcase.measurement(0, showcase.RUN)
    return Counters(
        record_id="k-0",
        run_id=COUNTED,
        started_at="2026-11-23T00:00:02+00:00",
        tool="ncu",
        source_file="profile.csv",
        source_digest="0" * 64,
        case_id=case.case_id,
        operator=case.operator,
        implementation=case.implementation,
        problem=case.problem,
        problem_label=case.problem_label,
        device="showcase-cpu",
        calls=1,
        kernels=(
            {
                "kernel": "gemm_kernel",
                "launches": ({"dram_bytes": 2.0 * 3 * 1024 * 1024 * 4, "l2_hit_percent": 61.5, "kernel_s": 1.4e-2},),
            },
        ),
    )


def add_further(store: Store) -> Store:
    """Add a run of each kind to ``store``."""
    device = showcase.make_device()
    bare = showcase.without_ceilings(device)
    runs: tuple[tuple[str, list[Any], Any, dict[str, Any]], ...] = (
        (COMPARED, [comparison(i) for i in range(len(COMPARISONS))], device, {"suite": "compare"}),
        (TIMED_ELSEWHERE, [imported()], bare, {"suite": "import pytest-benchmark", "imported": "pytest-benchmark"}),
        (COUNTED, [counted()], bare, {"suite": "import ncu", "imported": "ncu"}),
        (CONTRIBUTED, [loaded(0), loaded(1), loaded(2)], device, {"suite": "pack", "contributed": "f" * 64}),
    )
    for run_id, records, of, more in runs:
        with store.create(showcase.manifest(run_id, planned=len(records), **more), of) as writer:
            for record in records:
                writer.append(record)
            writer.finish()
    return store
