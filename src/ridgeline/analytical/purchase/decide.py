"""Decisions from draws: who is cheapest how often, what choosing costs if it is wrong, and what is worth finding out.

``cost`` is always a table of draws x options, every row one world; an option that cannot serve in a world costs infinity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ridgeline.analytical.serving.traffic import Floats

QUANTILES = (0.1, 0.5, 0.9)
BINS = 20
SHUFFLES = 12


@dataclass(frozen=True)
class Decision:
    """What the draws say of the options; all by option, in their order."""

    probability_cheapest: Floats
    expected_regret_usd: Floats
    """Mean cost above that of the cheapest option of the same world, over the worlds where both serve."""
    best: int
    """The option of the least expected regret."""
    runner_up: int | None
    ranks: bool
    """Whether the best is cheapest with at least the probability asked for."""


def decide(cost: Floats, threshold: float) -> Decision:
    """Compare options. A world in which nothing serves says nothing and is left out.

    Regret in a world where an option fails is that of the dearest option that serves there: failing is no cheaper.
    """
    served = cost[np.isfinite(cost).any(axis=1)]
    least = served.min(axis=1)
    winners = served.argmin(axis=1)
    options = cost.shape[1]
    probability = np.bincount(winners, minlength=options) / len(served)
    dearest = np.where(np.isfinite(served), served, -np.inf).max(axis=1)
    regret = (np.where(np.isfinite(served), served, dearest[:, None]) - least[:, None]).mean(axis=0)
    order = np.lexsort((regret, -probability))
    best = int(order[0])
    runner_up = int(order[1]) if options > 1 else None
    return Decision(probability, regret, best, runner_up, bool(probability[best] >= threshold))


@dataclass(frozen=True)
class Driver:
    """What one uncertain input does to the choice."""

    name: str
    swing: float
    """Cost of the best option, in the worlds where the input is high over those where it is low: a ratio."""
    margin_swing: float
    """The same of the cost of the runner-up over that of the best: what does not move it does not matter to the choice."""
    flips: bool
    """Whether another option is the best, on average, where the input is low than where it is high."""
    value_usd: float
    """Expected value of knowing it exactly before choosing (EVPPI; Strong, Oakley, Brennan, Med. Decis. Making 34, 2014)."""


def drivers(cost: Floats, decision: Decision, used: Mapping[str, Floats]) -> list[Driver]:
    """Every input by what knowing it is worth, then by swing.

    Conditional means over :data:`BINS` bins of equal counts. Bins differ by chance too: what shuffled inputs seem worth is
    taken off, and an input that seems worth no more than they vary is worth nothing.
    """
    finite = np.where(np.isfinite(cost), cost, np.where(np.isfinite(cost), cost, -np.inf).max(axis=1)[:, None])
    keep = np.isfinite(finite).all(axis=1)
    finite = finite[keep]
    floor = float(finite.mean(axis=0).min())
    rng = np.random.default_rng(0)
    shuffled = np.asarray([_value(finite, rng.permutation(len(finite)), floor) for _ in range(SHUFFLES)])
    noise, sure = float(shuffled.mean()), float(shuffled.mean() + 4.0 * shuffled.std())
    found = []
    for name, uniform in used.items():
        order = np.argsort(uniform[keep], kind="stable")
        means = _bins(finite, order)
        low, high = means[:2].mean(axis=0), means[-2:].mean(axis=0)
        best, other = decision.best, decision.runner_up
        margin = 1.0 if other is None else float(high[other] / high[best] / (low[other] / low[best]))
        value = _value(finite, order, floor)
        value = value - noise if value > sure else 0.0
        found.append(
            Driver(name, float(high[best] / low[best]), margin, int(low.argmin()) != int(high.argmin()), value)
        )
    return sorted(found, key=lambda d: (-d.value_usd, -abs(np.log(d.margin_swing)), -abs(np.log(d.swing))))


def _bins(cost: Floats, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Floats:
    return np.stack([cost[part].mean(axis=0) for part in np.array_split(order, BINS)])


def _value(cost: Floats, order: np.ndarray[tuple[int], np.dtype[np.int64]], floor: float) -> float:
    sizes = [len(part) for part in np.array_split(order, BINS)]
    return floor - float(np.average(_bins(cost, order).min(axis=1), weights=sizes))


def quantiles(values: Floats, at: Sequence[float] = QUANTILES) -> dict[str, float | None]:
    """P10, P50 and P90; ``None`` for one that is no number: in so many worlds the option does not serve."""
    found = np.quantile(values, at, method="inverted_cdf")
    return {f"p{q * 100:.0f}": float(v) if np.isfinite(v) else None for q, v in zip(at, found, strict=True)}
