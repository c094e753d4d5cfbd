"""Goodput: the largest load at which every service level holds (Zhong et al., "DistServe", OSDI 2024, section 1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ridgeline.analytical.serving.server import SimulationError
from ridgeline.analytical.serving.summary import ServiceLevel, Summary

MOST_SIMULATIONS = 40


@dataclass(frozen=True)
class LargestLoad:
    """The largest load found to meet the levels, and the smallest found not to: the truth lies between them."""

    requests_per_s: float
    fails_at_per_s: float
    summary: Summary
    simulations: int


def largest_load(
    simulate_at: Callable[[float], Summary], levels: Sequence[ServiceLevel], start_per_s: float, tolerance: float = 0.02
) -> LargestLoad | None:
    """Bisect for the largest load that meets ``levels``; ``None`` where none down to ``start_per_s / 1000`` does.

    Args:
        simulate_at: the long run at a load; it must draw the same requests for every load.
        levels: what has to hold.
        start_per_s: a first guess.
        tolerance: relative width at which to stop.

    Raises:
        SimulationError: where the levels hold at every load tried: the load is not what limits.
    """
    if not levels:
        raise SimulationError("the largest load needs service levels to hold")
    made = 0

    def probe(rate: float) -> Summary:
        nonlocal made
        made += 1
        return simulate_at(rate)

    rate, best, low, high = start_per_s, None, 0.0, math.inf
    while made < MOST_SIMULATIONS:
        summary = probe(rate)
        if summary.meets(levels):
            low, best = rate, summary
            rate = rate * 2.0 if high == math.inf else math.sqrt(low * high)
        else:
            high = rate
            if low == 0.0 and rate < start_per_s / 1000.0:
                return None
            rate = rate / 2.0 if low == 0.0 else math.sqrt(low * high)
        if best is not None and high / low <= 1.0 + tolerance:
            return LargestLoad(low, high, best, made)
    raise SimulationError(f"no load up to {low:g} requests/s breaks {', '.join(level.label for level in levels)}")
