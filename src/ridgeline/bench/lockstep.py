"""Several ranks that measure one case in step: inside each of their workers.

Every rank runs the same timing loop on the same figures, because each figure that decides something is told to all
ranks before it is used: samples are those of the slowest rank, the clock and the choice of blocks to check are the
leader's, a disturbance of one rank disturbs the block of all. So all of them choose the same sizes, pause and stop at
the same moment, and no rank is left alone in a collective. They talk over a gloo group of their own, between blocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from ridgeline.bench.devices.unit import Observed, Session, Timer, Watch
from ridgeline.bench.launches import RotatingLaunches
from ridgeline.bench.timing import Timing, measure
from ridgeline.kernels import process_group
from ridgeline.results.measurement import Conditions
from ridgeline.workloads.suite import Settings

T = TypeVar("T")

START_S = 0.5e-3
"""From the moment the last rank is ready to the common start: telling that to all of them takes about 0.2 ms."""
BEYOND_S = 60.0
"""Ranks wait for each other for longer than the supervisor waits for them, so that it is the supervisor who ends a hang
and says which rank is to blame."""

_COMBINE: Mapping[str, Callable[[Sequence[float]], float]] = {
    "steal_s": max,
    "involuntary_switches": sum,
    "load_other": max,
    "clock_mhz": min,
    "memory_clock_mhz": min,
    "power_w": sum,
    "temperature_c": max,
    "limited_s": max,
}
"""What conditions of several ranks are together: those of the slowest or worst one, or what all of them add up to."""


@dataclass(frozen=True)
class Ranks:
    """This process and the other ranks of its case. All of them call the same methods in the same order."""

    rank: int
    ranks: int
    group: Any

    def tell(self, mine: T) -> list[T]:
        """Tell all ranks one's own value; the values of all, by rank. Returns when every rank has told its own."""
        told: list[Any] = [None] * self.ranks
        dist.all_gather_object(told, mine, group=self.group)
        return told

    def start(self) -> None:
        """Return in all ranks at the same moment: they share a host, and so its monotonic clock."""
        at_s = max(self.tell(time.perf_counter())) + START_S
        while time.perf_counter() < at_s:
            pass


def join(request: Mapping[str, Any], device: str, timeout_s: float) -> Ranks:
    """Meet the other ranks of the case that ``request`` asks for.

    Args:
        request: as the worker got it.
        device: torch device type.
        timeout_s: of the case.
    """
    rank, ranks = request["rank"], request["ranks"]
    process_group.join(Path(request["meeting"]), rank, ranks, device, timeout_s + BEYOND_S)
    group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s + BEYOND_S))
    return Ranks(rank, ranks, group)


def measure_in_step(ranks: Ranks, launches: RotatingLaunches, session: Session, settings: Settings) -> Timing:
    """As :func:`ridgeline.bench.timing.measure`, with the same result in every rank."""
    return measure(
        LaunchesInStep(launches, ranks),
        SlowestRank(session.timer, ranks),
        settings,
        WatchOfAll(session.watch, ranks),
        lambda: ranks.tell(session.clock())[0],
        session.sleep,
    )


class LaunchesInStep:
    """Launches that the leader decides to check or not."""

    def __init__(self, launches: RotatingLaunches, ranks: Ranks) -> None:
        self._launches = launches
        self._ranks = ranks

    def launch(self, count: int) -> None:
        self._launches.launch(count)

    def before_block(self, count: int) -> None:
        self._launches.before_block(count, check=self._ranks.tell(self._launches.affords_check())[0])

    def after_block(self) -> None:
        self._launches.after_block()


class SlowestRank(Timer):
    """Starts the ranks together; a sample is that of the rank that took longest for it."""

    def __init__(self, timer: Timer, ranks: Ranks) -> None:
        self.name = timer.name
        self._timer = timer
        self._ranks = ranks

    def time(self, launch: Callable[[int], None], launches: int) -> float:
        """As :meth:`Timer.time`."""
        self._ranks.start()
        return max(self._ranks.tell(self._timer.time(launch, launches)))

    def block(self, launch: Callable[[int], None], launches: int, samples: int) -> list[float]:
        """As :meth:`Timer.block`."""
        self._ranks.start()
        return slowest(self._ranks.tell(self._timer.block(launch, launches, samples)))


class WatchOfAll(Watch):
    """What all ranks saw; what they do themselves is nobody else's doing."""

    def __init__(self, watch: Watch, ranks: Ranks) -> None:
        self._watch = watch
        self._ranks = ranks

    def begin(self) -> None:
        """As :meth:`Watch.begin`, in all ranks at about the same time: what one does before it has begun to watch would
        look to the others like another process."""
        self._ranks.tell(None)
        self._watch.begin()

    def end(self) -> Observed:
        """As :meth:`Watch.end`."""
        return seen_together(self._ranks.tell(self._watch.end_among(lambda own_s: sum(self._ranks.tell(own_s)))))


def slowest(samples_of_ranks: Sequence[Sequence[float]]) -> list[float]:
    """Of each sample the time of the rank that took longest for it."""
    return [max(sample) for sample in zip(*samples_of_ranks, strict=True)]


def seen_together(seen: Sequence[Observed]) -> Observed:
    """What several ranks saw of one block: the first cause that spoils it for any of them spoils it for all."""
    conditions: dict[str, float] = {}
    for name, combine in _COMBINE.items():
        values = [value for one in seen if (value := getattr(one.conditions, name)) is not None]
        if values:
            conditions[name] = combine(values)
    return Observed(Conditions.model_validate(conditions), next((one.cause for one in seen if one.cause), ""))


def facts_together(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of several ranks as those of one case: the largest of each, and all rows that were checked."""
    found = {}
    for name in facts[0]:
        values = [one[name] for one in facts if one[name] is not None]
        found[name] = (sum if name == "rows_checked" else max)(values) if values else None
    return found
