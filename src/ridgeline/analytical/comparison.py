"""Is B faster than A? Ratios of interleaved times, an interval that may be looked at repeatedly, and a verdict.

A quad is A B B A or B A A B, each letter a short stretch of launches: its log ratio ln((b1 + b2) / (a1 + a2)) is free of
any drift that is linear over the quad. The estimate is the median of the quads' log ratios, so that up to half of the
quads may be spoilt, and its interval is made of order statistics.

Peeking is paid for. The number of log ratios below their true median is a walk of fair steps; the ranks of the interval
at every planned look are the widest that this walk leaves with at most the probability spent up to there (Lan & DeMets,
Biometrika 70, 1983), computed exactly. So the intervals of all looks hold the true ratio together, with the stated
confidence, and stopping at the first look that decides costs nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, ndtri

Verdict = Literal["faster", "slower", "same", "unclear"]

MARGIN = 0.02
"""Differences up to this are `same`: addresses and code layout alone move equal kernels by about 0.5 %."""
CONFIDENCE = 0.99
"""That all intervals of one comparison hold the true ratio."""
FIRST_LOOK = 24
LOOK_GROWTH = 1.3
MOST_QUADS = 4000


@dataclass(frozen=True)
class RatioInterval:
    """What quads say about the ratio of times, B over A; natural logarithms."""

    log_ratio: float
    log_low: float | None
    log_high: float | None
    """Ends of the interval; ``None`` where there are too few quads for the confidence."""
    n_quads: int
    inflation: float
    """Variance of the count of quads below the median over that of independent quads; 1 for independent ones."""

    @property
    def ratio(self) -> float:
        """Time of B over time of A; above one, B is slower."""
        return math.exp(self.log_ratio)

    @property
    def low(self) -> float | None:
        """Lower end of the interval on the ratio."""
        return None if self.log_low is None else math.exp(self.log_low)

    @property
    def high(self) -> float | None:
        """Upper end of the interval on the ratio."""
        return None if self.log_high is None else math.exp(self.log_high)

    @property
    def half_width(self) -> float | None:
        """Half of the interval's width, logarithm."""
        return None if self.log_low is None or self.log_high is None else (self.log_high - self.log_low) / 2.0


def log_ratios(a_s: ArrayLike, b_s: ArrayLike) -> NDArray[np.float64]:
    """ln(sum of B's legs / sum of A's legs) of every quad; both ``[quads, legs]``, seconds per launch."""
    a, b = np.asarray(a_s, dtype=np.float64), np.asarray(b_s, dtype=np.float64)
    return np.asarray(np.log(b.sum(axis=1) / a.sum(axis=1)), dtype=np.float64)


def planned_looks(most: int) -> tuple[int, ...]:
    """Numbers of quads after which the interval is looked at: from 24, growing by 1.3, and ``most`` at the end."""
    looks: list[int] = []
    size = float(FIRST_LOOK)
    while size < most / LOOK_GROWTH**0.5:
        looks.append(round(size))
        size *= LOOK_GROWTH
    return (*looks, most)


def spent(share: float, alpha: float) -> float:
    """Error probability that may be used up at ``share`` of the planned quads: Pocock-like, alpha ln(1 + (e - 1) t)."""
    return alpha * math.log1p((math.e - 1.0) * min(share, 1.0))


@lru_cache(maxsize=512)
def walk_ranks(looks: tuple[int, ...], spending: tuple[float, ...]) -> tuple[int, ...]:
    """Rank (from 1) of the interval's lower end at each look; 0 where no interval has the confidence.

    At look k the interval [x_(r), x_(n+1-r)] misses the median when fewer than r, or more than n - r, of n values lie
    below it. Ranks are the largest for which the probability of a miss at any look up to k is at most ``spending[k]``;
    exact for independent values.

    Args:
        looks: growing numbers of values.
        spending: probability spent up to each look, never falling.
    """
    mass = np.ones(1)  # probability of each count below the median, of paths that have not missed so far
    missed, reached = 0.0, 0
    ranks: list[int] = []
    for n, allowed in zip(looks, spending, strict=True):
        step = n - reached
        if step <= 0:
            raise ValueError(f"looks must grow, not {looks}")
        mass = np.convolve(mass, _fair_coin(step))
        reached = n
        tails = np.cumsum(mass[: n // 2] + mass[::-1][: n // 2])  # tails[r-1]: miss with rank r
        rank = int(np.searchsorted(tails, allowed - missed, side="right"))
        if rank:
            missed += float(tails[rank - 1])
            mass[:rank] = 0.0
            mass[n + 1 - rank :] = 0.0
        ranks.append(rank)
    return tuple(ranks)


def _fair_coin(n: int) -> NDArray[np.float64]:
    """Probabilities of 0 to n heads in n throws; by logarithms, because binomial coefficients overflow beyond 1029."""
    heads = np.arange(n + 1.0)
    logs = gammaln(n + 1.0) - gammaln(heads + 1.0) - gammaln(n - heads + 1.0) - n * np.log(2.0)
    return np.asarray(np.exp(logs), dtype=np.float64)


def sign_inflation(values: ArrayLike) -> float:
    """How much wider than a fair walk the count of values below the median spreads, as a ratio of variances, at least 1.

    Sum of the autocorrelations of the signs about the median, over adjacent pairs of lags while these are positive
    (Geyer, Statistical Science 7, 1992). Signs, because that is what the ranks count: outliers weigh no more than
    others. Subtracting the median takes about 1/n from every lag; twice that is given back, because too small a value
    costs false alarms and too large a one costs only time (on 300 quads with AR(1) of 0.5 all looks together miss the
    truth in 3 % instead of 6 %, for a quarter more quads).
    """
    x = np.asarray(values, dtype=np.float64)
    n = x.size
    signs = np.sign(x - np.median(x)) if n else x
    size = 1 << (2 * n + 1).bit_length()
    covariance = np.fft.irfft(np.abs(np.fft.rfft(signs, size)) ** 2, size)[:n]
    if n < 4 or covariance[0] <= 0.0:
        return 1.0
    rho = covariance / covariance[0] + (1.0 - np.arange(n) / n) * (2.0 / n)
    total = 1.0
    for lag in range(1, n // 2 - 1, 2):
        pair = float(rho[lag] + rho[lag + 1])
        if pair <= 0.0:
            break
        total += 2.0 * pair
    return max(1.0, total)


def sequential_interval(values: ArrayLike, looks: Sequence[int], confidence: float = CONFIDENCE) -> RatioInterval:
    """Median of the log ratios with the interval of the present look.

    Args:
        values: log ratios of the quads so far, in order.
        looks: the planned numbers of quads. Where the count is none of them, measuring has ended early: this is then
            the last look, and what probability is left is spent on it.
        confidence: that the intervals of all looks together hold the true median.

    Raises:
        ValueError: without any value.
    """
    x = np.asarray(values, dtype=np.float64)
    n = x.size
    if n == 0:
        raise ValueError("no quads to compare")
    alpha = 1.0 - confidence
    earlier = tuple(look for look in looks if look < n)
    most = max(looks, default=n)
    last = spent(n / most, alpha) if n in looks else alpha
    spending = (*(spent(look / most, alpha) for look in earlier), last)
    rank = walk_ranks((*earlier, n), spending)[-1]
    inflation = sign_inflation(x)
    middle = (n + 1) / 2.0
    rank = math.floor(middle - (middle - rank) * math.sqrt(inflation)) if rank else 0
    ordered = np.sort(x)
    low = high = None
    if rank >= 1:
        low, high = float(ordered[rank - 1]), float(ordered[n - rank])
    return RatioInterval(float(np.median(x)), low, high, n, inflation)


def verdict(log_low: float | None, log_high: float | None, margin: float = MARGIN) -> Verdict:
    """What an interval on ln(time of B / time of A) says of B.

    ``slower`` or ``faster`` where the whole interval lies beyond the margin on one side; ``same`` where all of it lies
    within, also when it excludes equality: such a difference is real in this process, and too small to act on, because
    addresses and layout move equal kernels as much. ``unclear`` otherwise. While the interval holds the true ratio, no
    verdict is wrong.
    """
    if log_low is None or log_high is None:
        return "unclear"
    edge = math.log1p(margin)
    if log_low > edge:
        return "slower"
    if log_high < -edge:
        return "faster"
    return "same" if -edge <= log_low and log_high <= edge else "unclear"


def detectable_change(
    interval: RatioInterval, quads: int, margin: float, confidence: float = CONFIDENCE
) -> float | None:
    """Smallest relative slowdown that ``quads`` quads of this noise would find in 95 of 100 comparisons.

    The interval must clear the margin: margin, plus its half-width, plus 1.645 standard errors. Half-widths shrink with
    the root of the quads. ``None`` where there is no interval to go by.
    """
    if interval.half_width is None or interval.n_quads == 0:
        return None
    half = interval.half_width * math.sqrt(interval.n_quads / quads)
    error = half / float(ndtri(0.5 + confidence / 2.0))
    return math.expm1(math.log1p(margin) + half + 1.645 * error)
