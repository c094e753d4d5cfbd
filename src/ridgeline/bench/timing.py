"""Timing: blocks of samples until the interval on the median is narrow enough or the budget is spent.

process > block > launch (Kalibera & Jones 2013). A block's median is one datum; blocks are what the interval is made
of, because launches that follow each other at once are correlated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol as Interface

from ridgeline.analytical.statistics import Summary, summarise
from ridgeline.workloads.suite import Settings

SAMPLE_S = 100e-6
"""Shortest sample. perf_counter costs 40 to 80 ns a call here, so this keeps the clock's share under 0.1 %."""
BLOCK_S = 20e-3
"""Shortest block: several scheduler ticks (4 ms at 250 Hz), so that one preemption is not a whole block."""
MIN_BLOCKS = 10
MIN_MEASURED_S = 0.2
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
class StopWhenNarrow:
    """Stop when there are enough blocks, enough measured time, and the interval is under its target."""

    target_relative: float
    min_blocks: int = MIN_BLOCKS
    min_measured_s: float = MIN_MEASURED_S

    def satisfied(self, summary: Summary, measured_s: float) -> bool:
        """Whether nothing more is needed."""
        return (
            summary.n_blocks >= self.min_blocks
            and measured_s >= self.min_measured_s
            and summary.half_width_relative <= self.target_relative
        )

    def more_seconds(self, summary: Summary, elapsed_s: float) -> float:
        """About how many more seconds the target takes, as the half-width shrinks with the root of the blocks."""
        if math.isinf(summary.half_width_relative):
            return elapsed_s * (2.0 * self.min_blocks / summary.n_blocks)
        needed = summary.n_blocks * (summary.half_width_relative / self.target_relative) ** 2
        return elapsed_s * max(0.0, max(needed, self.min_blocks) / summary.n_blocks - 1.0)


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
    measured_s = 0.0
    while True:
        launches.before_block(per_sample * per_block)
        samples = tuple(timer.time(launches.launch, per_sample) / per_sample for _ in range(per_block))
        launches.after_block()
        blocks.append(samples)
        measured_s += sum(samples) * per_sample
        summary = summarise(blocks)
        if rule.satisfied(summary, measured_s):
            return Timing(tuple(blocks), per_sample, summary, "")
        elapsed_s = clock() - begun
        if elapsed_s >= settings.budget_s and len(blocks) >= 2:
            return Timing(tuple(blocks), per_sample, summary, _unstable(rule, summary, elapsed_s, settings))


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


def _unstable(rule: StopWhenNarrow, summary: Summary, elapsed_s: float, settings: Settings) -> str:
    more = max(1, math.ceil(rule.more_seconds(summary, elapsed_s)))
    if math.isinf(summary.half_width_relative):
        seen = f"only {summary.n_effective:.1f} independent blocks, no interval"
    elif summary.half_width_relative > rule.target_relative:
        seen = f"interval is ±{summary.half_width_relative:.1%}, target ±{settings.target_relative * 100:.3g}%"
    else:
        seen = f"interval meets its target, but from only {summary.n_blocks} of {rule.min_blocks} blocks"
    return f"{seen} after {elapsed_s:.1f} s; needs about {more} more seconds"
