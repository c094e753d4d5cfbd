"""Pure statistics of measured times: medians with distribution-free intervals, and how independent samples are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

SMALLEST_N = 6
"""Fewest values whose extremes hold the median with 95 % confidence: 1 - 2 * 2**-6 = 0.969 (Hahn & Meeker 1991)."""

RHO_NEGLIGIBLE = 0.2
"""Lag-1 autocorrelation up to which values are treated as independent."""


@dataclass(frozen=True)
class Summary:
    """What a set of timed blocks says about one launch."""

    median: float
    """Median of the block medians, in the unit of the samples."""
    low: float | None
    high: float | None
    """Ends of the interval on the median; ``None`` where there are too few independent blocks."""
    n_blocks: int
    n_samples: int
    autocorrelation: float
    """Lag-1 autocorrelation of the block medians."""
    n_effective: float
    """Independent blocks that carry the same information."""

    @property
    def half_width_relative(self) -> float:
        """Half of the interval's width over the median; infinite where there is no interval."""
        if self.low is None or self.high is None:
            return math.inf
        return (self.high - self.low) / 2.0 / self.median


@lru_cache(maxsize=4096)
def interval_ranks(n: int, confidence: float = 0.95) -> tuple[int, int] | None:
    """Ranks (from 1) of the order statistics that hold the median with at least ``confidence``.

    ``r`` is the largest k with 1 - 2 P(Bin(n, 1/2) <= k - 1) >= confidence; the interval is [x_(r), x_(n+1-r)]
    (Hahn & Meeker, Statistical Intervals, 1991, section 5.2). ``None`` where no pair of ranks reaches it (n < 6 at 95 %).
    """
    if n < 1:
        return None
    r = int(stats.binom.ppf((1.0 - confidence) / 2.0, n, 0.5))
    while r >= 1 and 1.0 - 2.0 * stats.binom.cdf(r - 1, n, 0.5) < confidence:
        r -= 1
    while 1.0 - 2.0 * stats.binom.cdf(r, n, 0.5) >= confidence:
        r += 1
    return (r, n + 1 - r) if r >= 1 else None


def lag1_autocorrelation(values: ArrayLike) -> float:
    """Lag-1 sample autocorrelation; 0 for fewer than three or for equal values."""
    x = np.asarray(values, dtype=np.float64)
    if x.size < 3:
        return 0.0
    d = x - x.mean()
    variance = float(d @ d)
    return float(d[:-1] @ d[1:]) / variance if variance > 0.0 else 0.0


def effective_size(n: int, autocorrelation: float) -> float:
    """Independent values equivalent to ``n`` with this lag-1 autocorrelation: n (1 - rho) / (1 + rho), AR(1)."""
    if autocorrelation <= RHO_NEGLIGIBLE:
        return float(n)
    return n * (1.0 - autocorrelation) / (1.0 + autocorrelation)


def summarise(blocks: Sequence[ArrayLike], confidence: float = 0.95) -> Summary:
    """Median of block medians with its order-statistic interval, widened for autocorrelation.

    Args:
        blocks: one sequence of samples per block, each of at least one sample.
        confidence: of the interval.

    Raises:
        ValueError: when there is no sample.
    """
    arrays: list[NDArray[np.float64]] = [np.asarray(b, dtype=np.float64) for b in blocks]
    if not arrays or any(a.size == 0 for a in arrays):
        raise ValueError("no samples to summarise")
    if len({a.size for a in arrays}) == 1:
        medians = np.median(np.stack(arrays), axis=1)  # 5 times faster than one call per block
    else:
        medians = np.array([np.median(a) for a in arrays])
    n = len(medians)
    rho = lag1_autocorrelation(medians)
    n_effective = effective_size(n, rho)
    ranks = interval_ranks(int(n_effective), confidence)
    low = high = None
    if ranks is not None:
        ordered = np.sort(medians)
        # Ranks of the effective sample, carried over to the full one as quantiles and rounded outwards.
        lower = math.floor((ranks[0] - 1) / int(n_effective) * n)
        low, high = float(ordered[lower]), float(ordered[n - 1 - lower])
    return Summary(float(np.median(medians)), low, high, n, sum(a.size for a in arrays), rho, n_effective)
