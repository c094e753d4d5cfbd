"""Every case of a suite: checked first, timed by pytest-benchmark, and by Ridgeline beside it in ``extra_info``."""

from __future__ import annotations

import pytest
from conftest import Bench
from pytest_benchmark.fixture import BenchmarkFixture

from ridgeline.analytical.problem import Structure
from ridgeline.bench.checks import IncorrectError
from ridgeline.bench.launches import make_launches
from ridgeline.bench.plan import Case
from ridgeline.bench.timing import measure
from ridgeline.kernels.registry import Unsupported, get_operator
from ridgeline.workloads.suite import Settings


def test_case(benchmark: BenchmarkFixture, case: Case, bench: Bench) -> None:
    """An incorrect kernel fails with the reason, one that cannot run here is skipped with it."""
    reason = case.implementation.unsupported_reason(case.problem, case.placement.torch_device)
    if reason is not None:
        pytest.skip(reason)
    bench.session.use(case.protocol.threads)
    try:
        launches, checker, _ = make_launches(
            get_operator(case.problem.operator),
            case.problem,
            case.implementation,
            bench.session,
            threads=case.protocol.threads,
            cold=case.protocol.cache == "cold",
            cache_bytes=bench.unit.last_level_cache_bytes,
            seed=int(case.case_id[:8], 16),
        )
        launches.check_all_ways("before timing")
    except Unsupported as error:
        pytest.skip(str(error))
    except IncorrectError as error:
        pytest.fail(f"incorrect: {error}")

    def launch() -> None:
        launches.launch(1)
        bench.session.synchronize()

    benchmark(launch)
    settings = Settings(budget_s=bench.budget_s)
    timing = measure(launches, bench.session.timer, settings, bench.session.watch)
    try:
        launches.check_all_ways("after timing")
    except IncorrectError as error:
        pytest.fail(f"incorrect: {error}")
    benchmark.extra_info |= {
        "case_id": case.case_id,
        "status": "unstable" if timing.unstable_reason else "ok",
        "reason": timing.unstable_reason,
        "median_s": timing.summary.median,
        "interval_low_s": timing.summary.low,
        "interval_high_s": timing.summary.high,
        "blocks": timing.summary.n_blocks,
        "blocks_left_out": len(timing.left_out),
        "error_relative": checker.error_relative,
        **_against_the_roof(case, bench, launches.structure, timing.summary.median),
    }


def _against_the_roof(case: Case, bench: Bench, structure: Structure, median_s: float) -> dict[str, object]:
    """Share of the newest stored roof, or why there is none."""
    from ridgeline.analytical.roofline import bound

    none = {"roof_fraction": None, "bound": None}
    if bench.roofs is None:
        return {**none, "roof_reason": "no roofs of this unit in the store: ridgeline roofs"}
    threads = case.protocol.threads
    level = bench.roofs.level_for(case.problem.footprint_bytes(), case.protocol.cache, threads)
    limit = bound(case.work(structure), bench.roofs.select(("measured",), threads), level.name)
    if limit is None:
        return {**none, "roof_reason": "no measured ceiling applies to this work"}
    return {"roof_fraction": limit.seconds / median_s, "bound": limit.bound_by}
