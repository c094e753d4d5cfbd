"""What a card did during a block, from clocks and counters, and when that spoils the block.

Clocks, power and temperature are sampled by a thread beside the launches. Limits come from the driver's counters of
limited time, because a bit mask read now and then misses what happens between two looks.
"""

from __future__ import annotations

import statistics
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ridgeline.bench.devices.unit import Observed, Watch
from ridgeline.results.measurement import Conditions

SAMPLE_EVERY_S = 0.005
"""Four looks in the shortest block; a look takes 0.1 ms or less on most drivers, outside of Python's lock."""
LIMIT_SHARES: Mapping[str, float] = {
    "power brake": 0.0,
    "thermal limit": 0.01,
    "reliability limit": 0.01,
    "board limit": 0.01,
    "power limit": 0.05,
}
"""Share of a block that each limit may hold the clocks down before the block does not count, the gravest first. A power
cap is touched for moments by every heavy kernel; heat and the power brake of the board are never part of a kernel."""
RAMP_RISE = 1.05
"""Within a block the clock rose by more than 5 %: the card was still waking up."""
LOWER_CLOCK = 0.9
"""Share of the clock seen before under which a block does not count; nvbench drops samples under 0.75 of it."""
SETTLED_BLOCKS = 10
"""Blocks in a row at a lower clock after which this is how the card runs."""


@dataclass(frozen=True)
class CardSample:
    """The card at one moment; ``None`` for what it does not tell."""

    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None


@dataclass(frozen=True)
class CardCounters:
    """Counters of the card at one moment."""

    at_s: float
    limited_s: Mapping[str, float] = field(default_factory=dict)
    """Time since some beginning for which each limit held the clocks down; only those that the driver counts."""


class CardReader(ABC):
    """Reads one card; the real one is NVML's, tests script their own."""

    @abstractmethod
    def sample(self) -> CardSample:
        """Clocks, power and temperature now."""

    @abstractmethod
    def counters(self) -> CardCounters:
        """Counters now."""

    @abstractmethod
    def others(self) -> int | None:
        """Other processes that compute on the card; ``None`` where this cannot be seen."""


def limits_between(before: CardCounters, after: CardCounters) -> dict[str, float]:
    """Seconds that each limit held between two readings; counters that went backwards (a reset) are left out."""
    return {
        cause: after.limited_s[cause] - before.limited_s[cause]
        for cause in before.limited_s
        if cause in after.limited_s and after.limited_s[cause] >= before.limited_s[cause]
    }


def limit_cause(limited_s: Mapping[str, float], elapsed_s: float) -> str:
    """The gravest limit that held for more than its share of ``elapsed_s``; empty for none."""
    for cause, share in LIMIT_SHARES.items():
        if limited_s.get(cause, 0.0) > share * elapsed_s:
            return cause
    return ""


def median_of(samples: Sequence[CardSample], name: str) -> float | None:
    """Median of one field over the samples that have it."""
    found = [value for sample in samples if (value := getattr(sample, name)) is not None]
    return statistics.median(found) if found else None


class ClockReference:
    """The SM clock that blocks are held against: the highest seen, until the card settles at a lower one."""

    def __init__(self) -> None:
        self._reference_mhz: float | None = None
        self._lower: list[float] = []

    def judge(self, clocks_mhz: Sequence[float]) -> str:
        """``clock ramp`` where the clock rose within the block, ``lower clock`` where it was seen higher before."""
        if not clocks_mhz:
            return ""
        median = statistics.median(clocks_mhz)
        half = len(clocks_mhz) // 2
        if half and statistics.median(clocks_mhz[-half:]) > RAMP_RISE * statistics.median(clocks_mhz[:half]):
            return "clock ramp"
        if self._reference_mhz is None or median >= LOWER_CLOCK * self._reference_mhz:
            self._reference_mhz = max(median, self._reference_mhz or 0.0)
            self._lower.clear()
            return ""
        self._lower.append(median)
        if len(self._lower) >= SETTLED_BLOCKS:
            self._reference_mhz = max(self._lower)
            self._lower.clear()
            return ""
        return "lower clock"


def conditions(samples: Sequence[CardSample], limited_s: Mapping[str, float] | None) -> Conditions:
    """The stored conditions of a block. Limits may hold together, so the longest one is the time limited."""
    return Conditions(
        clock_mhz=median_of(samples, "clock_mhz"),
        memory_clock_mhz=median_of(samples, "memory_clock_mhz"),
        power_w=median_of(samples, "power_w"),
        temperature_c=median_of(samples, "temperature_c"),
        limited_s=max(limited_s.values(), default=None) if limited_s is not None else None,
    )


class CardWatch(Watch):
    """Samples the card during a block and says whether the block counts.

    Args:
        reader: the card.
        exposed: how often, since it was last asked, the card may have waited for the host.
        every_s: seconds between samples.
    """

    def __init__(
        self, reader: CardReader, exposed: Callable[[], int] = lambda: 0, every_s: float = SAMPLE_EVERY_S
    ) -> None:
        self._reader = reader
        self._exposed = exposed
        self._every_s = every_s
        self._reference = ClockReference()
        self._samples: list[CardSample] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._before = CardCounters(time.monotonic())

    def begin(self) -> None:
        """As :meth:`Watch.begin`."""
        self._join()  # a block that ended in an exception left its thread
        self._exposed()
        self._samples, self._stop = [], threading.Event()
        self._before = self._reader.counters()
        self._thread = threading.Thread(
            target=self._run, args=(self._samples, self._stop), name="ridgeline-watch", daemon=True
        )
        self._thread.start()

    def end(self) -> Observed:
        """As :meth:`Watch.end`."""
        self._join()
        after = self._reader.counters()
        samples = self._samples or [self._reader.sample()]
        limited = limits_between(self._before, after)
        clocks = [sample.clock_mhz for sample in samples if sample.clock_mhz is not None]
        cause = "other processes" if self._reader.others() else ""
        cause = cause or limit_cause(limited, max(after.at_s - self._before.at_s, 1e-9))
        # A clock that a limit holds down is no ramp, and no reference for other blocks.
        cause = cause or self._reference.judge(clocks)
        if self._exposed() and not cause:
            cause = "launch exposed"
        return Observed(conditions(samples, limited), cause)

    def _join(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, samples: list[CardSample], stop: threading.Event) -> None:
        while not stop.wait(self._every_s):
            samples.append(self._reader.sample())


class NotWatched(Watch):
    """Where no counters can be read: blocks still do not count when the card waited for the host.

    Args:
        reason: why nothing is seen, one line; for the report and the doctor.
        exposed: as for :class:`CardWatch`.
    """

    def __init__(self, reason: str, exposed: Callable[[], int] = lambda: 0) -> None:
        self.reason = reason
        self._exposed = exposed

    def begin(self) -> None:
        """As :meth:`Watch.begin`."""
        self._exposed()

    def end(self) -> Observed:
        """As :meth:`Watch.end`."""
        return Observed(cause="launch exposed" if self._exposed() else "")
