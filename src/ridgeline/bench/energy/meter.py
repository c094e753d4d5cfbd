"""The protocol: from a meter and a kernel to joules per launch with an interval, or to the reason why not.

Idle baseline, gate, warm-up, learning how the counter updates, then trials of one edge-aligned window each, a random
pause before each so that periodic work cannot fall into step with a sensor that looks part of the time (A100, H100:
25 ms of every 100 ms, arXiv 2312.02741). Every step down the ladder of methods is noted.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from ridgeline.analytical.energy import (
    EnergyError,
    Estimate,
    UpdateProfile,
    WindowPower,
    edge_window,
    integrate_power,
    naive_window,
)
from ridgeline.bench.energy.discovery import POWER_PERIOD_S, learn_counter, power_period_s
from ridgeline.bench.energy.facts import Trial, build_facts, without_figure
from ridgeline.bench.energy.gate import Gate, judge, judge_window, limited_fractions
from ridgeline.bench.energy.source import EnergySource, MeterFault, NullSource
from ridgeline.bench.energy.window import LEAD_S, Hands, Load, Rest, WindowTrace, run_window
from ridgeline.results.energy import EnergyFacts, Method, RejectedWindow

WINDOW_FAULTS = frozenset(
    {"sensor_frozen", "counter_reset", "clock_jump", "no_edges", "timeout", "no_data", "not_ready"}
)
"""Faults that cost one window; any other ends the measurement."""
LEAST_NAIVE_PERIODS = 3.0
"""Periods of the counter that a window needs if it is not aligned with them."""
COOL_STEP_S = 0.5


@dataclass(frozen=True)
class EnergySettings:
    """How carefully."""

    window_s: float = 1.0
    """Least length of a window, seconds."""
    periods: float = 10.0
    """Least length in updates of the counter."""
    trials: int = 5
    """Windows."""
    idle_s: float = 1.0
    """Length of an idle baseline."""
    warm_s: float = 0.3
    """Load before the first window."""
    cool_s: float = 0.0
    """Most time to wait between trials for the starting temperature within 3 degrees."""
    exclusive: bool = False
    """The user asserts that the rest of a sliced card is idle."""
    seed: int = 0
    """Of the random pauses."""


QUICK = EnergySettings()
PUBLISHED = EnergySettings(window_s=5.0, periods=50.0, idle_s=10.0, warm_s=5.0, cool_s=30.0)


@dataclass(frozen=True)
class Work:
    """What one launch does, for joules per operation and per byte."""

    flop: float | None = None
    bytes: float | None = None


class EnergyMeter:
    """A meter for one process: keeps what it learnt about the sensor and the idle baselines.

    Args:
        source: the meter; closed by the caller.
        settings: :data:`QUICK` or :data:`PUBLISHED`.
        clock: monotonic seconds.
        sleep: lets so many seconds pass.
    """

    def __init__(
        self,
        source: EnergySource,
        settings: EnergySettings = QUICK,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._source, self._settings = source, settings
        self._hands = Hands(clock, sleep)
        self._random = random.Random(settings.seed)
        self._profile: UpdateProfile | None = None
        self._counter_refused = ""
        self._idle: dict[str, Estimate] = {}
        self._busy_percent: float | None = None
        self.rest_notes: dict[str, str] = {}
        """Why an idle baseline is missing, by name."""

    @property
    def measures(self) -> bool:
        """Whether there is a sensor at all."""
        return not isinstance(self._source, NullSource)

    def rest(self, name: str = "awake") -> Estimate | None:
        """Measure an idle baseline in watts; kept for the life of the meter.

        Args:
            name: ``awake``: this process is ready to launch (its context is alive) and launches nothing. ``sleep``: the
                device has no context of this process; to be taken before the first use of the device.

        Returns:
            Watts, or ``None`` with the reason in ``rest_notes``.
        """
        if name in self._idle:
            return self._idle[name]
        if name not in self._source.facts.rests:
            self.rest_notes[name] = f"{self._source.facts.meter}: no such baseline"
            return None
        try:
            if name == "sleep" and self._source.neighbours().own_context:
                self.rest_notes[name] = "this process already has a context on the device"
                return None
            facts = self._source.facts
            trace = run_window(
                self._source, Rest(self._hands), self._hands, self._settings.idle_s + 2.0 * facts.averaging_s, self._profile,
                counter=facts.has_counter and not self._counter_refused,
            )  # fmt: skip
            method = self._plain_method()
            power = self._power_of(trace, method)
            self._busy_percent = self._source.neighbours().busy_percent
        except (MeterFault, EnergyError) as error:
            self.rest_notes[name] = str(error)
            return None
        idle = Estimate(power.power_w, power.random_w, facts.gain_relative * power.power_w)
        self._idle[name] = idle
        self.rest_notes.pop(name, None)
        return idle

    def _plain_method(self) -> Method:
        facts = self._source.facts
        if facts.has_counter and not self._counter_refused:
            return "counter_edge"
        return "power_integral" if facts.power == "instant" else "average_power_integral"

    def _power_of(self, trace: WindowTrace, method: Method) -> WindowPower:
        facts, profile = self._source.facts, self._profile
        if method == "counter_edge":
            return edge_window(trace.edges, profile.jitter_s if profile else 0.0, facts.resolution_j or 0.0)
        if method == "counter_naive":
            if trace.first_j is None or trace.last_j is None:
                raise EnergyError("no_edges", "the counter was not read")
            end_s = trace.states[-1][0]
            period = profile.period_s if profile else POWER_PERIOD_S
            return naive_window(trace.states[0][0], end_s, trace.first_j, trace.last_j, period, len(trace.edges))
        times, watts = [t for t, _ in trace.power], [w for _, w in trace.power]
        return integrate_power(times, watts, times[0], times[-1], facts.averaging_s, power_period_s(trace))

    def measure(
        self,
        launch: Callable[[int], None],
        launch_s: float,
        *,
        work: Work | None = None,
        budget_s: float = 10.0,
        synchronize: Callable[[], None] = lambda: None,
    ) -> EnergyFacts:
        """Joules of one launch.

        Args:
            launch: runs the kernel so many times; may return before the device is done.
            launch_s: seconds of one launch, about.
            work: operations and bytes of one launch.
            budget_s: seconds for warm-up and trials. The idle baseline and learning the counter, up to 5 s, come once
                per meter on top.
            synchronize: returns when the device is done.

        Returns:
            Figures, or the reason why there are none; nothing that a sensor does raises.
        """
        source, facts = self._source, self._source.facts
        if isinstance(source, NullSource):
            return without_figure(facts, source.code, source.reason)
        try:
            fresh = "awake" not in self._idle
            self.rest("awake")
            neighbours = source.neighbours()
            gate = judge(
                replace(neighbours, busy_percent=self._busy_percent if fresh else None), self._settings.exclusive
            )
            if gate.refusal is not None:
                return without_figure(facts, *gate.refusal)
            load = self._warm(launch, synchronize, launch_s)
            method = self._choose_method(load)
            return self._run(load, method, gate, work or Work(), budget_s, launch_s)
        except MeterFault as fault:
            return without_figure(facts, fault.code, str(fault), self._notes())

    def _notes(self) -> tuple[str, ...]:
        missing = [f"no idle baseline {name}: {why}" for name, why in self.rest_notes.items()]
        refused = [f"energy counter not used: {self._counter_refused}"] if self._counter_refused else []
        return (*self._source.facts.notes, *refused, *missing)

    def _warm(self, launch: Callable[[int], None], synchronize: Callable[[], None], launch_s: float) -> Load:
        """Warm up by one row of launches, and time them: a queue fed by a time that is too long would run dry."""
        load = Load(launch, synchronize, launch_s, self._hands)
        count = max(1, round(self._settings.warm_s / launch_s))
        synchronize()
        begin_s = self._hands.clock()
        launch(count)
        synchronize()
        seconds = (self._hands.clock() - begin_s) / count
        if seconds > 0.0:
            load.launch_s = seconds
        return load

    def _choose_method(self, load: Load) -> Method:
        """First rung of the ladder that holds, learning the counter on the way."""
        facts = self._source.facts
        if facts.has_counter and not self._counter_refused:
            if self._profile is not None:
                return "counter_edge"
            try:
                self._profile = learn_counter(self._source, load, self._hands)
                return "counter_edge"
            except MeterFault as fault:
                if fault.code not in WINDOW_FAULTS or facts.power is None:
                    raise
                self._counter_refused = str(fault)
        if facts.power is None:
            raise MeterFault("not_supported", self._counter_refused or "neither energy counter nor power sensor")
        if "awake" not in self._idle:
            self.rest("awake")
        return "power_integral" if facts.power == "instant" else "average_power_integral"

    def _plan(self, method: Method, remaining_s: float) -> tuple[Method, float, int]:
        """Method, window and number of trials that the budget holds."""
        settings, profile = self._settings, self._profile
        period = profile.period_s if profile else POWER_PERIOD_S
        window_s = max(settings.window_s, settings.periods * period)
        around_s = 2.0 * period + 2.0 * LEAD_S  # reach an edge at either end, the pause before, the queue after
        if method != "counter_edge":
            around_s += self._source.facts.averaging_s
            window_s += self._source.facts.averaging_s + 2.0 * period
        trials = min(settings.trials, int(remaining_s / (window_s + around_s)))
        if trials >= 1:
            return method, window_s, trials
        shorter_s = remaining_s - around_s
        if method == "counter_edge":
            if shorter_s >= 2.0 * period:
                return method, shorter_s, 1
            if remaining_s >= LEAST_NAIVE_PERIODS * period:
                return "counter_naive", remaining_s - 2.0 * LEAD_S, 1
        needed = window_s + around_s
        raise MeterFault("budget", f"one window needs about {needed:.1f} s and {max(0.0, remaining_s):.1f} s are left")

    def _run(self, load: Load, method: Method, gate: Gate, work: Work, budget_s: float, timed_s: float) -> EnergyFacts:
        hands, source = self._hands, self._source
        until_s = hands.clock() + budget_s - self._settings.warm_s
        method, window_s, trials = self._plan(method, until_s - hands.clock())
        period = self._profile.period_s if self._profile else POWER_PERIOD_S
        kept: list[Trial] = []
        rejected: list[RejectedWindow] = []
        start_c = source.state().temperature_c
        for _ in range(trials):
            if hands.clock() + window_s > until_s + period:
                break
            hands.sleep(self._random.uniform(0.0, period))
            self._cool(start_c, until_s - window_s)
            try:
                kept.append(self._trial(load, method, window_s))
            except MeterFault as fault:
                if fault.code not in WINDOW_FAULTS | REJECTIONS:
                    raise
                rejected.append(RejectedWindow(code=fault.code, reason=str(fault)))
        neighbours = source.neighbours()
        if neighbours.foreign_pids and not gate.contaminated:
            gate = replace(gate, contaminated=True, labels=(*gate.labels, "foreign_processes"))
        if not kept:
            code, reason = _commonest(rejected)
            return without_figure(source.facts, code, reason, self._notes(), tuple(rejected))
        return build_facts(
            source.facts, method, kept, rejected, gate, self._profile, self._idle, self._notes(), self._settings.trials, work.flop,
            work.bytes, timed_s,
        )  # fmt: skip

    def _cool(self, start_c: float | None, until_s: float) -> None:
        limit_s = min(until_s, self._hands.clock() + self._settings.cool_s)
        while start_c is not None and self._hands.clock() < limit_s:
            now_c = self._source.state().temperature_c
            if now_c is None or now_c <= start_c + 3.0:
                return
            self._hands.sleep(COOL_STEP_S)

    def _trial(self, load: Load, method: Method, window_s: float) -> Trial:
        counter = method in ("counter_edge", "counter_naive")
        if method == "counter_naive":
            trace = self._naive_trace(load, window_s)
        else:
            trace = run_window(self._source, load, self._hands, window_s, self._profile, counter=counter)
        try:
            power = self._power_of(trace, method)
        except EnergyError as error:
            raise MeterFault(error.code, str(error)) from None
        if not counter:
            self._refuse_frozen(trace)
        first, last = trace.states[0], trace.states[-1]
        limited = limited_fractions(first[1], last[1], last[0] - first[0])
        clocks = [s.sm_mhz for _, s in trace.states[1:-1] if s.sm_mhz is not None]
        verdict = judge_window(power.power_w, power.drift_relative, limited, clocks, self._source.facts.power_limit_w)
        if verdict.refusal is not None:
            raise MeterFault(*verdict.refusal)
        return Trial(power, trace, limited, verdict.labels)

    def _naive_trace(self, load: Load, window_s: float) -> WindowTrace:
        """Counter values at the ends of a load that cannot wait for its updates."""
        trace = WindowTrace()
        load.start()
        try:
            trace.states.append((self._hands.clock(), self._source.state()))
            trace.first_j = self._source.energy_j()
            until_s = self._hands.clock() + window_s
            while self._hands.clock() < until_s:
                load.feed()
                load.wait(LEAD_S / 2.0)
            trace.last_j = self._source.energy_j()
            trace.states.append((self._hands.clock(), self._source.state()))
        finally:
            trace.launch_s = load.stop()
            trace.started_s, trace.stopped_s, trace.launches = load.started_s, load.stopped_s, load.launches
        return trace

    def _refuse_frozen(self, trace: WindowTrace) -> None:
        """A power reading that never changes, and is the same under load as at rest, is no reading."""
        readings = {watts for _, watts in trace.power}
        idle = self._idle.get("awake")
        if len(readings) == 1 and idle is not None and abs(idle.value - readings.pop()) < 1e-6:
            raise MeterFault("sensor_frozen", "the power sensor reads the same under load as at rest")


REJECTIONS = frozenset({"hw_thermal", "power_brake", "sw_thermal", "implausible_power"})
"""Reasons of :mod:`ridgeline.bench.energy.gate` for which a window does not hold."""


def _commonest(rejected: list[RejectedWindow]) -> tuple[str, str]:
    if not rejected:
        return "budget", "the time budget ended before the first window"
    code = Counter(window.code for window in rejected).most_common(1)[0][0]
    return code, next(window.reason for window in rejected if window.code == code)


def measure_energy(
    source: EnergySource,
    launch: Callable[[int], None],
    launch_s: float,
    *,
    work_flop: float | None = None,
    work_bytes: float | None = None,
    budget_s: float = 10.0,
    synchronize: Callable[[], None] = lambda: None,
    settings: EnergySettings = QUICK,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> EnergyFacts:
    """One measurement with a meter of its own: see :meth:`EnergyMeter.measure`."""
    meter = EnergyMeter(source, settings, clock=clock, sleep=sleep)
    return meter.measure(
        launch, launch_s, work=Work(work_flop, work_bytes), budget_s=budget_s, synchronize=synchronize
    )  # fmt: skip
