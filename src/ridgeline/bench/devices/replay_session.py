"""A trace as the worker uses it: a virtual clock, scripted times and sensors, and faults at their time or launch."""

from __future__ import annotations

import math
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ridgeline.bench.devices.cuda_watch import CardCounters, CardReader, CardSample, CardWatch
from ridgeline.bench.devices.trace import Fault, LaunchTimes, Trace
from ridgeline.bench.devices.unit import Session, Timer, UnitError, UnitLostError

if TYPE_CHECKING:
    import torch

    from ridgeline.kernels.registry import Run, Tensors

STALE_S = 1.0
"""A sensor that was last brought up to date longer ago than this shows nothing: cards do it at least ten times a second."""
LOST = {
    "gpu_lost": "GPU is lost: it has fallen off the bus or has otherwise become inaccessible",
    "driver_mismatch": "driver and library version differ: the driver was replaced: restart",
}


def value_at(points: Sequence[tuple[float, float]], at_s: float) -> float | None:
    """The value of a series at a time, on straight lines between its points; ``None`` for an empty series."""
    if not points:
        return None
    before = points[0]
    for point in points:
        if point[0] > at_s:
            span = point[0] - before[0]
            return before[1] + (point[1] - before[1]) * ((at_s - before[0]) / span if span > 0.0 else 0.0)
        before = point
    return before[1]


class _Card:
    """The replayed card during one case."""

    def __init__(self, trace: Trace, operator: str = "", implementation: str = "", seed: int = 0) -> None:
        self.trace = trace
        self.name = f"{operator} {implementation}"
        self.times = trace.times(operator, implementation)
        self.faults = [f for f in trace.faults if f.selects(operator, implementation)]
        self.began = {i: f.at_s for i, f in enumerate(self.faults) if f.at_s is not None}
        self.acted: set[int] = set()
        self.now_s = 0.0
        self.launch = 0
        self.sample = 0
        self.wrong = False
        self.logarithm = 0.0
        self.random = random.Random(f"{trace.seed} {self.name} {seed}")

    def active(self, kind: str) -> list[tuple[float, Fault]]:
        """Faults of a kind that have begun, with when."""
        begun = ((self.began.get(i), f) for i, f in enumerate(self.faults) if f.kind == kind)
        return [(at_s, fault) for at_s, fault in begun if at_s is not None and at_s <= self.now_s]

    def count_launch(self) -> None:
        """One more launch; what is scripted for it happens."""
        self.launch += 1
        for index, fault in enumerate(self.faults):
            if fault.at_launch == self.launch:
                self.began[index] = self.now_s
            if index not in self.acted and self.began.get(index, math.inf) <= self.now_s:
                self.acted.add(index)
                self.act(fault)

    def act(self, fault: Fault) -> None:
        """Do what goes wrong at a launch, as torch and the driver show it."""
        import torch

        if fault.kind in LOST:
            raise UnitLostError(LOST[fault.kind])
        if fault.kind == "launch_failure":
            raise RuntimeError("CUDA error: unspecified launch failure")
        if fault.kind == "illegal_address":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if fault.kind == "out_of_memory":
            raise torch.OutOfMemoryError("CUDA out of memory: the trace says so")
        if fault.kind == "hang":
            while True:
                time.sleep(1.0)
        if fault.kind == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if fault.kind == "clock_jump":
            real, seconds = time.time, fault.seconds
            time.time = lambda: real() + seconds
        self.wrong = self.wrong or fault.kind == "wrong_result"

    def throttled(self) -> Fault | None:
        """The throttle that holds now."""
        held = [f for at_s, f in self.active("throttle") if self.now_s < at_s + f.duration_s]
        return held[-1] if held else None

    def take(self, launches: int, record: bool) -> float:
        """Seconds of a sample of ``launches`` launches; the clock moves on by them."""
        if self.times is None:
            raise UnitError(f"the trace has no launch times for {self.name}: add an entry to launches")
        seconds = self._scripted(self.times, launches, record)
        for at_s, factor in reversed(self.times.steps):
            if at_s <= self.now_s:
                seconds *= factor
                break
        held = self.throttled()
        seconds *= held.factor if held else 1.0
        self.now_s += seconds
        return seconds

    def _scripted(self, times: LaunchTimes, launches: int, record: bool) -> float:
        if times.constant_s is not None:
            return launches * times.constant_s
        if times.cycle_s is not None:
            first = self.launch - launches
            return sum(times.cycle_s[(first + i) % len(times.cycle_s)] for i in range(launches))
        if times.samples_s is not None:
            if not record:  # a warm-up must not use up what was recorded
                return launches * statistics.median(times.samples_s)
            self.sample += 1
            return launches * times.samples_s[(self.sample - 1) % len(times.samples_s)]
        assert times.median_s is not None
        kept = times.autocorrelation
        new = self.random.gauss(0.0, times.noise_relative) * math.sqrt(1.0 - kept * kept)
        self.logarithm = kept * self.logarithm + new
        return launches * times.median_s * math.exp(self.logarithm)

    def sensor(self, name: str) -> float | None:
        """What a sensor shows now; ``None`` where it is missing or was not brought up to date."""
        if any(f.sensor == name for _, f in self.active("sensor_missing")):
            return None
        frozen = [at_s for at_s, f in self.active("sensor_frozen") if f.sensor == name]
        if frozen and self.now_s - min(frozen) > STALE_S:
            return None
        value = value_at(getattr(self.trace, name), min(frozen, default=self.now_s))
        held = self.throttled()
        return value / held.factor if value is not None and held and name == "clock_mhz" else value

    def limited_s(self, limit: str) -> float:
        """The driver's counter of the time under a limit; one that wrapped begins again at zero."""
        held = [
            max(0.0, min(self.now_s, at_s + f.duration_s) - at_s)
            for at_s, f in self.active("throttle")
            if f.limit == limit
        ]
        wrapped = bool(self.active("counter_wrap"))
        return sum(held) + (0.0 if wrapped else 1e6)


class ReplayTimer(Timer):
    """Times of the trace."""

    name = "replay"

    def __init__(self, session: ReplaySession) -> None:
        self._session = session

    def time(self, launch: Callable[[int], None], launches: int) -> float:
        """As :meth:`Timer.time`; for warming up."""
        return self._take(launch, launches, record=False)

    def block(self, launch: Callable[[int], None], launches: int, samples: int) -> list[float]:
        """As :meth:`Timer.block`."""
        return [self._take(launch, launches, record=True) for _ in range(samples)]

    def _take(self, launch: Callable[[int], None], launches: int, record: bool) -> float:
        self._session.timing = True
        try:
            launch(launches)
        finally:
            self._session.timing = False
        return self._session.card.take(launches, record)


class ReplayReader(CardReader):
    """Sensors and counters of the trace, so that a replayed block is judged as one of a real card is."""

    LIMITS = ("power brake", "thermal limit", "power limit")

    def __init__(self, card: _Card) -> None:
        self._card = card

    def sample(self) -> CardSample:
        """As :meth:`CardReader.sample`."""
        read = self._card.sensor
        return CardSample(read("clock_mhz"), read("memory_clock_mhz"), read("power_w"), read("temperature_c"))

    def counters(self) -> CardCounters:
        """As :meth:`CardReader.counters`."""
        return CardCounters(self._card.now_s, {limit: self._card.limited_s(limit) for limit in self.LIMITS})

    def others(self) -> int | None:
        """No trace has any."""
        return 0


class ReplaySession(Session):
    """A trace. Tensors stay on the CPU."""

    torch_device = "cpu"
    no_meter = "a replayed card uses no energy"

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.timing = False
        self.timer = ReplayTimer(self)
        self.begin_case("", "", 0)

    def use(self, threads: int, rank: int = 0) -> None:
        """One thread is enough for the checks."""
        import torch

        torch.set_num_threads(threads)

    def begin_case(self, operator: str, implementation: str, seed: int) -> None:
        """Virtual time begins again at zero, and no clock was seen before."""
        self.card = _Card(self.trace, operator, implementation, seed)
        self.watch = CardWatch(ReplayReader(self.card))

    def bind(self, run: Run) -> Run:
        """``run`` with the trace's faults. While time is taken it computes only what was not computed yet."""
        card = self.card

        def replayed(inputs: Tensors, out: torch.Tensor) -> None:
            self.card = card  # two cases may take turns
            card.count_launch()
            if not self.timing or _poisoned(out):
                run(inputs, out)
                if card.wrong:
                    out.neg_().sub_(1)

        return replayed

    def check_present(self, losses: int) -> None:
        """Gone for good where a fault of the trace that has happened says so."""
        for fault in self.trace.faults:
            if losses and fault.stays and fault.kind in LOST:
                raise UnitLostError(LOST[fault.kind])

    def place(self, tensors: Tensors) -> Tensors:
        """The tensors themselves."""
        return tensors

    def synchronize(self) -> None:
        """A launch has ended when its call returns."""

    def clock(self) -> float:
        """Virtual seconds of this case."""
        return self.card.now_s

    def sleep(self, seconds: float) -> None:
        """Virtual time passes."""
        self.card.now_s += seconds


def _poisoned(out: torch.Tensor) -> bool:
    import torch

    first = out[(0,) * out.dim()].item()
    return first != first if out.dtype.is_floating_point else first == torch.iinfo(out.dtype).max - 1
