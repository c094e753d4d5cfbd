"""Three constants of a device and a family of kernels: ``t = o + max(c / e_c, m / e_m)``.

``c`` and ``m`` are the bound's seconds of arithmetic and of memory, ``e_c`` and ``e_m`` the shares of the two peaks that the
kernels reach, ``o`` the seconds that a call costs however small it is. Shares may exceed one: data that a cache serves is
read faster than the main memory's peak, and a fit that could not say so would hide it.

Attention has a fourth constant: what each item of work (a sequence's KV head) costs a multiprocessor however short its cache
is, 0.4 to 3 us. Without it decode of many short sequences is predicted up to ten times too fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

FEWEST_ROWS = 6
"""Rows that a fit needs: three constants, and as many again to see how well they hold."""
_SOFT = 0.15
"""Residuals of log time beyond this count linearly, not squared: launch-bound rows and rows of other tiles are many."""
_PRIOR = 0.15 / np.log(2.0)
"""A constant twice or half its first value counts as one row that is off by 15 %. Without it what the rows do not tell (the
arithmetic's share in decode, which memory bounds) ended anywhere: 0.014 on one machine and 1.09 on another, from the same rows.
"""


class FitError(ValueError):
    """Rows that no constants can be fitted on. One line."""


@dataclass(frozen=True, kw_only=True)
class ThreeParameters:
    """The constants; seconds and shares."""

    overhead_s: float
    compute_share: float
    memory_share: float
    item_s: float = 0.0
    """Seconds that a multiprocessor spends on an item of work beside its arithmetic and bytes."""

    def seconds(self, compute_s: Any, memory_s: Any, items: Any = 0.0) -> Any:
        """Seconds of work whose bounds are ``compute_s`` and ``memory_s``, numbers or float64 columns.

        ``items`` are those of each multiprocessor, on average.
        """
        busy = np.maximum(
            np.asarray(compute_s, dtype=np.float64) / self.compute_share,
            np.asarray(memory_s, dtype=np.float64) / self.memory_share,
        )
        return (self.overhead_s + self.item_s * np.asarray(items, dtype=np.float64) + busy)[()]


ASSUMED: Mapping[str, ThreeParameters] = {
    "gemm": ThreeParameters(overhead_s=3e-6, compute_share=0.76, memory_share=0.78),
    "moe_gemm": ThreeParameters(overhead_s=3e-6, compute_share=0.76, memory_share=0.78),
    "attention": ThreeParameters(overhead_s=12e-6, compute_share=0.52, memory_share=0.80),
    "": ThreeParameters(overhead_s=3e-6, compute_share=0.6, memory_share=0.7),
}
"""Constants by family of operations where none were fitted. Those of GEMM and attention lie inside what a study fitted on public
tables of A100, H100 and B200 (GEMM 2 to 8 us, 0.68 to 0.84, 0.72 to 0.84; attention 12 to 20 us, 0.50 to 0.55 in prefill, 0.75
to 0.85 in decode); those of ``""``, for families without a public table, are not sourced."""


def fit_three_parameters(compute_s: Any, memory_s: Any, measured_s: Any, items: Any = None) -> ThreeParameters:
    """The constants with the least robust error of log time (soft L1), drawn weakly to usual ones.

    Args:
        compute_s, memory_s: the bound's two columns, seconds, not both zero in a row.
        measured_s: measured seconds, positive.
        items: of work for each multiprocessor; without them there is no fourth constant.

    Raises:
        FitError: for fewer than :data:`FEWEST_ROWS` rows, or times that are not positive.
    """
    compute, memory, measured = (np.asarray(v, dtype=np.float64) for v in (compute_s, memory_s, measured_s))
    if measured.size < FEWEST_ROWS:
        raise FitError(f"{measured.size} rows: three constants need at least {FEWEST_ROWS}")
    if not (np.all(measured > 0.0) and np.all(np.maximum(compute, memory) > 0.0)):
        raise FitError("a row without a positive time or without work: put the rows through the gate first")
    log_measured = np.log(measured)
    with_items = items is not None and bool(np.any(np.asarray(items) > 0.0))
    each = np.asarray(items, dtype=np.float64) if with_items else np.zeros(1)

    def residuals(x: Any) -> Any:
        o, e_c, e_m, item = np.exp(x) if with_items else (*np.exp(x), 0.0)
        errors = np.log(o + item * each + np.maximum(compute / e_c, memory / e_m)) - log_measured
        return np.concatenate([errors, _PRIOR * (x - start)])

    first = np.log([float(np.quantile(measured, 0.02)) * 0.7, 0.7, 0.75, 1e-6])
    lower, upper = np.log([1e-9, 0.01, 0.01, 1e-12]), np.log([1.0, 3.0, 10.0, 1e-3])
    n = 4 if with_items else 3
    start = np.clip(first[:n], lower[:n] + 1e-6, upper[:n] - 1e-6)
    found = least_squares(residuals, start, bounds=(lower[:n], upper[:n]), loss="soft_l1", f_scale=_SOFT)
    o, e_c, e_m, item = (float(v) for v in (*np.exp(found.x), 0.0)[:4])
    return ThreeParameters(overhead_s=o, compute_share=e_c, memory_share=e_m, item_s=item)
