"""Quads: A B B A or B A A B, again and again, until the interval on the ratio decides or the budget is spent.

A leg is about 2 ms of launches, so that a quad of 8 ms is shorter than most of what disturbs a shared machine. Each leg
begins with a launch that is not timed: otherwise the leg that follows its own side would find warmer caches than the
leg that follows the other. Which side begins is drawn by lot, as often one as the other. Buffers and prepared states
are made anew every few quads, in an order drawn by lot, because where they lie moves equal kernels by half a percent.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol as Interface

from ridgeline.analytical.comparison import (
    MOST_QUADS,
    log_ratios,
    planned_looks,
    sequential_interval,
    verdict,
)
from ridgeline.bench.devices.unit import Session
from ridgeline.bench.timing import Launches

LEG_S = 2e-3
PILOT_QUADS = 3
"""Quads that say how many fit in the budget; they are not counted."""
PILOT_SHARE = 0.25
"""Share of the budget after which the pilot ends: launches of a second would spend all of it."""
ROUND_QUADS = 8
"""Fewest quads on one set of buffers."""
ARRANGING_SHARE = 0.2
"""Share of the budget for making buffers and prepared states anew."""
LONG_LEGS = 20.0
"""Times a leg's length that a launch takes at least which is not tried again."""
MOST_LEFT_OUT = 0.25
"""Share of quads that may be left out: where more are disturbed, that is how the machine is."""


class Side(Interface):
    """One of the two that are compared."""

    def begin(self, launches: int) -> None:
        """Get ready for a quad of ``launches`` launches of this side; not timed."""
        ...

    def leg(self, launches: int) -> float:
        """Launch once untimed, then ``launches`` times; seconds of the latter together."""
        ...

    def end(self) -> None:
        """Look at what the quad did; not timed."""
        ...


class OwnSide:
    """A side in this process; ``warm_s`` is how long it launches untimed before a leg, at least once."""

    def __init__(self, launches: Launches, session: Session, warm_s: float = 0.0) -> None:
        self._launches = launches
        self._session = session
        self._warm_s = warm_s

    def begin(self, launches: int) -> None:
        self._launches.before_block(launches)

    def leg(self, launches: int) -> float:
        self._session.settle()
        until = time.monotonic() + self._warm_s
        self._launches.launch(1)
        while time.monotonic() < until:
            self._launches.launch(1)
        return self._session.timer.time(self._launches.launch, launches)

    def end(self) -> None:
        self._launches.after_block()


@dataclass(frozen=True)
class QuadSettings:
    """How long and how exactly to compare."""

    budget_s: float
    margin: float
    confidence: float
    seed: int
    leg_s: float = LEG_S
    whole_budget: bool = False
    """Measure until the budget is spent, however clear the verdict is: for a figure, not a decision."""


@dataclass
class Quads:
    """What was measured, as the record stores it."""

    launches_a: int
    launches_b: int
    looks: tuple[int, ...]
    a_s: list[tuple[float, float]] = field(default_factory=list)
    b_s: list[tuple[float, float]] = field(default_factory=list)
    a_first: list[bool] = field(default_factory=list)
    arrangement: list[int] = field(default_factory=list)
    left_out: dict[int, str] = field(default_factory=dict)
    measured_s: float = 0.0

    @property
    def used(self) -> list[int]:
        """Indices of the quads that count."""
        return [index for index in range(len(self.a_s)) if index not in self.left_out]


def measure_quads(
    arrange: Callable[[int], tuple[Side, Side]],
    settings: QuadSettings,
    clock: Callable[[], float] = time.monotonic,
    interruption: Callable[[], str] = lambda: "",
) -> Quads:
    """Compare until the verdict is clear at a planned look, or the budget is spent.

    Args:
        arrange: makes both sides, on buffers of their own; called with 0, 1, ... Both have been checked.
        settings: budget, margin, confidence, seed of the lots.
        clock: seconds.
        interruption: what else than the kernels shaped what was timed since it was last asked; empty for nothing.
    """
    lots = random.Random(settings.seed)
    began = clock()
    sides = arrange(0)
    arranged_at = 0
    # The first time compiles; what a later one costs is known after the second.
    arranging_s = clock() - began
    spent_arranging, arrangements = 0.0, 1
    began = clock()
    counts = (launches_per_leg(sides[0], settings.leg_s), launches_per_leg(sides[1], settings.leg_s))
    pilot = clock()
    pilots = 0
    while pilots < PILOT_QUADS and clock() - pilot <= PILOT_SHARE * settings.budget_s:
        _quad(sides, counts, lots.random() < 0.5)
        pilots += 1
    quad_s = max((clock() - pilot) / max(pilots, 1), 1e-6)
    most = min(max(int((began + settings.budget_s - clock()) / quad_s), 1), MOST_QUADS)
    found = Quads(*counts, planned_looks(most))
    order: list[bool] = []
    while True:
        index = len(found.a_s)
        allowed = ARRANGING_SHARE * settings.budget_s
        if index - arranged_at >= ROUND_QUADS and spent_arranging + arranging_s <= _so_far(allowed, index, most):
            start = clock()
            sides = arrange(arrangements)
            arrangements += 1
            arranged_at = index
            arranging_s = clock() - start
            spent_arranging += arranging_s
        order = order or lots.choice(([True, False], [False, True]))
        first, *order = order
        interruption()
        a, b = _quad(sides, counts, first)
        found.a_s.append(a)
        found.b_s.append(b)
        found.a_first.append(first)
        found.arrangement.append(arrangements - 1)
        cause = interruption()
        if cause and len(found.left_out) + 1 <= MOST_LEFT_OUT * (index + 1):
            found.left_out[index] = cause
        found.measured_s = clock() - began
        if index not in found.left_out and _decided(found, settings):
            return found
        if found.measured_s >= settings.budget_s and found.used:
            return found


def _so_far(allowed: float, index: int, most: int) -> float:
    """Seconds of arranging allowed after ``index`` quads: most early on, because a clear case ends early."""
    return allowed * min(1.0, 0.25 + index / most)


def _decided(found: Quads, settings: QuadSettings) -> bool:
    used = found.used
    if len(used) not in found.looks:
        return False
    values = log_ratios([found.a_s[i] for i in used], [found.b_s[i] for i in used])
    interval = sequential_interval(values, found.looks, settings.confidence)
    last = len(used) == found.looks[-1]
    if last or settings.whole_budget:
        return last
    return verdict(interval.log_low, interval.log_high, settings.margin) != "unclear"


def _quad(
    sides: tuple[Side, Side], counts: tuple[int, int], a_first: bool
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Both legs of A and of B, seconds per launch."""
    legs: tuple[list[float], list[float]] = ([], [])
    first = 0 if a_first else 1
    for index in (first, 1 - first):
        sides[index].begin(2 * (counts[index] + 1))
    for index in (first, 1 - first, 1 - first, first):
        legs[index].append(sides[index].leg(counts[index]) / counts[index])
    for index in (first, 1 - first):
        sides[index].end()
    return (legs[0][0], legs[0][1]), (legs[1][0], legs[1][1])


def launches_per_leg(side: Side, leg_s: float) -> int:
    """Launches that take about ``leg_s``, from the fastest of a few tries after the side is warm."""
    count = 1
    while True:
        side.begin(4 * count + 3)
        first = side.leg(count)
        # A launch that long is a leg of its own, whatever two more would say.
        more = [] if count == 1 and first > LONG_LEGS * leg_s else [side.leg(count) for _ in range(2)]
        fastest = min([first, *more]) / count
        side.end()
        if fastest * count >= leg_s / 4.0 or count >= 1 << 20:
            return max(1, math.ceil(leg_s / max(fastest, 1e-9)))
        count = min(count * 4, max(1, math.ceil(leg_s / max(fastest, 1e-9))))
