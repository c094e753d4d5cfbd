"""Model steps: a record that contradicts itself cannot be built, and a stored run comes back as points to fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from synthetic import make_device, make_manifest, make_measurement

from ridgeline.analytical.idealized.model import fit_runtime
from ridgeline.analytical.idealized.points import IdealizedError
from ridgeline.results.model_step import ModelStep, points_of
from ridgeline.results.pack import add, pack
from ridgeline.results.store import Store


def model_step(p: int = 8, o: int = 2, **changes: Any) -> ModelStep:
    """Three trials of a model whose prefill takes 20 ms + 0.1 ms p and whose step takes 10 ms; the second is slower."""
    placed = make_measurement()
    steps = (0.02 + 1e-4 * p, *[0.01] * (o - 1))
    values: dict[str, Any] = {
        "record_id": f"m{p}-{o}", "run_id": "r", "started_at": "2026-11-24T00:00:00+00:00", "model": "tiny",
        "precision": "int8", "prompt_tokens": p, "output_tokens": o, "placement": placed.placement,
        "protocol": placed.protocol, "status": "ok", "samples_s": (steps, tuple(2 * s for s in steps), steps),
        "left_out": [{"block": 1, "cause": "other processes"}], "energy_reason": "no meter",
    }  # fmt: skip
    return ModelStep.model_validate({**values, **changes})


def store_of(path: Path, records: list[ModelStep]) -> tuple[Store, str]:
    store = Store(path)
    manifest = make_manifest(planned=len(records))
    with store.create(manifest, make_device()) as writer:
        for record in records:
            writer.append(record.model_copy(update={"run_id": manifest.run_id}))
        writer.finish()
    return store, manifest.run_id


REQUESTS = ((1, 1), (16, 1), (64, 1), (256, 1), (1, 16), (256, 16))


def test_a_stored_run_is_fitted(tmp_path: Path) -> None:
    store, run_id = store_of(tmp_path, [model_step(p, o) for p, o in REQUESTS])
    records = [r for r in store.records(run_id)[0] if isinstance(r, ModelStep)]
    assert [(r.prompt_tokens, r.output_tokens) for r in records] == list(REQUESTS)
    assert records[0].samples_s == model_step(1, 1).samples_s
    fitted = fit_runtime(points_of(records, "seconds", run_id))
    assert fitted.predict(100, 8).value[0] == pytest.approx(0.02 + 1e-2 + 7e-2, rel=0.01)
    added = Store(tmp_path / "other")
    add(added, pack(store, run_id, tmp_path / "packed"))
    again = [r for r in added.records(run_id)[0] if isinstance(r, ModelStep)]
    assert points_of(again, "seconds", "packed") == points_of(records, "seconds", run_id)


def test_trials_that_do_not_count_are_not_fitted() -> None:
    (point,) = points_of([model_step(8, 2)], "seconds", "t")
    assert point.trials == pytest.approx((0.0308, 0.0308))
    failed = model_step(status="crashed", reason="signal 9", samples_s=(), left_out=(), energy_reason="")
    with pytest.raises(IdealizedError, match="no model steps with status ok"):
        points_of([failed], "seconds", "t")


def test_energy_is_fitted_where_there_is_some() -> None:
    records = [model_step(p, o, energy_j=5 + 0.1 * p + 2 * o, energy_reason="") for p, o in REQUESTS]
    fitted = fit_runtime(points_of(records, "joules", "t"), response="joules")
    assert fitted.predict(100, 8).value[0] == pytest.approx(31.0, rel=0.02)
    with pytest.raises(IdealizedError, match="no energy: no meter"):
        points_of([model_step()], "joules", "t")
    with pytest.raises(IdealizedError, match="a run has no prices"):
        points_of([model_step()], "usd", "t")


def test_series_are_not_mixed() -> None:
    with pytest.raises(IdealizedError, match=r"2 series, and a fit is of one: tiny float32, .*; tiny int8, "):
        points_of([model_step(), model_step(precision="float32")], "seconds", "t")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"samples_s": ()}, "status ok needs samples"),
        ({"samples_s": ((0.1,),), "left_out": ()}, "every trial needs 2 steps"),
        ({"samples_s": ((0.1, 0.0),), "left_out": ()}, "positive times"),
        ({"samples_s": ((0.1, 0.2),), "left_out": [{"block": 0, "cause": "x"}]}, "that is `unstable`"),
        ({"left_out": [{"block": 5, "cause": "x"}]}, "one of samples_s"),
        ({"status": "timeout"}, "needs a reason"),
        ({"status": "timeout", "reason": "slow"}, "must not carry samples"),
        ({"error_relative": 1.0}, "needs its tolerance"),
        ({"error_relative": 1.0, "error_tolerance": 0.1}, "is `incorrect`, not timed"),
        ({"energy_reason": ""}, "needs its reason"),
        ({"prompt_tokens": 0}, "greater than or equal to 1"),
    ],
)
def test_a_record_that_contradicts_itself_cannot_be_built(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        model_step(**changes)
