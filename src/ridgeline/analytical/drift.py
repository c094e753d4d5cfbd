"""Whether a series climbs or falls over its whole length, and by how much."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ridgeline.analytical.autocorrelation import BELIEVABLE, integrated_time, mean_ranks

FEWEST = 12
"""Blocks from which a trend is looked for."""

DRIFT_ALPHA = 0.001
"""Chance of seeing a drift where there is none. Strict, because what is called drift no longer widens the interval."""


def slope_per_block(values: NDArray[np.float64]) -> float:
    """Robust slope of a series over its index: the median of the slopes between points half the series apart.

    Theil's incomplete method (1950): n / 2 pairs in place of all n (n - 1) / 2, so that it can follow every block.
    """
    half = len(values) // 2
    if half == 0:
        return 0.0
    apart = len(values) - half
    return float(np.median(values[apart:] - values[:half])) / apart


def drift_per_block(values: NDArray[np.float64], ranks: NDArray[np.float64] | None = None) -> float:
    """Slope of a linear drift, in units of the values per block; 0 where none is beyond doubt.

    The ranks are regressed on time, and the slope's standard error is inflated for the autocorrelation that is left in
    the residuals, so that the slow wandering of a stationary series is not taken for a drift. Where these are worth
    fewer than ``BELIEVABLE`` independent blocks nothing is beyond doubt: 2.5 % of AR(1) series with rho = 0.9 had a
    drift in 50 blocks, and most of their intervals missed the truth.

    Args:
        values: in the order of time.
        ranks: of the values from 1, where they are known already.
    """
    n = len(values)
    if n < FEWEST:
        return 0.0
    ranks = (mean_ranks(values) if ranks is None else ranks) - (n + 1) / 2.0
    time = np.arange(n) - (n - 1) / 2.0
    spread = float(time @ time)
    b = float(time @ ranks) / spread
    residuals = ranks - b * time
    left = float(residuals @ residuals)
    if left == 0.0:
        return slope_per_block(values)
    t = abs(b) * math.sqrt(spread * (n - 2) / left)
    if t < stdtrit(n - 2.0, 1.0 - DRIFT_ALPHA / 2.0):
        return 0.0  # not even among independent blocks
    inflation = integrated_time(residuals, detrended=True)
    effective = n / inflation
    if effective < BELIEVABLE or t < math.sqrt(inflation) * stdtrit(effective - 2.0, 1.0 - DRIFT_ALPHA / 2.0):
        return 0.0
    return slope_per_block(values)
