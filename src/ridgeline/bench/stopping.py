"""When to stop measuring: small rules that each look at one thing, and the one class that puts them together.

Asked again and again, a rule of the width alone would stop at the first lucky streak. So the interval counts only
when it stands on enough blocks, enough measured time, and enough *independent* blocks; `make bench-coverage` shows that
the interval still covers where it stops by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol as Interface

from ridgeline.analytical.autocorrelation import BELIEVABLE
from ridgeline.analytical.statistics import Summary

MIN_BLOCKS = 10
MIN_MEASURED_S = 0.5
MIN_INDEPENDENT = BELIEVABLE
"""Without this rule a series with rho = 0.9 stops where its autocorrelation time is underestimated, and its interval
held the truth in 79 to 92 % of runs instead of 92 to 96 %."""
SHORT_POWER = 3.0
SHORT_BLOCKS = 60
"""Fewer will do in so many blocks where the interval is that power of their shortage under its target: a card whose blocks
differ by 0.03 % and follow each other closely (seen on an H200) need not be watched for long to know its time to 5 %. Of
750 series with rho = 0.9, 92 % of the intervals at a stop at 1.5 % hold the truth, as without this; 90 % where fewer
blocks will do, 88 and 84 % (of 200) with the second and the first power."""

LONG_MEMORY = 5.0
"""Autocorrelation time, in blocks, from which ``LONG_MEMORY_BLOCKS`` are asked for, unless the interval is within
``FAR_UNDER`` of its target."""
LONG_MEMORY_BLOCKS = 300
FAR_UNDER = 0.5
LOOKS = 32
"""From one look at the interval to the next there is this part more blocks: looking after each of 300 took 2 % of the time."""


@dataclass(frozen=True)
class Progress:
    """What is known after a block."""

    summary: Summary
    measured_s: float
    """Time inside timed samples."""
    elapsed_s: float
    """Time since timing began, with everything between the samples."""


class Rule(Interface):
    """One thing that measuring waits for."""

    def missing(self, progress: Progress) -> str:
        """What is missing, a few words for people; empty when nothing is."""
        ...

    def more_seconds(self, progress: Progress) -> float:
        """About how many more seconds it takes; 0 when nothing is missing."""
        ...


@dataclass(frozen=True)
class EnoughBlocks:
    """At least ``least`` blocks."""

    least: int = MIN_BLOCKS

    def missing(self, progress: Progress) -> str:
        n = progress.summary.n_blocks
        return f"only {n} of {self.least} blocks" if n < self.least else ""

    def more_seconds(self, progress: Progress) -> float:
        return _by_growth(progress.elapsed_s, self.least / progress.summary.n_blocks)


@dataclass(frozen=True)
class EnoughMeasured:
    """At least ``least_s`` seconds inside timed samples."""

    least_s: float = MIN_MEASURED_S

    def missing(self, progress: Progress) -> str:
        if progress.measured_s >= self.least_s:
            return ""
        return f"only {progress.measured_s:.2g} of {self.least_s:g} s measured"

    def more_seconds(self, progress: Progress) -> float:
        if progress.measured_s <= 0.0:
            return self.least_s
        return _by_growth(progress.elapsed_s, self.least_s / progress.measured_s)


@dataclass(frozen=True)
class EnoughIndependent:
    """Blocks worth at least ``least`` independent ones, or an interval so far under its target that fewer will do."""

    target_relative: float
    least: float = MIN_INDEPENDENT

    def missing(self, progress: Progress) -> str:
        n = progress.summary.n_effective
        return f"only {n:.1f} of {self.least:g} independent blocks" if self._growth(progress) > 1.0 else ""

    def more_seconds(self, progress: Progress) -> float:
        return _by_growth(progress.elapsed_s, self._growth(progress))

    def _growth(self, progress: Progress) -> float:
        """Times the present length at which one of the two holds; at most 1 where one does."""
        short = self.least / progress.summary.n_effective
        wide = short**SHORT_POWER * progress.summary.half_width_relative / self.target_relative
        # The half-width falls with the root of the time, the shortage with the time itself.
        wide **= 1.0 / (SHORT_POWER + 0.5)
        return min(short, max(wide, SHORT_BLOCKS / progress.summary.n_blocks))


@dataclass(frozen=True)
class LongMemory:
    """Many blocks where they hang together over many, or an interval far under its target.

    A long autocorrelation time is known from few stretches of blocks, and measuring that stops at the first narrow
    interval stops where the time came out short. Of 700 series with rho = 0.9, 90 % of those that stop at 1 % (half of
    a block's standard deviation) hold the truth with this rule and 86 % without it: 60 % of those that had fewer than
    150 blocks then, 71 % of those with fewer than 200, 97 % from 300 on.
    """

    target_relative: float

    def missing(self, progress: Progress) -> str:
        summary = progress.summary
        if self._growth(progress) <= 1.0:
            return ""
        memory = summary.n_blocks / summary.n_effective
        return f"only {summary.n_blocks} of {LONG_MEMORY_BLOCKS} blocks, which hang together over {memory:.0f}"

    def more_seconds(self, progress: Progress) -> float:
        return _by_growth(progress.elapsed_s, self._growth(progress))

    def _growth(self, progress: Progress) -> float:
        summary = progress.summary
        if summary.n_blocks <= LONG_MEMORY * summary.n_effective:
            return 1.0
        wide = (summary.half_width_relative / (FAR_UNDER * self.target_relative)) ** 2
        return min(wide, LONG_MEMORY_BLOCKS / summary.n_blocks)


@dataclass(frozen=True)
class IntervalNarrow:
    """Half of the interval's width over the median at most ``target_relative``."""

    target_relative: float

    def missing(self, progress: Progress) -> str:
        summary = progress.summary
        if math.isinf(summary.half_width_relative):
            return f"only {summary.n_effective:.1f} independent blocks, no interval"
        if summary.half_width_relative > self.target_relative:
            return f"interval is ±{summary.half_width_relative:.1%}, target ±{self.target_relative * 100:.3g}%"
        return ""

    def more_seconds(self, progress: Progress) -> float:
        """The half-width shrinks with the root of the time; where there is none yet, time for one is all that is known."""
        summary = progress.summary
        if math.isinf(summary.half_width_relative):
            return progress.elapsed_s * max(1.0, MIN_INDEPENDENT / summary.n_effective - 1.0)
        return _by_growth(progress.elapsed_s, (summary.half_width_relative / self.target_relative) ** 2)


@dataclass(frozen=True)
class BudgetSpent:
    """No time is left. Two blocks are measured all the same: one alone has no spread at all.

    ``extra_s`` more are there for a case that will probably end within them, not for one that needs minutes.
    """

    budget_s: float
    extra_s: float = 0.0

    def met(self, progress: Progress, more_s: float) -> bool:
        if progress.elapsed_s < self.budget_s or progress.summary.n_blocks < 2:
            return False
        return progress.elapsed_s + more_s > self.budget_s + self.extra_s


@dataclass(frozen=True)
class OutOfReach:
    """The time still needed is ``times`` the whole budget or more: another try with the same budget will not do."""

    budget_s: float
    times: float = 10.0

    def met(self, more_s: float) -> bool:
        return more_s >= self.times * self.budget_s


@dataclass(frozen=True)
class Decision:
    """What to do after a block."""

    stop: bool
    unstable_reason: str = ""
    """Why the measurement is not good enough though it stops; empty when it is, or goes on."""


@dataclass(frozen=True)
class StopWhenNarrow:
    """Stop when there are enough blocks, time and independent blocks, and the interval is under its target."""

    target_relative: float
    min_blocks: int = MIN_BLOCKS
    min_measured_s: float = MIN_MEASURED_S
    min_independent: float = MIN_INDEPENDENT

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All that must hold; the one that people ask about first comes first."""
        return (
            IntervalNarrow(self.target_relative),
            EnoughBlocks(self.min_blocks),
            EnoughIndependent(self.target_relative, self.min_independent),
            LongMemory(self.target_relative),
            EnoughMeasured(self.min_measured_s),
        )

    def may_be_satisfied(self, n_blocks: int, measured_s: float) -> bool:
        """Whether an interval is worth its half millisecond: before, there are too few blocks or too little time."""
        return n_blocks >= self.min_blocks and measured_s >= self.min_measured_s

    def next_look(self, n_blocks: int) -> int:
        """At how many blocks to look at the interval again, after a look at ``n_blocks``."""
        return n_blocks + max(1, n_blocks // LOOKS)

    def satisfied(self, summary: Summary, measured_s: float) -> bool:
        """Whether nothing more is needed."""
        progress = Progress(summary, measured_s, measured_s)
        return not any(rule.missing(progress) for rule in self.rules)

    def more_seconds(self, progress: Progress) -> float:
        """About how many more seconds until all rules hold; 0 when they do."""
        return max(rule.more_seconds(progress) for rule in self.rules)

    def decide(self, progress: Progress, budget_s: float, extra_s: float = 0.0) -> Decision:
        """Stop, with or without success, or go on."""
        if self.satisfied(progress.summary, progress.measured_s):
            return Decision(stop=True)
        if BudgetSpent(budget_s, extra_s).met(progress, self.more_seconds(progress)):
            return Decision(stop=True, unstable_reason=self.reason(progress, budget_s))
        return Decision(stop=False)

    def reason(self, progress: Progress, budget_s: float) -> str:
        """One line: what is missing, and what it would take."""
        narrow, *others = (rule.missing(progress) for rule in self.rules)
        seen = narrow or "interval meets its target, but from " + " and ".join(filter(None, others))
        more_s = self.more_seconds(progress)
        line = f"{seen} after {progress.elapsed_s:.1f} s; needs about {max(1, math.ceil(more_s))} more seconds"
        if OutOfReach(budget_s).met(more_s):
            half = progress.summary.half_width_relative
            within = "" if math.isinf(half) else f": ±{half:.1%} is what it gives"
            line += f", which the budget of {budget_s:g} s cannot reach{within}"
        return line


def _by_growth(elapsed_s: float, growth: float) -> float:
    """Seconds until what grows with time has grown by this factor."""
    return elapsed_s * max(0.0, growth - 1.0)
