"""The comparison: two ways to compute one problem, timed in interleaved quads; its verdict is derived when it is read."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from ridgeline.analytical.comparison import RatioInterval, Verdict, log_ratios, sequential_interval, verdict
from ridgeline.results.fact import Fact, StoredRecord
from ridgeline.results.measurement import LeftOutBlock, Placement, Protocol, Status


class ComparisonError(ValueError):
    """What cannot be compared. One line: which field or argument, what is wrong, what to do."""


class ComparedSide(Fact):
    """One of the two sides."""

    implementation: str
    revision: str = ""
    """Commit its code was taken from; empty for the code as it lay there."""
    content_key: str = ""
    """Hash of the case, the kernel's source and all it reaches, and the versions; empty where it could not be loaded."""
    config: dict[str, int | float | bool | str] = {}
    """Tuned configuration; empty for the implementation's default."""
    launches_per_leg: int | None = Field(default=None, ge=1)
    """Launches timed together in one leg of a quad."""
    error_relative: float | None = None
    """||out - reference|| / ||reference||, the worst of all checks."""
    error_tolerance: float | None = None
    rows_checked: int = Field(default=0, ge=0)
    prepare_s: float | None = None
    """Seconds of the first preparation."""


class Comparison(StoredRecord):
    """Quads of one comparison: A B B A or B A A B, seconds per launch of each leg."""

    kind: Literal["comparison"] = "comparison"
    operator: str
    problem: dict[str, int | float | bool | str]
    problem_label: str
    placement: Placement
    protocol: Protocol
    side_a: ComparedSide
    side_b: ComparedSide
    processes: Literal["one", "two"] = "one"
    """Whether the sides took turns in one process, or each in its own."""
    status: Status
    reason: str = ""
    """Why the status is not ``ok``; one line that names the side."""
    a_s: tuple[tuple[float, ...], ...] = ()
    """Seconds per launch of A: the two legs of every quad. Nothing is dropped."""
    b_s: tuple[tuple[float, ...], ...] = ()
    a_first: tuple[bool, ...] = ()
    """Whether the quad was A B B A; otherwise it was B A A B."""
    arrangement: tuple[int, ...] = ()
    """Which set of buffers and prepared states each quad ran on; a new one has new addresses."""
    left_out: tuple[LeftOutBlock, ...] = ()
    """Quads that do not count, each with its cause."""
    looks: tuple[int, ...] = ()
    """Numbers of counted quads after which the interval was to be looked at, planned before the first look."""
    margin: float = Field(gt=0.0, lt=1.0)
    """Relative difference up to which both count as the same."""
    confidence: float = Field(gt=0.0, lt=1.0)
    """That the intervals of all looks together hold the true ratio."""
    budget_s: float = Field(gt=0.0)
    """Seconds allowed for the quads."""
    measured_s: float | None = None
    """Seconds taken, with the checks and the preparations between quads."""

    @model_validator(mode="after")
    def _consistent(self) -> Comparison:
        if self.status != "ok":
            if not self.reason:
                raise ValueError(f"status {self.status} needs a reason")
            if self.a_s or self.b_s:
                raise ValueError(f"status {self.status} must not carry samples")
            return self
        if not self.a_s or not all(len(q) == 2 for q in (*self.a_s, *self.b_s)):
            raise ValueError("status ok needs quads, each with two legs a side")
        if not len(self.a_s) == len(self.b_s) == len(self.a_first) == len(self.arrangement):
            raise ValueError("a_s, b_s, a_first and arrangement are one per quad")
        if not all(math.isfinite(s) and s > 0.0 for q in (*self.a_s, *self.b_s) for s in q):
            raise ValueError("samples must be positive times")
        if list(self.looks) != sorted(set(self.looks)) or not self.looks or self.looks[0] < 1:
            raise ValueError("looks must be growing numbers of quads")
        for name, side in (("a", self.side_a), ("b", self.side_b)):
            if side.error_relative is None or side.error_tolerance is None or not side.rows_checked:
                raise ValueError(f"side_{name}: status ok needs an error against the reference")
            if side.error_relative > side.error_tolerance:
                raise ValueError(f"side_{name}: an error above the tolerance is `incorrect`, not timed")
        out = {left.block for left in self.left_out}
        if len(out) != len(self.left_out) or any(quad >= len(self.a_s) for quad in out):
            raise ValueError("a quad that is left out must be one of those measured, once")
        if len(out) == len(self.a_s):
            raise ValueError("every quad is left out: that is no comparison")
        return self


def used_quads(record: Comparison) -> list[int]:
    """Indices of the quads that count."""
    out = {left.block for left in record.left_out}
    return [index for index in range(len(record.a_s)) if index not in out]


def interval_of(record: Comparison) -> RatioInterval | None:
    """The interval on the ratio of times; ``None`` where the comparison failed."""
    if record.status != "ok":
        return None
    used = used_quads(record)
    values = log_ratios([record.a_s[i] for i in used], [record.b_s[i] for i in used])
    return sequential_interval(values, record.looks, record.confidence)


def verdict_of(record: Comparison, margin: float | None = None) -> Verdict | None:
    """``faster``, ``slower``, ``same`` or ``unclear``, said of B; ``None`` where the comparison failed.

    Args:
        record: the comparison.
        margin: another one than that of the record.
    """
    interval = interval_of(record)
    return None if interval is None else verdict(interval.log_low, interval.log_high, margin or record.margin)


def derived(record: Comparison) -> dict[str, Any]:
    """Stored and derived columns of one comparison, ready for JSON."""
    interval = interval_of(record)
    return {
        **record.model_dump(mode="json"),
        "verdict": verdict_of(record),
        "ratio": interval and interval.ratio,
        "ratio_low": interval and interval.low,
        "ratio_high": interval and interval.high,
        "n_quads": interval and interval.n_quads,
        "inflation": interval and interval.inflation,
    }
