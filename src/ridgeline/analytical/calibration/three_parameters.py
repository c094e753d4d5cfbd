"""Three constants of a device and a family of kernels: ``t = o + max(c / e_c, m / e_m)``.

``c`` and ``m`` are the bound's seconds of arithmetic and of memory, ``e_c`` and ``e_m`` the shares of the two peaks that the
kernels reach, ``o`` the seconds that a call costs however small it is. Shares may exceed one: data that a cache serves is
read faster than the main memory's peak, and a fit that could not say so would hide it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

FEWEST_ROWS = 6
"""Rows that a fit needs: three constants, and as many again to see how well they hold."""
_SOFT = 0.15
"""Residuals of log time beyond this count linearly, not squared: launch-bound rows and rows of other tiles are many."""


class FitError(ValueError):
    """Rows that no constants can be fitted on. One line."""


@dataclass(frozen=True, kw_only=True)
class ThreeParameters:
    """The constants; seconds and shares."""

    overhead_s: float
    compute_share: float
    memory_share: float

    def seconds(self, compute_s: Any, memory_s: Any) -> Any:
        """Seconds of work whose bounds are ``compute_s`` and ``memory_s``, numbers or float64 columns."""
        busy = np.maximum(
            np.asarray(compute_s, dtype=np.float64) / self.compute_share,
            np.asarray(memory_s, dtype=np.float64) / self.memory_share,
        )
        return (self.overhead_s + busy)[()]


def fit_three_parameters(
    compute_s: Any, memory_s: Any, measured_s: Any, weight: Any = None, start: ThreeParameters | None = None
) -> ThreeParameters:
    """The constants with the least robust error of log time (soft L1).

    Args:
        compute_s, memory_s: the bound's two columns, seconds, not both zero in a row.
        measured_s: measured seconds, positive.
        weight: of each row; all alike without.
        start: where to begin; the medians of the data without.

    Raises:
        FitError: for fewer than :data:`FEWEST_ROWS` rows, or times that are not positive.
    """
    compute, memory, measured = (np.asarray(v, dtype=np.float64) for v in (compute_s, memory_s, measured_s))
    if measured.size < FEWEST_ROWS:
        raise FitError(f"{measured.size} rows: three constants need at least {FEWEST_ROWS}")
    if not (np.all(measured > 0.0) and np.all(np.maximum(compute, memory) > 0.0)):
        raise FitError("a row without a positive time or without work: put the rows through the gate first")
    root = np.ones(measured.size) if weight is None else np.sqrt(np.asarray(weight, dtype=np.float64))
    log_measured = np.log(measured)
    if start is None:
        start = ThreeParameters(
            overhead_s=float(np.quantile(measured, 0.02)) * 0.7, compute_share=0.7, memory_share=0.75
        )

    def residuals(x: Any) -> Any:
        o, e_c, e_m = np.exp(x)
        return root * (np.log(o + np.maximum(compute / e_c, memory / e_m)) - log_measured)

    first = np.log([start.overhead_s, start.compute_share, start.memory_share])
    lower, upper = np.log([1e-9, 0.01, 0.01]), np.log([1.0, 3.0, 10.0])
    found = least_squares(
        residuals, np.clip(first, lower + 1e-6, upper - 1e-6), bounds=(lower, upper), loss="soft_l1", f_scale=_SOFT
    )
    o, e_c, e_m = (float(v) for v in np.exp(found.x))
    return ThreeParameters(overhead_s=o, compute_share=e_c, memory_share=e_m)
