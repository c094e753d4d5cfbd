"""The model step: requests to a whole model, timed step by step; idealized runtimes are fitted to these records."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from ridgeline.analytical.idealized.points import IdealizedError, Point
from ridgeline.results.fact import StoredRecord
from ridgeline.results.measurement import Conditions, LeftOutBlock, Placement, Protocol, Status


class ModelStep(StoredRecord):
    """One kind of request (p, o, b) to one model. ``unstable``: every trial was shaped by something else."""

    kind: Literal["model_step"] = "model_step"
    model: str
    """Name of the architecture; the weights may be random."""
    precision: str
    """Stored precision of the weights that are multiplied."""
    prompt_tokens: int = Field(ge=1)
    """p, of each sequence."""
    output_tokens: int = Field(ge=1)
    """o, of each sequence, with the one that the prefill yields."""
    batch: int = Field(default=1, ge=1)
    placement: Placement
    protocol: Protocol
    status: Status
    reason: str = ""
    """Why the status is not ``ok``; one line."""
    samples_s: tuple[tuple[float, ...], ...] = ()
    """Seconds of each step, a sequence per trial: the prefill with its first token, then every further token. Nothing
    is dropped."""
    conditions: tuple[Conditions, ...] = ()
    """One per trial; empty where none were taken."""
    left_out: tuple[LeftOutBlock, ...] = ()
    """Trials that do not count, each with its cause."""
    error_relative: float | None = None
    """||logits - recomputed|| / ||recomputed|| of this model, over a short request; ``None`` where none was computed."""
    error_tolerance: float | None = None
    energy_j: float | None = Field(default=None, gt=0.0)
    """Joules of a request, the median of the trials."""
    energy_reason: str = ""
    """Why there is no energy figure."""

    @model_validator(mode="after")
    def _consistent(self) -> ModelStep:
        if self.status != "ok" and not self.reason:
            raise ValueError(f"status {self.status} needs a reason")
        if self.status not in ("ok", "unstable"):
            if self.samples_s:
                raise ValueError(f"status {self.status} must not carry samples")
            return self
        if not self.samples_s:
            raise ValueError(f"status {self.status} needs samples")
        if any(len(trial) != self.output_tokens for trial in self.samples_s):
            raise ValueError(f"every trial needs {self.output_tokens} steps, one for each output token")
        if not all(math.isfinite(s) and s > 0.0 for trial in self.samples_s for s in trial):
            raise ValueError("samples must be positive times")
        if self.conditions and len(self.conditions) != len(self.samples_s):
            raise ValueError("conditions are one per trial")
        out = {left.block for left in self.left_out}
        if len(out) != len(self.left_out) or any(trial >= len(self.samples_s) for trial in out):
            raise ValueError("a trial that is left out must be one of samples_s, once")
        if self.status == "ok" and len(out) == len(self.samples_s):
            raise ValueError("every trial is left out: that is `unstable`")
        if self.error_relative is not None:
            if self.error_tolerance is None:
                raise ValueError("an error needs its tolerance")
            if self.error_relative > self.error_tolerance:
                raise ValueError("an error above the tolerance is `incorrect`, not timed")
        if self.energy_j is None and not self.energy_reason:
            raise ValueError("a missing energy figure needs its reason")
        return self

    @property
    def used_samples_s(self) -> tuple[tuple[float, ...], ...]:
        """Steps of the trials that count."""
        out = {left.block for left in self.left_out}
        return tuple(trial for index, trial in enumerate(self.samples_s) if index not in out)

    @property
    def series(self) -> str:
        """What one fit is of: the model, its precision, where and how it ran."""
        p = self.protocol
        where = f"{self.placement.device} on {self.placement.unit}, {self.placement.ranks} ranks"
        return f"{self.model} {self.precision}, {where}, {p.threads} threads, {p.cache}, {p.timer} {p.version}"


def points_of(records: Iterable[ModelStep], response: str, origin: str) -> tuple[Point, ...]:
    """The points of one series, for :func:`ridgeline.analytical.idealized.fit_runtime`; trials of equal requests join.

    Args:
        records: of one series; those that are not ``ok`` are passed over.
        response: seconds or joules; a model step has no price.
        origin: named in messages.

    Raises:
        IdealizedError: where the records are of several series, have no such figure, or none is ``ok``.
    """
    used = [record for record in records if record.status == "ok"]
    series = sorted({record.series for record in used})
    if len(series) > 1:
        raise IdealizedError(f"{origin}: {len(series)} series, and a fit is of one: {'; '.join(series)}")
    if response == "usd":
        raise IdealizedError(f"{origin}: a run has no prices: fit seconds, and give a price per hour")
    steps: dict[tuple[int, int, int], list[tuple[float, ...]]] = {}
    joules: dict[tuple[int, int, int], list[float]] = {}
    for record in used:
        key = (record.prompt_tokens, record.output_tokens, record.batch)
        steps.setdefault(key, []).extend(record.used_samples_s)
        if record.energy_j is not None:
            joules.setdefault(key, []).append(record.energy_j)
    if response == "joules":
        if not joules:
            reasons = sorted({record.energy_reason for record in used}) or ["no model steps"]
            raise IdealizedError(f"{origin}: no energy: {'; '.join(reasons)}")
        return tuple(Point(*key, tuple(values)) for key, values in sorted(joules.items()))
    if not steps:
        raise IdealizedError(
            f"{origin}: no model steps with status ok: `ridgeline model idealize --live MODEL` makes some"
        )
    return tuple(
        Point(*key, tuple(math.fsum(trial) for trial in trials), tuple(trials)) for key, trials in sorted(steps.items())
    )
