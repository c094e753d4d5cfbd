"""Matrix products of few rows: the three ways to compute them, timed by turns where the dispatcher chose between them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ridgeline.bench.paper_checks.lab import Lab

if TYPE_CHECKING:
    import torch

    from ridgeline.kernels.registry import Run

WAYS = ("native_gemv", "native_flat", "torch")
MATRICES = ((4096, 4096), (4096, 11008), (11008, 4096))
"""(K, N)."""
ROWS = (1, 2, 3, 4, 5, 7, 9, 12, 14, 16, 20, 26, 32, 40, 52, 64)
"""M that are judged: 48 points with the three matrices. Some are among those the dispatcher measures, some between."""
MARGIN = 1.05
LOOKS = (16, 24, 36, 54, 81, 121, 181)
"""Rounds after which a point's intervals are looked at; the last ends it. From fewer, any memory in the order of the ratios
leaves no interval."""
ENOUGH_S = 200.0
"""Points that are unclear are visited again, each as often as the others, until so many seconds are gone: what a
neighbour on a shared machine disturbs in one visit it leaves alone in another."""
CONFIDENCE = 0.95
"""Of a point, over all its looks."""
BOOTSTRAPS = 2000
HOPELESS = 2.0
HOPELESS_ROUNDS = 3
"""A way that took more than twice the chosen one's time in each of the first three rounds is not timed further."""


class RowRuns:
    """The runs of each way on one B, which all rows share: packed once."""

    def __init__(self, lab: Lab, b: torch.Tensor) -> None:
        from ridgeline.kernels.gemm.native import flat_panels

        self._lab, self._b, self._panels = lab, b, flat_panels(b)
        self.shape = (b.shape[0], b.shape[1])
        """(K, N)."""

    def __call__(self, way: str, m: int) -> Run:
        from ridgeline.analytical.operators import Gemm
        from ridgeline.kernels.gemm.native import flat, gemv
        from ridgeline.kernels.registry import Context

        k, n = self._b.shape
        problem = Gemm(m=m, n=n, k=k, precision="float32")
        implementation = self._lab.implementation("gemm", problem, way).implementation
        if way == "native_gemv":
            return gemv(problem, self._b, self._lab.threads)
        if way == "native_flat":
            return flat(problem, self._panels, self._lab.threads)
        return implementation.prepare(problem, {"b": self._b}, Context("cpu", self._lab.threads))


@dataclass(frozen=True)
class Point:
    """One shape: the way that the dispatcher chose, and seconds by way and round."""

    m: int
    k: int
    n: int
    chosen: str
    seconds: Mapping[str, Sequence[float]]

    @property
    def label(self) -> str:
        return f"M={self.m} ({self.k}, {self.n})"

    def against(self, way: str) -> tuple[float, float | None, float | None]:
        """Time of the chosen way over that of ``way``: median of the rounds, and its interval."""
        from ridgeline.analytical.comparison import sequential_interval

        pairs = list(zip(self.seconds[self.chosen], self.seconds[way], strict=False))
        if len(pairs) == HOPELESS_ROUNDS < LOOKS[0]:
            ratio = sorted(chosen / other for chosen, other in pairs)[1]
            return ratio, 0.0, 1.0 / HOPELESS
        found = sequential_interval([math.log(chosen / other) for chosen, other in pairs], LOOKS, CONFIDENCE)
        return found.ratio, found.low, found.high

    @property
    def verdict(self) -> str:
        """``near`` the best where every interval ends below 5 %, ``far`` where one begins above, else ``unclear``."""
        intervals = [self.against(way)[1:] for way in self.seconds if way != self.chosen]
        if all(high is not None and high <= MARGIN for _, high in intervals):
            return "near"
        return "far" if any(low is not None and low > MARGIN for low, _ in intervals) else "unclear"


def mean_gain(judged: Sequence[Point], way: str, confidence: float, seed: int = 0) -> tuple[float, float, float]:
    """Geometric mean over the points of a way's time over the chosen one's, and its interval.

    The mean is of each point's median round; the interval of 2,000 draws of rounds, with replacement, within every point.
    Rounds of different points were timed at different times, so they are drawn apart.
    """
    draws = np.random.default_rng(seed)
    logs, drawn = 0.0, np.zeros(BOOTSTRAPS)
    for point in judged:
        if way == point.chosen:
            continue  # the dispatcher's own: 1 by definition
        rounds = np.array(
            [math.log(b / a) for a, b in zip(point.seconds[point.chosen], point.seconds[way], strict=False)]
        )
        logs += float(np.median(rounds))
        drawn += np.median(rounds[draws.integers(len(rounds), size=(BOOTSTRAPS, len(rounds)))], axis=1)
    ends = np.quantile(drawn, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0]) / len(judged)
    return math.exp(logs / len(judged)), math.exp(ends[0]), math.exp(ends[1])


_MEASURED: dict[int, tuple[Point, ...]] = {}
"""By threads: what two checks of one process are made of is timed once."""


def points(lab: Lab) -> tuple[Point, ...]:
    """All points."""
    for way in (*WAYS, "dispatch"):
        lab.implementation("gemm", {"m": 1, "n": 64, "k": 64, "precision": "float32"}, way)  # for the check's sources
    if lab.threads not in _MEASURED:
        _MEASURED[lab.threads] = _measured(lab)
    return _MEASURED[lab.threads]


@dataclass
class Trial:
    """A point while it is timed."""

    m: int
    runs: RowRuns
    chosen: str
    inputs: Mapping[str, torch.Tensor]
    seconds: dict[str, list[float]]
    timed: list[str]

    @property
    def n_rounds(self) -> int:
        """Of the way that was chosen, and of those that are not given up."""
        return len(self.seconds[self.chosen])

    def point(self) -> Point:
        """What is known so far."""
        k, n = self.runs.shape
        return Point(self.m, k, n, self.chosen, self.seconds)

    def visit(self, rounds: int, out: torch.Tensor, lots: random.Random, settle: Callable[[], None]) -> None:
        """Go on to as many rounds: each way, in an order by lot and once the threads of the one before sleep, runs untimed
        (its own wake) and timed.

        B, of 67 MB or more, passes through the caches in every run: no run finds it there where the outermost cache is
        smaller than half of it.
        """
        ways = {way: self.runs(way, self.m) for way in self.timed}
        for number in range(self.n_rounds + 1, rounds + 1):
            for way in lots.sample(self.timed, len(self.timed)):
                settle()
                ways[way](self.inputs, out)
                began = time.perf_counter_ns()
                ways[way](self.inputs, out)
                self.seconds[way].append((time.perf_counter_ns() - began) * 1e-9)
            if number == HOPELESS_ROUNDS:
                best = self.seconds[self.chosen]
                self.timed = [
                    way
                    for way in self.timed
                    if way == self.chosen
                    or any(x <= HOPELESS * y for x, y in zip(self.seconds[way], best, strict=True))
                ]


def _measured(lab: Lab) -> tuple[Point, ...]:
    import torch

    from ridgeline.kernels.gemm.crossovers import crossovers

    lots, trials, began = random.Random(0), [], time.monotonic()
    for k, n in MATRICES:
        b = torch.randn(k, n, generator=lab.generator)
        known, runs = crossovers(b, lab.threads), RowRuns(lab, b)
        for m in ROWS:
            inputs = {"a": torch.randn(m, k, generator=lab.generator)}
            trials.append(Trial(m, runs, known.choose(m), inputs, {way: [] for way in WAYS}, list(WAYS)))
    for look in LOOKS:
        for trial in trials:
            late = look > LOOKS[0] and time.monotonic() - began > ENOUGH_S
            if not late and (trial.n_rounds == 0 or trial.point().verdict == "unclear"):
                trial.visit(look, torch.empty(trial.m, trial.runs.shape[1]), lots, lab.settle)
    return tuple(trial.point() for trial in trials)
