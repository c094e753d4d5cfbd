"""How often the interval on the median holds the truth, on synthetic series of block medians.

    python benchmarks/interval_coverage.py [--seed 1] [--runs 400] [--stops 200]

Six shapes, truth known: independent, AR(1) 0.5 and 0.9, drifting (truth: the mean median over the window), bimodal,
with outliers. Two ways to end: a fixed number of blocks, and the sequential stop of the product within its budget.
Two bars for each, over the runs whose end has an interval:

* it holds the truth in at least 90 %. At the most blocks, 90 % of the runs must have one. A stop is held to it twice:
  over all runs, and over those that stopped by themselves, where at least half of them do: the budget of the others ends
  before the target is reached, and what stops all the same was lucky.
* its mean width is at most twice the width of an oracle's. The oracle knows the model: its interval is the central 95 %
  of the sample median's distribution at as many blocks, by simulation, and it knows the drift, which it takes out.

Rows marked * are printed and not judged: modes six standard deviations apart, where the interval on 50 blocks now and
then reaches into the gap between them, and a slow wander below independent noise, which no short window can show.
Exit codes: 0 PASS, 1 FAIL.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import signal, stats
from scipy.optimize import brentq

from ridgeline.analytical.statistics import Summary, summarise_medians
from ridgeline.bench.stopping import StopWhenNarrow

BAR_COVERAGE = 0.90
BAR_WIDTH = 2.0
FIXED = (50, 100, 200, 400)
"""Blocks of 20 ms: 50 are the second below which the product does not stop, 300 the budget of the quick suite."""
BLOCK_S = 20e-3
BUDGET_BLOCKS = 400
TARGETS = (0.010, 0.015)
"""Half-widths over the median at which to stop. 1 % is half a standard deviation of the blocks here."""
NOISE = 0.02
"""Standard deviation of one block median, over its level of 1."""

Array = NDArray[np.float64]


def ar1(rng: np.random.Generator, n: int, rho: float, series: int | None = None) -> Array:
    """Stationary Gaussian AR(1) of unit variance around zero: shape (n,), or (series, n)."""
    steps = rng.normal(size=(series or 1, n)) * np.sqrt(1.0 - rho**2)
    steps[:, 0] /= np.sqrt(1.0 - rho**2)
    x: Array = signal.lfilter([1.0], [1.0, -rho], steps, axis=1)
    return x if series is not None else x[0]


@dataclass(frozen=True)
class Shape:
    """A kind of series of block medians: standardised noise around zero, and what is added to it."""

    name: str
    noise: Callable[[np.random.Generator, int, int], Array]
    """From a generator, a number of series and of blocks: shape (series, blocks)."""
    centre: float = 0.0
    """Median of the noise's distribution."""
    drift: float = 0.0
    """Added per block."""
    judged: bool = True

    def draw(self, rng: np.random.Generator, series: int, n: int) -> Array:
        return 1.0 + NOISE * (self.noise(rng, series, n) + self.drift * np.arange(n))

    def truth(self, n: int) -> float:
        """Median over the first ``n`` blocks; of a drift the mean of the medians."""
        return 1.0 + NOISE * (self.centre + self.drift * (n - 1) / 2.0)


def _mixture_median(share: float, apart: float) -> float:
    return float(
        brentq(lambda q: (1 - share) * stats.norm.cdf(q) + share * stats.norm.cdf(q - apart) - 0.5, -5, 5 + apart)
    )


def _bimodal(rng: np.random.Generator, series: int, n: int) -> Array:
    return rng.normal(size=(series, n)) + 3.0 * (rng.random((series, n)) < 0.3)


def _far_modes(rng: np.random.Generator, series: int, n: int) -> Array:
    return rng.normal(size=(series, n)) + 6.0 * (rng.random((series, n)) < 0.3)


def _outliers(rng: np.random.Generator, series: int, n: int) -> Array:
    hit = rng.random((series, n)) < 0.05
    return rng.normal(size=(series, n)) + hit * rng.uniform(10.0, 30.0, (series, n))


SHAPES = (
    Shape("independent", lambda rng, series, n: rng.normal(size=(series, n))),
    Shape("AR(1) 0.5", lambda rng, series, n: ar1(rng, n, 0.5, series)),
    Shape("AR(1) 0.9", lambda rng, series, n: ar1(rng, n, 0.9, series)),
    Shape("drifting", lambda rng, series, n: rng.normal(size=(series, n)), drift=0.02),
    Shape("bimodal", _bimodal, centre=_mixture_median(0.3, 3.0)),
    # Outliers lie so far out that the median is that of the other 95 % of the blocks, at their 1 / 1.9.
    Shape("outliers", _outliers, centre=float(stats.norm.ppf(0.5 / 0.95))),
    Shape("far modes", _far_modes, centre=_mixture_median(0.3, 6.0), judged=False),
    Shape(
        "hidden wander",
        lambda rng, series, n: (ar1(rng, n, 0.95, series) + rng.normal(size=(series, n))) / np.sqrt(2.0),
        judged=False,
    ),
)


@cache
def oracle_width(shape: Shape, n: int) -> float:
    """Width of the central 95 % of the median of ``n`` blocks whose drift is known."""
    medians = np.median(shape.noise(np.random.default_rng(7), 4000, n), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(high - low) * NOISE


def oracle_width_between(shape: Shape, n: float) -> float:
    """As :func:`oracle_width`, between the numbers of :data:`FIXED` and 20 on a logarithmic scale."""
    grid = (20, *FIXED)
    return float(np.exp(np.interp(np.log(n), np.log(grid), [np.log(oracle_width(shape, k)) for k in grid])))


@dataclass(frozen=True)
class Tally:
    """What many runs of one shape and one way to end gave."""

    shape: Shape
    ending: str
    runs: int
    claims: int
    """Runs whose end has an interval."""
    held: int
    """Claims that hold the truth."""
    stopped: int
    """Claims that did not end by the budget."""
    stopped_held: int
    width_over_oracle: float
    """Mean, of the claims."""
    blocks: float
    """Mean number, of those that stopped by themselves."""
    needs_claims: bool = False
    """Whether 90 % of the runs must have an interval."""

    @property
    def passed(self) -> bool:
        often = self.stopped >= 0.5 * self.claims
        return (
            share(self.held, self.claims) >= BAR_COVERAGE
            and (not often or share(self.stopped_held, self.stopped) >= BAR_COVERAGE)
            and self.width_over_oracle <= BAR_WIDTH
            and (not self.needs_claims or self.claims >= 0.9 * self.runs)
        )

    def line(self) -> str:
        verdict = ("ok" if self.passed else "MISSED") if self.shape.judged else "*"
        return (
            f"{self.shape.name:14} {self.ending:13} {self.claims / self.runs:8.1%} "
            f"{share(self.held, self.claims):8.1%} {self.width_over_oracle:7.2f} {self.stopped / self.runs:8.1%} "
            f"{self.blocks:7.0f} {share(self.stopped_held, self.stopped):8.1%}  {verdict}"
        )


def share(part: int, whole: int) -> float:
    """0 of nothing."""
    return part / whole if whole else 0.0


def _tally(
    shape: Shape, ending: str, ends: list[tuple[Summary, bool]], oracle: Callable[[int], float], needs: bool
) -> Tally:
    """From the last summary of every run and whether it stopped by itself."""
    claims = []
    for s, stopped in ends:
        if s.low is not None and s.high is not None:
            holds = s.low <= shape.truth(s.n_blocks) <= s.high
            claims.append((holds, stopped, (s.high - s.low) / oracle(s.n_blocks), s.n_blocks))
    own = [(holds, blocks) for holds, stopped, _, blocks in claims if stopped]
    return Tally(
        shape,
        ending,
        runs=len(ends),
        claims=len(claims),
        held=sum(holds for holds, *_ in claims),
        stopped=len(own),
        stopped_held=sum(holds for holds, _ in own),
        width_over_oracle=float(np.mean([width for _, _, width, _ in claims])) if claims else 0.0,
        blocks=float(np.mean([blocks for _, blocks in own])) if own else 0.0,
        needs_claims=needs,
    )


def fixed(shape: Shape, n: int, runs: int, seed: int, needs_claims: bool = False) -> Tally:
    """Coverage and width after ``n`` blocks."""
    series = shape.draw(np.random.default_rng([seed, n]), runs, n)
    ends = [(summarise_medians(x, n), True) for x in series]
    return _tally(shape, f"{n} blocks", ends, lambda k: oracle_width(shape, k), needs_claims)


def sequential(shape: Shape, target_relative: float, runs: int, seed: int, budget_blocks: int = BUDGET_BLOCKS) -> Tally:
    """Coverage and width where the product's rule is asked as often as its loop asks it."""
    rule = StopWhenNarrow(target_relative)
    series = shape.draw(np.random.default_rng([seed, 0]), runs, budget_blocks)
    ends = [_stop(x, rule) for x in series]
    return _tally(shape, f"stop at {target_relative:.1%}", ends, lambda n: oracle_width_between(shape, n), needs=False)


def _stop(x: Array, rule: StopWhenNarrow) -> tuple[Summary, bool]:
    next_look = 0
    for n in range(rule.min_blocks, len(x)):
        if n < next_look or not rule.may_be_satisfied(n, n * BLOCK_S):
            continue
        next_look = rule.next_look(n)
        summary = summarise_medians(x[:n], n)
        if rule.satisfied(summary, n * BLOCK_S):
            return summary, True
    return summarise_medians(x, len(x)), False


HEADER = f"{'series':14} {'ending':13} {'interval':>8} {'covered':>8} {'/oracle':>7} {'stopped':>8} {'blocks':>7} {'covered':>8}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=400, help="series of each shape and fixed length")
    parser.add_argument("--stops", type=int, default=200, help="series of each shape and target of the stop")
    options = parser.parse_args(arguments)
    print(f"95 % interval, noise {NOISE:.0%}, budget {BUDGET_BLOCKS} blocks, seed {options.seed}")
    print(HEADER)
    tallies = []
    for shape in SHAPES:
        for n in FIXED:
            tallies.append(fixed(shape, n, options.runs, options.seed, needs_claims=n == max(FIXED)))
            print(tallies[-1].line(), flush=True)
        for target in TARGETS:
            tallies.append(sequential(shape, target, options.stops, options.seed))
            print(tallies[-1].line(), flush=True)
    print(
        "interval: runs that have one, how many hold the truth, width; stopped: runs that did by themselves, of those"
    )
    passed = all(tally.passed for tally in tallies if tally.shape.judged)
    print("PASS" if passed else "FAIL")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
