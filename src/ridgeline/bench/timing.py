"""Timing: blocks of samples until the interval on the median is narrow enough or the budget is spent.

process > block > launch (Kalibera & Jones 2013). A block's median is one datum; blocks are what the interval is made
of, because launches that follow each other at once are correlated.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol as Interface

from ridgeline.analytical.statistics import Summary, summarise_medians
from ridgeline.bench.stopping import Progress, StopWhenNarrow
from ridgeline.workloads.suite import Settings

SAMPLE_S = 100e-6
"""Shortest sample. perf_counter costs 40 to 80 ns a call here, so this keeps the clock's share under 0.1 %."""
BLOCK_S = 20e-3
"""Shortest block: several scheduler ticks (4 ms at 250 Hz), so that one preemption is not a whole block."""
MOST_SAMPLES = 64
"""Samples kept in a block; short launches are grouped into longer samples instead."""


class Timer(Interface):
    """A clock for launches."""

    name: str

    def time(self, launch: Callable[[int], None], launches: int) -> float:
        """Seconds that ``launches`` launches took together."""
        ...


class PerfCounterTimer:
    """The monotonic clock of the host; a launch on the CPU has ended when its call returns."""

    name = "perf_counter"

    def time(self, launch: Callable[[int], None], launches: int) -> float:
        start = time.perf_counter_ns()
        launch(launches)
        return (time.perf_counter_ns() - start) * 1e-9


class Launches(Interface):
    """Something that can be launched again and again."""

    def launch(self, count: int) -> None:
        """Launch ``count`` times, one after the other."""
        ...

    def before_block(self, count: int) -> None:
        """Get ready for a block of ``count`` launches; not timed."""
        ...

    def after_block(self) -> None:
        """Look at what the block did; not timed."""
        ...


@dataclass(frozen=True)
class Timing:
    """Samples of one case in one process."""

    blocks: tuple[tuple[float, ...], ...]
    """Seconds per launch."""
    launches_per_sample: int
    summary: Summary
    unstable_reason: str
    """Empty when the target was met."""


def measure(
    launches: Launches, timer: Timer, settings: Settings, clock: Callable[[], float] = time.monotonic
) -> Timing:
    """Warm up, choose the sizes of samples and blocks, and time blocks until the rule or the budget says stop.

    Args:
        launches: what to time; it has been checked and launched at least once.
        timer: what times it.
        settings: target and budget.
        clock: seconds, for the budget.
    """
    rule = StopWhenNarrow(settings.target_relative)
    begun = clock()
    estimate_s = _warm_up(launches, timer)
    per_sample = max(1, math.ceil(SAMPLE_S / estimate_s))
    per_block = max(1, math.ceil(BLOCK_S / (per_sample * estimate_s)))
    if per_block > MOST_SAMPLES:
        per_sample = math.ceil(per_sample * per_block / MOST_SAMPLES)
        per_block = MOST_SAMPLES
    blocks: list[tuple[float, ...]] = []
    medians: list[float] = []
    measured_s = 0.0
    while True:
        launches.before_block(per_sample * per_block)
        samples = tuple(timer.time(launches.launch, per_sample) / per_sample for _ in range(per_block))
        launches.after_block()
        blocks.append(samples)
        measured_s += sum(samples) * per_sample
        medians.append(statistics.median(samples))
        summary = summarise_medians(medians, len(medians) * per_block)
        decision = rule.decide(Progress(summary, measured_s, clock() - begun), settings.budget_s)
        if decision.stop:
            return Timing(tuple(blocks), per_sample, summary, decision.unstable_reason)


def _warm_up(launches: Launches, timer: Timer) -> float:
    """Launch until two in a row agree within 20 % or 0.2 s have passed; seconds per launch at the end."""
    launches.before_block(1)
    previous = max(timer.time(launches.launch, 1), 1e-9)
    spent = previous
    while spent < 0.2:
        now = max(timer.time(launches.launch, 1), 1e-9)
        spent += now
        if abs(now - previous) <= 0.2 * previous and spent > 2e-3:
            previous = min(now, previous)
            break
        previous = now
    launches.after_block()
    return previous
