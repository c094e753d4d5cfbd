"""Fresh processes as the outer blocks: one median and one interval over them, and the level that the spread comes from.

process > block > launch (Kalibera & Jones, Rigorous benchmarking in reasonable time, ISMM 2013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from ridgeline.analytical.statistics import Summary, interval_ranks, summarise

Level = Literal["launch", "block", "process"]
MEDIAN_VARIANCE = math.pi / 2.0
"""Variance of the median of many normal values over that of their mean."""


@dataclass(frozen=True)
class Spread:
    """Variance of one process's median by the level it comes from, in the squared unit of the samples."""

    launch: float
    block: float
    process: float | None
    """``None`` with fewer than two processes: it cannot be known."""

    @property
    def dominant(self) -> Level | None:
        """The level where repeating more helps most; ``None`` where nothing varies."""
        by_level: dict[Level, float] = {"launch": self.launch, "block": self.block, "process": self.process or 0.0}
        level = max(by_level, key=by_level.__getitem__)
        return level if by_level[level] > 0.0 else None


@dataclass(frozen=True)
class ProcessesSummary:
    """What one case gave in its fresh processes."""

    median: float
    """Median of the process medians, in the unit of the samples."""
    low: float | None
    high: float | None
    """Ends of the interval; ``None`` where one process alone has none."""
    basis: Literal["order statistics of processes", "t of processes", "one process"]
    """What the interval is made of. One process cannot show how much processes differ."""
    processes: tuple[Summary, ...]
    spread: Spread

    @property
    def half_width_relative(self) -> float:
        """Half of the interval's width over the median; infinite where there is no interval."""
        if self.low is None or self.high is None:
            return math.inf
        return (self.high - self.low) / 2.0 / self.median


def summarise_processes(processes: Sequence[Sequence[ArrayLike]], confidence: float = 0.95) -> ProcessesSummary:
    """Median and interval over fresh processes.

    Process medians are independent and hold the variation of every level, so they alone make the interval: by order
    statistics from six processes on; by Student's t from two to five, which is wide (12.7 standard errors for two)
    because so few say little about how processes differ; for one, the interval within it.

    Args:
        processes: of each process its blocks, each a sequence of samples; in the order of time.
        confidence: of the interval.

    Raises:
        ValueError: when there is no process, or one without samples.
    """
    if not processes:
        raise ValueError("no processes to summarise")
    summaries = tuple(summarise(blocks, confidence) for blocks in processes)
    medians = np.array([s.median for s in summaries])
    spread = _spread(processes, summaries, medians)
    k, median = len(medians), float(np.median(medians))
    if k == 1:
        return ProcessesSummary(median, summaries[0].low, summaries[0].high, "one process", summaries, spread)
    ranks = interval_ranks(k, confidence)
    if ranks is not None:
        ordered = np.sort(medians)
        low, high = float(ordered[ranks[0] - 1]), float(ordered[ranks[1] - 1])
        return ProcessesSummary(median, low, high, "order statistics of processes", summaries, spread)
    half = float(stdtrit(k - 1, (1.0 + confidence) / 2.0) * medians.std(ddof=1)) / math.sqrt(k)
    mean = float(medians.mean())
    # The median of three to five lies close to their mean; the interval holds both.
    low, high = min(mean - half, median), max(mean + half, median)
    return ProcessesSummary(median, low, high, "t of processes", summaries, spread)


def _spread(
    processes: Sequence[Sequence[ArrayLike]], summaries: Sequence[Summary], medians: NDArray[np.float64]
) -> Spread:
    """Variance components by moments: what a level shows less what it inherits from the level below."""
    of_launches, of_blocks = [], []
    for blocks, summary in zip(processes, summaries, strict=True):
        arrays = [np.asarray(b, dtype=np.float64) for b in blocks]
        block_medians = np.array([np.median(a) for a in arrays])
        detrended = block_medians - summary.drift_per_block * np.arange(len(arrays))
        inherited = float(np.mean([_median_variance(_variance(a), a.size) for a in arrays]))
        total = _variance(detrended)
        within = _median_variance(total, summary.n_effective)
        share = min(1.0, inherited / total) if total > 0.0 else 0.0
        of_launches.append(within * share)
        of_blocks.append(within * (1.0 - share))
    launch, block = float(np.mean(of_launches)), float(np.mean(of_blocks))
    between = max(0.0, float(medians.var(ddof=1)) - launch - block) if len(medians) > 1 else None
    return Spread(launch, block, between)


def _variance(values: NDArray[np.float64]) -> float:
    return float(values.var(ddof=1)) if values.size > 1 else 0.0


def _median_variance(variance: float, n: float) -> float:
    """Variance of the median of ``n`` values; one or two have their mean for a median."""
    return variance / n * (MEDIAN_VARIANCE if n > 2.0 else 1.0)
