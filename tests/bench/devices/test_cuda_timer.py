"""Timers on a simulated card: a queue in front of a clock of its own, and a host that takes time to enqueue."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.bench.devices.cuda_timer import (
    FIRST_GUESS_S,
    HOLD_MOST_S,
    QUEUE_LAUNCHES,
    CaptureError,
    EventTimer,
    GraphTimer,
)
from ridgeline.bench.devices.cuda_watch import CardCounters, CardReader, CardSample, CardWatch
from ridgeline.bench.timing import measure
from ridgeline.workloads.suite import Settings


class SimulatedEvent:
    def __init__(self, card: SimulatedCard) -> None:
        self.card = card
        self.at_s: float | None = None

    def record(self) -> None:
        self.at_s = self.card.enqueue(0.0)

    def query(self) -> bool:
        assert self.at_s is not None
        return self.at_s <= self.card.host_s

    def elapsed_time(self, end: SimulatedEvent) -> float:
        assert self.at_s is not None
        assert end.at_s is not None
        assert end.at_s <= self.card.host_s, "read before it was waited for"
        return (end.at_s - self.at_s) * 1e3


class SimulatedCard:
    """``launch_s`` is the kernel's own time, ``host_s_per_launch`` what enqueuing it costs the host.

    A stream that holds ``depth`` launches makes the host wait for room.
    """

    def __init__(self, launch_s: float, host_s_per_launch: float, depth: int = 10**9) -> None:
        self.launch_s, self.host_s_per_launch = launch_s, host_s_per_launch
        self.depth = depth
        self.ends: list[float] = []
        self.host_s = self.free_s = 0.0
        self.holds: list[float] = []
        self.synchronised = self.launched = self.longest_queue = 0
        self.capturing: list[int] | None = None
        self._queued = 0

    def enqueue(self, seconds: float) -> float:
        self.free_s = max(self.free_s, self.host_s) + seconds
        return self.free_s

    def launch(self, count: int) -> None:
        if self.capturing is not None:
            self.capturing.append(count)
            return
        for _ in range(count):
            self.host_s += self.host_s_per_launch
            if len(self.ends) >= self.depth:
                self.host_s = max(self.host_s, self.ends[-self.depth])
            self.ends.append(self.enqueue(self.launch_s))
        self.launched += count
        self._queued += count
        self.longest_queue = max(self.longest_queue, self._queued)

    def event(self) -> SimulatedEvent:
        return SimulatedEvent(self)

    def hold(self, seconds: float) -> None:
        self.holds.append(seconds)
        self.enqueue(seconds)

    def synchronize(self) -> None:
        self.synchronised += 1
        self._queued = 0
        self.host_s = max(self.host_s, self.free_s)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.capturing = captured = []
        work()
        self.capturing = None

        def replay() -> None:
            self.host_s += self.host_s_per_launch  # one call, however many kernels
            for count in captured:
                self.enqueue(count * self.launch_s)
                self.launched += count

        return replay

    def apart(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def timer_of(card: SimulatedCard, kind: type[EventTimer] = EventTimer) -> EventTimer:
    return kind(card, clock=lambda: card.host_s)


@given(st.floats(1e-6, 1e-3), st.floats(1e-6, 4e-5), st.integers(1, 50), st.integers(1, 64))
@settings(max_examples=60, deadline=None)
def test_what_enqueuing_costs_is_not_in_the_times(kernel: float, host: float, launches: int, samples: int) -> None:
    card = SimulatedCard(kernel, host)
    timer = timer_of(card)
    seconds = timer.block(card.launch, launches, samples)
    assert seconds == pytest.approx([launches * kernel] * samples, rel=1e-6)
    assert timer.take_exposed() == 0
    assert card.launched == launches * samples


def test_a_stream_that_was_full_is_filled_less_afterwards() -> None:
    card = SimulatedCard(launch_s=1e-4, host_s_per_launch=2e-5, depth=QUEUE_LAUNCHES // 4)
    timer = timer_of(card)
    exposed = []
    for _ in range(6):
        timer.block(card.launch, 1, 64 * 4)
        exposed.append(timer.take_exposed())
    assert exposed[0] >= 1
    assert exposed[2:] == [0, 0, 0, 0]
    timer.forget()
    timer.block(card.launch, 1, 64 * 4)
    assert timer.take_exposed() >= 1, "another kernel begins anew"


def test_no_more_is_enqueued_than_the_longest_hold_hides() -> None:
    """Launches of 1 ms on the host: 256 of them would need a hold of half a second."""
    card = SimulatedCard(launch_s=1e-3, host_s_per_launch=1e-3)
    timer = timer_of(card)
    timer.block(card.launch, 1, 8)
    timer.take_exposed()
    timer.block(card.launch, 1, 256)
    assert timer.take_exposed() == 0
    assert max(card.holds) <= HOLD_MOST_S


def test_a_card_that_waited_for_the_host_is_seen_and_the_next_hold_is_longer() -> None:
    card = SimulatedCard(launch_s=2e-6, host_s_per_launch=10 * FIRST_GUESS_S)
    timer = timer_of(card)
    exposed_s = timer.time(card.launch, 20)
    assert exposed_s > 10 * 20 * 2e-6, "the simulation exposes the launches"
    assert timer.take_exposed() == 1
    assert timer.take_exposed() == 0, "told once"
    assert timer.time(card.launch, 20) == pytest.approx(20 * 2e-6)
    assert timer.take_exposed() == 0
    assert card.holds[1] > card.holds[0]


def test_a_host_that_is_too_slow_for_any_hold_stays_exposed() -> None:
    card = SimulatedCard(launch_s=1e-6, host_s_per_launch=HOLD_MOST_S)
    timer = timer_of(card)
    for _ in range(3):
        timer.time(card.launch, 2)
        assert timer.take_exposed() == 1
    assert max(card.holds) <= HOLD_MOST_S


def test_short_launches_never_fill_the_queue_and_share_synchronisations() -> None:
    card = SimulatedCard(1e-6, 5e-6)
    assert len(timer_of(card).block(card.launch, 10, 64)) == 64
    assert card.longest_queue <= QUEUE_LAUNCHES
    assert card.synchronised == -(-64 // (QUEUE_LAUNCHES // 10))


def test_a_graph_is_captured_for_every_sample_and_replayed_once() -> None:
    card = SimulatedCard(3e-6, 20e-6)
    timer = timer_of(card, GraphTimer)
    asked: list[int] = []

    def launch(count: int) -> None:
        asked.append(count)
        card.launch(count)

    assert timer.block(launch, 30, 5) == pytest.approx([90e-6] * 5)
    assert asked == [30] * 5, "each sample passes through buffers of its own"
    assert card.launched == 150
    assert timer.name != EventTimer.name


def test_a_launch_that_cannot_be_captured_says_why() -> None:
    card = SimulatedCard(1e-6, 1e-6)

    def refuse(work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    card.capture = refuse  # type: ignore[method-assign]
    with pytest.raises(CaptureError, match="cannot be captured in a CUDA graph: operation not permitted"):
        timer_of(card, GraphTimer).time(card.launch, 1)


class SimulatedLaunches:
    """A kernel on the simulated card, as the timing loop sees it."""

    def __init__(self, card: SimulatedCard) -> None:
        self.launch = card.launch

    def before_block(self, count: int) -> None:
        """Nothing to get ready."""

    def after_block(self) -> None:
        """Nothing to look at."""


class WakingReader(CardReader):
    """A card whose power cap holds it down for its first 100 ms."""

    def __init__(self, card: SimulatedCard) -> None:
        self.card = card

    def sample(self) -> CardSample:
        return CardSample(clock_mhz=1410.0)

    def counters(self) -> CardCounters:
        return CardCounters(self.card.host_s, {"power limit": min(self.card.host_s, 0.1)})

    def others(self) -> int:
        return 0


def test_the_whole_loop_leaves_out_limited_blocks_and_finds_the_kernels_own_time() -> None:
    card = SimulatedCard(launch_s=7e-6, host_s_per_launch=20e-6)
    timer = timer_of(card)

    def sleep(seconds: float) -> None:
        card.host_s += seconds

    timing = measure(
        SimulatedLaunches(card),
        timer,
        Settings(target_relative=0.02, budget_s=20.0),
        CardWatch(WakingReader(card), timer.take_exposed),
        clock=lambda: card.host_s,
        sleep=sleep,
    )
    assert timing.unstable_reason == ""
    assert timing.summary.median == pytest.approx(7e-6)
    assert {left.cause for left in timing.left_out} == {"power limit"}
    assert len(timing.left_out) < len(timing.blocks)
    assert all(c.clock_mhz == 1410.0 for c in timing.conditions)
