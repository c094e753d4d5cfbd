"""How far predictions were from what was measured: the figures of a scorecard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SIZE_BUCKETS: tuple[tuple[str, float, float], ...] = (
    ("<= 20 us", 0.0, 20e-6),
    ("20 to 50 us", 20e-6, 50e-6),
    ("50 us to 1 ms", 50e-6, 1e-3),
    ("> 1 ms", 1e-3, np.inf),
)
"""Name, and the measured seconds it holds: above the first, up to and with the second."""


@dataclass(frozen=True, kw_only=True)
class ErrorFigures:
    """Errors of one set of predictions; relative ones are fractions of the measured time."""

    count: int
    median: float
    """Median of \\|predicted - measured\\| / measured."""
    p90: float
    wape: float
    """Sum of the absolute errors over the sum of the measured times: long calls weigh most."""
    bias: float
    """Median of predicted / measured, less one: positive where predictions are too slow."""
    coverage: float | None
    """Share of the measured times inside their interval; ``None`` where there are no intervals."""
    width: float | None
    """Median of high / low of the intervals."""


def error_figures(measured_s: Any, predicted_s: Any, low_s: Any = None, high_s: Any = None) -> ErrorFigures | None:
    """The figures of predictions against measurements, float64 columns of one length; ``None`` of no rows.

    Raises:
        ValueError: where a measured time is not positive: such rows are for the gate, not for a scorecard.
    """
    measured = np.asarray(measured_s, dtype=np.float64)
    predicted = np.asarray(predicted_s, dtype=np.float64)
    if measured.size == 0:
        return None
    if not np.all(measured > 0.0):
        raise ValueError("a measured time must be positive: put the rows through the gate first")
    relative = np.abs(predicted - measured) / measured
    coverage = width = None
    if low_s is not None and high_s is not None:
        low, high = np.asarray(low_s, dtype=np.float64), np.asarray(high_s, dtype=np.float64)
        coverage = float(np.mean((low <= measured) & (measured <= high)))
        width = float(np.median(high / low))
    return ErrorFigures(
        count=int(measured.size),
        median=float(np.median(relative)),
        p90=float(np.quantile(relative, 0.9)),
        wape=float(np.abs(predicted - measured).sum() / measured.sum()),
        bias=float(np.median(predicted / measured) - 1.0),
        coverage=coverage,
        width=width,
    )


def size_bucket(seconds: Any) -> Any:
    """Index into :data:`SIZE_BUCKETS` of every time, an int column."""
    edges = [high for _, _, high in SIZE_BUCKETS[:-1]]
    return np.digitize(np.asarray(seconds, dtype=np.float64), edges, right=True)
