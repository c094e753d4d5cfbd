"""What a series of block medians looks like, for people: outliers, two modes, drift. Nothing is dropped for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ridgeline.analytical.drift import drift_per_block

OUTLIER_Z = 3.5
"""Modified z score from which a value is called an outlier (Iglewicz & Hoaglin 1993, chapter 3)."""
FEWEST_FOR_MODES = 40
SMALLEST_MODE = 0.1
"""Share of the blocks that the smaller of two modes must hold; less is outliers."""
MODES_APART = 5.0
"""Distance of two modes over their common standard deviation (Ashman's D). Of series of 50 independent values cut at the
best place, no normal, 0.4 % of uniform and 2 % of exponential ones reach it; 98 % of two normals 6 sigma apart do."""


@dataclass(frozen=True)
class Modes:
    """Two groups that the blocks fall into, such as two clock states."""

    low: float
    high: float
    """Medians of the two groups, in the unit of the samples."""
    share_high: float
    """Share of the blocks in the upper group."""


@dataclass(frozen=True)
class Shape:
    """How a series of block medians departs from independent noise around one level."""

    n_blocks: int
    outliers: int
    """Blocks far from their mode, flagged and kept."""
    modes: Modes | None
    drift_relative: float
    """Linear drift over the whole window, over the median; 0 where none is beyond doubt."""

    @property
    def outlier_share(self) -> float:
        """Outliers over blocks."""
        return self.outliers / self.n_blocks

    @property
    def notes(self) -> tuple[str, ...]:
        """One short line for each thing worth a look."""
        notes = []
        if self.outliers:
            notes.append(f"{self.outliers} of {self.n_blocks} blocks are outliers ({self.outlier_share:.1%}), kept")
        if self.modes is not None:
            apart = self.modes.high / self.modes.low - 1.0
            notes.append(f"two modes {apart:.1%} apart, {self.modes.share_high:.0%} of the blocks in the slower")
        if self.drift_relative:
            notes.append(f"drifts by {self.drift_relative:+.1%} from the first block to the last")
        return tuple(notes)


def describe(medians: ArrayLike) -> Shape:
    """Outliers, modes and drift of block medians.

    A drift is taken out before modes are looked for, and outliers are judged against their own mode.

    Args:
        medians: positive times of the blocks, in the order of time.

    Raises:
        ValueError: when there is none.
    """
    x = np.asarray(medians, dtype=np.float64)
    n = x.size
    if n == 0:
        raise ValueError("no blocks to describe")
    slope = drift_per_block(x)
    level = x - slope * (np.arange(n) - (n - 1) / 2.0)
    cut = _cut(level)
    modes = None
    groups = [level]
    if cut is not None:
        groups = [level[level <= cut], level[level > cut]]
        modes = Modes(float(np.median(groups[0])), float(np.median(groups[1])), groups[1].size / n)
    outliers = sum(int((np.abs(modified_z(group)) > OUTLIER_Z).sum()) for group in groups)
    return Shape(n, outliers, modes, slope * (n - 1) / float(np.median(x)))


def modified_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances from the median over a robust standard deviation; 0 for equal values.

    The standard deviation is MAD / 0.6745, or, where more than half of the values are equal, 1.2533 times the mean
    absolute deviation (Iglewicz & Hoaglin 1993, chapter 3).
    """
    d = values - np.median(values)
    scale = float(np.median(np.abs(d))) / 0.6745 or 1.2533 * float(np.mean(np.abs(d)))
    return d / scale if scale > 0.0 else np.zeros_like(d)


def _cut(values: NDArray[np.float64]) -> float | None:
    """Value between two modes; ``None`` where there is one.

    The cut is the one with the least variance inside the two groups (Otsu 1979), among the middle 90 % of the values,
    so that a few outliers do not pass for a mode.
    """
    n = values.size
    if n < FEWEST_FOR_MODES:
        return None
    tail = n // 20
    x = np.sort(values)[tail : n - tail]
    m = x.size
    below = np.arange(1, m)
    total, squares = np.cumsum(x - x[0]), np.cumsum((x - x[0]) ** 2)
    inside_low = squares[:-1] - total[:-1] ** 2 / below
    inside_high = squares[-1] - squares[:-1] - (total[-1] - total[:-1]) ** 2 / (m - below)
    at = int(np.argmin(inside_low + inside_high))
    low, high = x[: at + 1], x[at + 1 :]
    spread = float(np.sqrt((low.var() + high.var()) / 2.0))
    apart = float(high.mean() - low.mean())
    if min(low.size, high.size) < SMALLEST_MODE * n or apart <= MODES_APART * spread:
        return None
    return float(low[-1] + high[0]) / 2.0
