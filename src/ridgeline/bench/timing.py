"""Timing: blocks of samples until the interval on the median is narrow enough or the budget is spent.

process > block > launch (Kalibera & Jones 2013). A block's median is one datum; blocks are what the interval is made
of, because launches that follow each other at once are correlated.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Interface

from ridgeline.analytical.statistics import Summary, summarise, summarise_medians
from ridgeline.bench.devices.unit import Timer, Unwatched, Watch
from ridgeline.bench.stopping import Progress, StopWhenNarrow
from ridgeline.results.measurement import Conditions, LeftOutBlock
from ridgeline.workloads.suite import Settings

SAMPLE_S = 100e-6
"""Shortest sample. perf_counter costs 40 to 80 ns a call here, so this keeps the clock's share under 0.1 %."""
BLOCK_S = 20e-3
"""Shortest block: several scheduler ticks (4 ms at 250 Hz), so that one preemption is not a whole block."""
MOST_SAMPLES = 64
"""Samples kept in a block; short launches are grouped into longer samples instead."""
PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.6
"""After a disturbed block the loop waits, twice as long each time in a row, so that what disturbs it can pass."""


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
    conditions: tuple[Conditions, ...]
    """One per block."""
    left_out: tuple[LeftOutBlock, ...]
    """Blocks that do not count."""
    launches_per_sample: int
    summary: Summary
    """Of the blocks that count."""
    unstable_reason: str
    """Empty when the target was met."""

    def to_fields(self) -> dict[str, Any]:
        """The fields of a record, as JSON takes them."""
        return {
            "status": "unstable" if self.unstable_reason else "ok",
            "reason": self.unstable_reason,
            "samples_s": self.blocks,
            "conditions": [block.model_dump() for block in self.conditions],
            "left_out": [block.model_dump() for block in self.left_out],
            "launches_per_sample": self.launches_per_sample,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Timing:
        """The timing that gave these fields."""
        left_out = tuple(LeftOutBlock.model_validate(block) for block in fields["left_out"])
        blocks = tuple(tuple(block) for block in fields["samples_s"])
        out = {left.block for left in left_out}
        return cls(
            blocks,
            tuple(Conditions.model_validate(block) for block in fields["conditions"]),
            left_out,
            fields["launches_per_sample"],
            summarise([block for index, block in enumerate(blocks) if index not in out]),
            fields["reason"],
        )


def measure(
    launches: Launches,
    timer: Timer,
    settings: Settings,
    watch: Watch | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Timing:
    """Warm up, choose the sizes of samples and blocks, and time blocks until the rule or the budget says stop.

    A block that something else than the kernel shaped is kept but does not count, and a growing pause follows it.
    Where every block was disturbed they all count, and the result is unstable: it is never empty.

    Args:
        launches: what to time; it has been checked and launched at least once.
        timer: what times it.
        settings: target and budget.
        watch: what looks at the machine during each block.
        clock: seconds, for the budget.
        sleep: how to pause.
    """
    rule = StopWhenNarrow(settings.target_relative)
    watch = watch or Unwatched()
    begun = clock()
    estimate_s = _warm_up(launches, timer)
    per_sample = max(1, math.ceil(SAMPLE_S / estimate_s))
    per_block = max(1, math.ceil(BLOCK_S / (per_sample * estimate_s)))
    if per_block > MOST_SAMPLES:
        # Longer samples, and as many as fill the block: 64 of two launches of 0.28 ms would be a block of 36 ms.
        per_sample = math.ceil(per_sample * per_block / MOST_SAMPLES)
        per_block = max(1, math.ceil(BLOCK_S / (per_sample * estimate_s)))
    blocks: list[tuple[float, ...]] = []
    medians: list[float] = []
    conditions: list[Conditions] = []
    left_out: list[LeftOutBlock] = []
    measured_s = 0.0
    next_look = 0
    pause_s = PAUSE_S
    while True:
        launches.before_block(per_sample * per_block)
        watch.begin()
        samples = tuple(s / per_sample for s in timer.block(launches.launch, per_sample, per_block))
        observed = watch.end()
        launches.after_block()
        blocks.append(samples)
        conditions.append(observed.conditions)
        if observed.cause:
            left_out.append(LeftOutBlock(block=len(blocks) - 1, cause=observed.cause))
        else:
            medians.append(statistics.median(samples))
            measured_s += sum(samples) * per_sample
            pause_s = PAUSE_S
        elapsed_s = clock() - begun
        spent = elapsed_s >= settings.budget_s
        look = len(medians) >= next_look and rule.may_be_satisfied(len(medians), measured_s)
        if len(medians) >= 2 and (spent or look):
            next_look = rule.next_look(len(medians))
            summary = summarise_medians(medians, len(medians) * per_block)
            decision = rule.decide(Progress(summary, measured_s, elapsed_s), settings.budget_s, settings.extra_s)
            if decision.stop:
                reason = decision.unstable_reason
                if reason and left_out:
                    reason += f"; {len(left_out)} of {len(blocks)} blocks left out ({_causes(left_out)})"
                return Timing(tuple(blocks), tuple(conditions), tuple(left_out), per_sample, summary, reason)
        elif spent and len(medians) < 2 <= len(blocks):
            reason = (
                f"{len(left_out)} of {len(blocks)} blocks were disturbed ({_causes(left_out)}), so all of them count"
            )
            return Timing(tuple(blocks), tuple(conditions), (), per_sample, summarise(blocks), reason)
        if observed.cause:
            sleep(min(pause_s, max(0.0, settings.budget_s - elapsed_s)))
            pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)


def _causes(left_out: Sequence[LeftOutBlock]) -> str:
    counts = Counter(block.cause for block in left_out)
    return ", ".join(f"{count} by {cause}" for cause, count in counts.most_common())


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
