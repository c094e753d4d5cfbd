"""Stored comparisons, and two stored runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from synthetic import make_device, make_manifest, make_measurement

from ridgeline.results.columns import read_parquet, to_parquet
from ridgeline.results.comparison import Comparison, ComparisonError, derived, verdict_of
from ridgeline.results.record import record_from_dict
from ridgeline.results.run_comparison import compare_runs
from ridgeline.results.store import Store

SIDE = {"implementation": "torch", "error_relative": 0.0, "error_tolerance": 1e-3, "rows_checked": 4}


def comparison(**changes: Any) -> Comparison:
    """60 quads in which B takes 1.1 times the time of A."""
    placed = make_measurement()
    values: dict[str, Any] = {
        "record_id": "c1", "run_id": "r", "started_at": "2026-11-24T00:00:00+00:00", "operator": "gemm",
        "problem": {"m": 1}, "problem_label": "1", "placement": placed.placement, "protocol": placed.protocol,
        "side_a": SIDE, "side_b": SIDE, "status": "ok", "a_s": [(1.0, 1.001)] * 60, "b_s": [(1.1, 1.101)] * 60,
        "a_first": [True] * 60, "arrangement": [0] * 60, "looks": (24, 60), "margin": 0.02, "confidence": 0.99,
        "budget_s": 5.0,
    }  # fmt: skip
    return Comparison.model_validate({**values, **changes})


def test_the_verdict_is_derived_when_it_is_read() -> None:
    row = derived(comparison())
    assert row["verdict"] == "slower"
    assert row["ratio"] == pytest.approx(1.1, rel=1e-3)
    assert row["n_quads"] == 60
    assert verdict_of(comparison(), margin=0.5) == "same"
    out = [{"block": 0, "cause": "CPU time stolen by other guests"}]
    assert derived(comparison(left_out=out))["n_quads"] == 59


def test_a_comparison_that_failed_has_no_ratio() -> None:
    failed = comparison(status="incorrect", reason="B (x): wrong", a_s=(), b_s=(), a_first=(), arrangement=(), looks=())
    assert derived(failed)["verdict"] is None
    assert derived(failed)["ratio"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "crashed", "reason": ""}, "needs a reason"),
        ({"status": "crashed", "reason": "r"}, "must not carry samples"),
        ({"a_s": [(1.0,)] * 60}, "two legs a side"),
        ({"b_s": [(1.0, 1.0)] * 59}, "one per quad"),
        ({"a_s": [(0.0, 1.0)] * 60}, "positive times"),
        ({"looks": (60, 24)}, "growing"),
        ({"side_a": {"implementation": "torch"}}, "side_a: status ok needs an error"),
        ({"side_b": {**SIDE, "error_relative": 1.0}}, "side_b: an error above the tolerance"),
        ({"left_out": [{"block": 60, "cause": "c"}]}, "one of those measured"),
        ({"left_out": [{"block": n, "cause": "c"} for n in range(60)]}, "every quad is left out"),
        ({"margin": 0.0}, "greater than 0"),
    ],
)
def test_contradictions_cannot_be_built(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        comparison(**changes)


def test_comparisons_and_measurements_share_a_file(tmp_path: Path) -> None:
    records = [comparison(), make_measurement(run_id="r")]
    (tmp_path / "records.parquet").write_bytes(to_parquet(list(records), "here"))
    assert read_parquet(tmp_path / "records.parquet") == records
    assert record_from_dict(records[0].model_dump(mode="json"), "here") == records[0]


def store_of(tmp_path: Path, *runs: tuple[float, dict[str, Any], dict[str, Any]]) -> Store:
    """A store with a run for each (seconds, changes of the measurement, changes of the manifest)."""
    store = Store(tmp_path / "store")
    for seconds, changes, manifest in runs:
        with store.create(make_manifest(**manifest), make_device()) as writer:
            blocks = tuple((seconds * (1.0 + 0.001 * (n % 5)),) for n in range(40))
            writer.append(make_measurement(**{"run_id": writer.run_id, "samples_s": blocks, **changes}))
            writer.finish()
    return store


def test_two_runs_are_compared_case_by_case(tmp_path: Path) -> None:
    store = store_of(tmp_path, (1.0, {}, {}), (1.2, {}, {}))
    newest, oldest = (run.run_id for run in store.runs())
    there = compare_runs(store, oldest, newest, 0.02)
    assert [case.verdict for case in there.cases] == ["slower"]
    assert there.cases[0].ratio == pytest.approx(1.2, rel=1e-6)
    assert [c.verdict for c in compare_runs(store, newest, oldest, 0.02).cases] == ["faster"]
    assert [c.verdict for c in compare_runs(store, oldest, newest, 0.5).cases] == ["same"]


@pytest.mark.parametrize(
    ("changes", "manifest", "field"),
    [
        ({"protocol": {"timer": "t", "cache": "cold", "threads": 1, "version": 9}}, {}, "protocol."),
        ({}, {"environment": {"torch": "9"}}, "environment.torch: 2.13.0 in A, 9 in B"),
        ({"placement": {"device": "d", "torch_device": "cpu", "unit": "other"}}, {}, "placement.device"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_field(
    tmp_path: Path, changes: dict[str, Any], manifest: dict[str, Any], field: str
) -> None:
    store = store_of(tmp_path, (1.0, {}, {}), (1.0, changes, manifest))
    newest, oldest = (run.run_id for run in store.runs())
    with pytest.raises(ComparisonError, match=field):
        compare_runs(store, oldest, newest, 0.02)
    if "protocol" not in changes:
        marked = compare_runs(store, oldest, newest, 0.02, across_environments=True)
        assert marked.differences


def test_a_run_is_not_compared_with_itself(tmp_path: Path) -> None:
    store = store_of(tmp_path, (1.0, {}, {}))
    with pytest.raises(ComparisonError, match="is both A and B"):
        compare_runs(store, "latest", "latest", 0.02)
