"""One window: keep the device busy, or at rest, and read the sensor until the window is over.

The clock is injected and no thread is used: launches, polls and the side channel take turns, so that a test plays the
same window twice. A launch may be asynchronous (CUDA: it enqueues) or may return when it is done (CPU); which of both
is seen from the clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from ridgeline.analytical.energy import Edge, UpdateProfile, counter_edges
from ridgeline.bench.energy.source import DeviceState, EnergySource, MeterFault

LEAD_S = 0.05
"""Work that is queued ahead on an asynchronous device, so that it never starves between two polls."""
CHUNK_S = 0.004
"""Aimed length of the launches handed over together: the longest that a poll waits on a synchronous device."""
POLL_S = 0.0005
"""Time between polls where a change is expected."""
SIDE_S = 0.1
"""Time between looks at the side channel."""
FROZEN_PERIODS = 10.0
FROZEN_S = 2.0
"""A counter that does not change for both under load is frozen."""
SUSPENDED_S = 5.0
"""Time between two polls, beyond the work between them, that says the host was suspended or its clock jumped."""


@dataclass(frozen=True)
class Hands:
    """Clock and sleep, seconds."""

    clock: Callable[[], float]
    sleep: Callable[[float], None]


class Load:
    """Launches of one kernel, enough to keep the device busy."""

    def __init__(
        self, launch: Callable[[int], None], synchronize: Callable[[], None], launch_s: float, hands: Hands
    ) -> None:
        if not launch_s > 0.0:
            raise ValueError(f"launch_s must be positive, not {launch_s}")
        self._launch, self._synchronize, self._hands = launch, synchronize, hands
        self.launch_s = launch_s
        self.launches = 0
        self.started_s = 0.0
        self.stopped_s = 0.0
        self._queued_until_s = 0.0
        self._blocking = False

    @property
    def chunk(self) -> int:
        """Launches handed over together."""
        return max(1, round(CHUNK_S / self.launch_s))

    @property
    def chunk_s(self) -> float:
        """Seconds of one chunk."""
        return self.chunk * self.launch_s

    def start(self) -> None:
        """Begin from an idle device."""
        self._synchronize()
        self.launches = 0
        self.started_s = self._queued_until_s = self._hands.clock()

    def feed(self) -> None:
        """Hand over work until the device has enough for a while."""
        while True:
            now = self._hands.clock()
            self._queued_until_s = max(self._queued_until_s, now)
            if self._queued_until_s - now >= LEAD_S:
                return
            self._launch(self.chunk)
            self.launches += self.chunk
            after = self._hands.clock()
            if after - now > 0.5 * self.chunk_s:  # it waited: synchronous, or a full queue
                self._blocking = True
                self._queued_until_s = after
                return
            self._blocking = False
            self._queued_until_s += self.chunk_s

    def wait(self, seconds: float) -> None:
        """Let time pass without letting the device idle."""
        if not self._blocking and seconds > 0.0:
            self._hands.sleep(min(seconds, LEAD_S / 2.0))

    def stop(self) -> float:
        """Wait for the last launch; seconds per launch since :meth:`start`."""
        self._synchronize()
        self.stopped_s = self._hands.clock()
        return (self.stopped_s - self.started_s) / self.launches if self.launches else 0.0


class Rest:
    """Nothing runs."""

    launches = 0
    chunk_s = 0.0

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self.started_s = self.stopped_s = 0.0

    def start(self) -> None:
        """Note the start."""
        self.started_s = self._hands.clock()

    def feed(self) -> None:
        """Nothing to do."""

    def wait(self, seconds: float) -> None:
        """Sleep."""
        self._hands.sleep(seconds)

    def stop(self) -> float:
        """Note the end."""
        self.stopped_s = self._hands.clock()
        return 0.0


@dataclass
class WindowTrace:
    """What was read during one window."""

    started_s: float = 0.0
    """Start of the load."""
    stopped_s: float = 0.0
    """End of the load."""
    launches: int = 0
    launch_s: float = 0.0
    """Seconds per launch over the whole load."""
    edges: list[Edge] = field(default_factory=list)
    """Changes of the counter."""
    first_j: float | None = None
    """Counter before the load."""
    last_j: float | None = None
    """Counter after the load."""
    power: list[tuple[float, float]] = field(default_factory=list)
    """Time and watts."""
    states: list[tuple[float, DeviceState]] = field(default_factory=list)
    """Time and look at the side channel."""


def run_window(
    source: EnergySource,
    load: Load | Rest,
    hands: Hands,
    window_s: float,
    profile: UpdateProfile | None,
    *,
    counter: bool = True,
    dense: bool = False,
    most_edges: int | None = None,
) -> WindowTrace:
    """Read the sensor over one window.

    With a counter the window goes from one change of it to the first change after ``window_s``, the device being busy
    before and after. Between, polls are rare: reading disturbs. Without a counter, power is read over ``window_s``.

    Args:
        source: the meter.
        load: what runs meanwhile.
        hands: clock and sleep.
        window_s: least time between first and last change.
        profile: how the counter moves; ``None`` polls densely throughout.
        counter: read the counter, not the power.
        dense: poll densely throughout, to learn the counter's period.
        most_edges: end at so many changes.

    Raises:
        MeterFault: of the meter; ``sensor_frozen``, ``counter_reset``, ``clock_jump``. The load is stopped first.
    """
    trace = WindowTrace()
    load.start()
    try:
        trace.states.append((hands.clock(), source.state()))
        if counter:
            _follow_counter(source, load, hands, window_s, profile, trace, dense, most_edges)
        else:
            _follow_power(source, load, hands, window_s, profile, trace)
        trace.states.append((hands.clock(), source.state()))
    finally:
        trace.launch_s = load.stop()
        trace.started_s, trace.stopped_s, trace.launches = load.started_s, load.stopped_s, load.launches
    return trace


class _Watch:
    """Guards the time between polls."""

    def __init__(self, hands: Hands, load: Load | Rest) -> None:
        self._hands, self._load = hands, load
        self._last_s = hands.clock()

    def look(self, waited_s: float) -> float:
        now = self._hands.clock()
        passed = now - self._last_s
        self._last_s = now
        if passed < 0.0:
            raise MeterFault("clock_jump", "the host's clock went backwards during the window")
        if passed > SUSPENDED_S + 10.0 * (self._load.chunk_s + waited_s):
            raise MeterFault("clock_jump", f"{passed:.1f} s between two readings: the host was suspended or stalled")
        return now


def _follow_counter(
    source: EnergySource,
    load: Load | Rest,
    hands: Hands,
    window_s: float,
    profile: UpdateProfile | None,
    trace: WindowTrace,
    dense: bool,
    most_edges: int | None,
) -> None:
    period = profile.period_s if profile else 0.1
    guard = 4.0 * profile.jitter_s + 2.0 * POLL_S if profile else period
    known = profile.period_s if profile else None
    wanted = max(1, math.ceil(window_s / period - 0.01))
    frozen_s = max(FROZEN_PERIODS * period, FROZEN_S)
    watch = _Watch(hands, load)
    last_j = source.energy_j()
    last_s = changed_s = hands.clock()
    next_side_s = last_s + SIDE_S
    trace.first_j = last_j
    waited = 0.0
    while True:
        load.feed()
        before = hands.clock()
        value = source.energy_j()
        now = (before + watch.look(waited)) / 2.0
        if value < last_j:
            raise MeterFault("counter_reset", "the energy counter went backwards: reset, or the driver was reloaded")
        if value > last_j:
            trace.edges += counter_edges([last_s, now], [last_j, value], known)
            changed_s = now
        elif now - changed_s > frozen_s:
            raise MeterFault("sensor_frozen", f"the energy counter did not change for {now - changed_s:.1f} s")
        last_s, last_j = now, value
        trace.last_j = value
        edges = trace.edges
        # Counted in whole periods: to end at the first change after a time would prefer late changes, which biased
        # windows of 0.5 s by -0.09 % at 2 ms jitter.
        done = bool(edges) and round((edges[-1].time_s - edges[0].time_s) / period) >= wanted
        if done or (most_edges is not None and len(edges) >= most_edges):
            return
        closing = bool(edges) and now >= edges[0].time_s + (wanted - 1.5) * period
        if not closing and now >= next_side_s:
            trace.states.append((now, source.state()))
            next_side_s = now + max(SIDE_S, period / 2.0)
        waited = POLL_S
        if edges and not dense:
            # A change is due a period after the last: only the one that closes the window is worth polling finely.
            due = edges[-1].time_s - edges[-1].bracket_s / 2.0 + period - guard - now
            waited = max(POLL_S, due if closing else max(due, period / 4.0))
        load.wait(waited)


def _follow_power(
    source: EnergySource,
    load: Load | Rest,
    hands: Hands,
    window_s: float,
    profile: UpdateProfile | None,
    trace: WindowTrace,
) -> None:
    pause = max(POLL_S, (profile.period_s if profile else 0.02) / 4.0)
    watch = _Watch(hands, load)
    begin = hands.clock()
    next_side_s = begin + SIDE_S
    while True:
        load.feed()
        before = hands.clock()
        watts = source.power_w()
        now = (before + watch.look(pause)) / 2.0
        trace.power.append((now, watts))
        if now - begin >= window_s:
            return
        if now >= next_side_s:
            trace.states.append((now, source.state()))
            next_side_s = now + SIDE_S
        load.wait(pause)
