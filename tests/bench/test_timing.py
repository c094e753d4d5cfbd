"""The timing loop under a clock of our own: when it stops, what it keeps, and how it groups launches."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from ridgeline.analytical.statistics import interval_ranks, summarise
from ridgeline.bench.devices.cpu_session import PerfCounterTimer
from ridgeline.bench.devices.unit import Observed, Timer, Watch
from ridgeline.bench.stopping import MIN_BLOCKS, MIN_MEASURED_S
from ridgeline.bench.timing import (
    BLOCK_S,
    MOST_SAMPLES,
    PAUSE_S,
    SAMPLE_S,
    Timing,
    measure,
)
from ridgeline.results.measurement import Conditions
from ridgeline.workloads.suite import Settings


class World(Timer):
    """Launches, the timer that times them and the clock of the budget: time passes only in launches and in checks."""

    name = "world"

    def __init__(self, launch_s: Callable[[], float], check_s: float = 0.0) -> None:
        self._launch_s = launch_s
        self._check_s = check_s
        self.now = 1000.0
        self.launched: list[int] = []
        """Launches of each sample since the last block began."""
        self.promised = 0
        self.events: list[tuple[str, int, int]] = []
        """Of each block: what it was promised, samples, launches."""
        self.open = False
        self.seen: list[float] = []

    def clock(self) -> float:
        return self.now

    def launch(self, count: int) -> None:
        assert self.open
        self.launched.append(count)
        for _ in range(count):
            self.now += self._launch_s()

    def time(self, launch: Callable[[int], None], launches: int) -> float:
        before = self.now
        launch(launches)
        self.seen.append(self.now - before)
        return self.now - before

    def before_block(self, count: int) -> None:
        assert not self.open
        self.open, self.promised, self.launched = True, count, []

    def after_block(self) -> None:
        assert self.open
        self.open = False
        self.events.append(("block", self.promised, sum(self.launched)))
        self.now += self._check_s

    def measure(self, **settings: float) -> Timing:
        return measure(self, self, Settings(**settings), clock=self.clock)


def normal(mean_s: float, relative: float, seed: int = 0) -> Callable[[], float]:
    source = random.Random(seed)
    return lambda: max(0.1 * mean_s, source.gauss(mean_s, relative * mean_s))


def heavy(mean_s: float, seed: int = 0) -> Callable[[], float]:
    """Sometimes three times slower for a while: what a busy neighbour does."""
    source = random.Random(seed)
    return lambda: mean_s * (1.0 if source.random() < 0.5 else source.uniform(1.0, 3.0))


def test_stops_when_the_interval_is_narrow() -> None:
    world = World(normal(5e-3, 0.01))
    timing = world.measure(target_relative=0.05, budget_s=60.0)
    assert timing.unstable_reason == ""
    assert timing.summary.half_width_relative <= 0.05
    assert timing.summary.low is not None
    assert timing.summary.high is not None
    assert timing.summary.low <= 5e-3 * 1.01
    assert timing.summary.high >= 5e-3 * 0.99
    assert MIN_BLOCKS <= len(timing.blocks) <= 3 * MIN_BLOCKS
    assert world.now - 1000.0 < 1.0  # far from its budget


def test_a_tighter_target_takes_more_blocks() -> None:
    loose = World(normal(21e-3, 0.1)).measure(target_relative=0.1, budget_s=20.0)
    tight = World(normal(21e-3, 0.1)).measure(target_relative=0.02, budget_s=20.0)
    assert tight.unstable_reason == ""
    assert len(tight.blocks) > 2 * len(loose.blocks)


def test_a_spent_budget_says_what_it_would_take() -> None:
    world = World(heavy(30e-3))
    timing = world.measure(target_relative=0.06, budget_s=1.0)
    assert 1.0 <= world.now - 1000.0 < 1.2
    seen, _, needs = timing.unstable_reason.partition("; needs about ")
    assert seen.startswith(f"interval is ±{timing.summary.half_width_relative:.1%}, target ±6%")
    assert seen.endswith((" after 1.0 s", " after 1.1 s", " after 1.2 s"))
    more = int(needs.split(" more seconds")[0])
    assert more >= 1
    # And it does not lie by an order of magnitude.
    assert World(heavy(30e-3)).measure(target_relative=0.06, budget_s=1.0 + 10 * more).unstable_reason == ""


def test_time_beyond_the_budget_is_taken_only_where_it_will_do() -> None:
    short = World(heavy(30e-3)).measure(target_relative=0.06, budget_s=1.0)
    more = int(short.unstable_reason.partition("needs about ")[2].split(" ")[0])
    world = World(heavy(30e-3))
    assert world.measure(target_relative=0.06, budget_s=1.0, extra_s=10.0 * more).unstable_reason == ""
    assert world.now - 1000.0 > 1.0
    world = World(heavy(30e-3))
    assert world.measure(target_relative=0.06, budget_s=1.0, extra_s=0.2 * more).unstable_reason
    assert world.now - 1000.0 < 1.2, "too little to be of use is not taken"


def test_fewer_blocks_than_an_interval_takes_give_none() -> None:
    timing = World(normal(0.5, 0.01)).measure(target_relative=0.05, budget_s=1.6)
    assert len(timing.blocks) >= 2
    assert interval_ranks(len(timing.blocks)) is None
    assert timing.summary.low is None
    assert timing.summary.high is None
    assert "no interval" in timing.unstable_reason
    assert "needs about" in timing.unstable_reason


def test_a_met_target_from_too_few_blocks_is_said_so() -> None:
    timing = World(lambda: 0.25).measure(target_relative=0.05, budget_s=1.9)
    assert interval_ranks(len(timing.blocks)) is not None
    assert len(timing.blocks) < MIN_BLOCKS
    assert "target ±" not in timing.unstable_reason
    assert f"only {len(timing.blocks)} of {MIN_BLOCKS} blocks" in timing.unstable_reason


def test_one_launch_longer_than_the_budget_is_still_two_blocks() -> None:
    timing = World(lambda: 20.0).measure(target_relative=0.05, budget_s=1.0)
    assert [len(block) for block in timing.blocks] == [1, 1]
    assert timing.launches_per_sample == 1


@pytest.mark.parametrize("launch_s", [20e-9, 1e-6, 30e-6, 99e-6, 101e-6, 0.28e-3, 1e-3, 19e-3, 21e-3])
def test_launches_are_grouped_into_samples_and_blocks_of_their_least_size(launch_s: float) -> None:
    timing = World(lambda: launch_s).measure(target_relative=0.05, budget_s=30.0)
    per_block = len(timing.blocks[0])
    assert timing.unstable_reason == ""
    assert 1 <= per_block <= MOST_SAMPLES
    assert timing.launches_per_sample * launch_s >= 0.99 * min(SAMPLE_S, BLOCK_S)
    assert 0.99 * BLOCK_S <= per_block * timing.launches_per_sample * launch_s <= max(2.0 * launch_s, 1.05 * BLOCK_S)
    if launch_s >= BLOCK_S:
        assert (per_block, timing.launches_per_sample) == (1, 1)
    if launch_s >= BLOCK_S / MOST_SAMPLES:
        assert timing.launches_per_sample == 1
    assert timing.summary.median == pytest.approx(launch_s, rel=1e-6)
    measured_s = sum(map(sum, timing.blocks)) * timing.launches_per_sample
    assert measured_s >= MIN_MEASURED_S


def test_nothing_is_dropped() -> None:
    world = World(heavy(1e-4))
    timing = world.measure(target_relative=0.01, budget_s=3.0)
    flat = [sample * timing.launches_per_sample for block in timing.blocks for sample in block]
    assert flat == pytest.approx(world.seen[-len(flat) :])
    assert len({len(block) for block in timing.blocks}) == 1
    assert timing.summary == summarise(timing.blocks)


def test_blocks_are_announced_with_their_launches_and_ended() -> None:
    world = World(normal(2e-4, 0.1))
    timing = world.measure(target_relative=0.05, budget_s=5.0)
    assert not world.open
    _warm_up, *blocks = world.events
    assert len(blocks) == len(timing.blocks)
    for _, promised, launched in blocks:
        assert promised == launched == len(timing.blocks[0]) * timing.launches_per_sample


def test_time_spent_in_checks_counts_for_the_budget() -> None:
    world = World(heavy(1e-3), check_s=0.4)
    timing = world.measure(target_relative=0.001, budget_s=2.0)
    assert timing.unstable_reason
    assert world.now - 1000.0 < 3.0


def test_a_first_launch_that_is_slow_is_no_estimate() -> None:
    launches = itertools.chain([0.15], itertools.repeat(1e-5))
    timing = World(lambda: next(launches)).measure(target_relative=0.05, budget_s=5.0)
    assert timing.summary.median == pytest.approx(1e-5, rel=1e-6)
    assert timing.launches_per_sample * 1e-5 >= SAMPLE_S


def test_the_real_timer_divides_nothing_and_counts_all() -> None:
    counts: list[int] = []
    took = PerfCounterTimer().time(counts.append, 7)
    assert counts == [7]
    assert took > 0.0


class Disturbance(Watch):
    """Blames the blocks whose numbers (from 0) it was given."""

    def __init__(self, disturbed: Callable[[int], bool]) -> None:
        self.disturbed = disturbed
        self.block = -1

    def begin(self) -> None:
        self.block += 1

    def end(self) -> Observed:
        cause = "other processes" if self.disturbed(self.block) else ""
        return Observed(Conditions(load_other=float(bool(cause))), cause)


def disturbed(
    launch_s: Callable[[], float], which: Callable[[int], bool], budget_s: float
) -> tuple[Timing, list[float]]:
    world, pauses = World(launch_s), []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        world.now += seconds

    settings = Settings(target_relative=0.05, budget_s=budget_s)
    return measure(world, world, settings, Disturbance(which), world.clock, sleep), pauses


def test_disturbed_blocks_are_kept_but_do_not_count() -> None:
    blocks = itertools.count()
    # Blocks are 20 samples of 1 ms; every third block is disturbed and ten times slower.
    timing, pauses = disturbed(
        lambda: 10e-3 if max(0, next(blocks) - 100) // 20 % 3 == 0 else 1e-3, lambda n: n % 3 == 0, 60.0
    )
    assert timing.unstable_reason == ""
    assert {left.block % 3 for left in timing.left_out} == {0}
    assert {left.cause for left in timing.left_out} == {"other processes"}
    assert timing.summary.n_blocks == len(timing.blocks) - len(timing.left_out)
    assert len(timing.conditions) == len(timing.blocks)
    assert [c.load_other for c in timing.conditions[:3]] == [1.0, 0.0, 0.0]
    assert set(pauses) == {PAUSE_S}  # an undisturbed block begins the pauses anew


def test_pauses_grow_while_a_disturbance_lasts() -> None:
    timing, pauses = disturbed(lambda: 1e-3, lambda n: n < 5, 60.0)
    assert pauses == [PAUSE_S * 2**n for n in range(5)]
    assert timing.unstable_reason == ""
    assert [left.block for left in timing.left_out] == list(range(5))


def test_a_result_is_never_empty() -> None:
    timing, _ = disturbed(lambda: 1e-3, lambda n: True, 2.0)
    assert timing.left_out == ()
    assert timing.summary.n_blocks == len(timing.blocks) >= 2
    assert "blocks were disturbed" in timing.unstable_reason
    assert "by other processes" in timing.unstable_reason


def test_a_spent_budget_counts_what_was_left_out() -> None:
    noise = heavy(30e-3)
    timing, _ = disturbed(noise, lambda n: n == 2, 1.5)
    assert f"1 of {len(timing.blocks)} blocks left out (1 by other processes)" in timing.unstable_reason
