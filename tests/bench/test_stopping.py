"""Each stopping rule on progress of known numbers, and all together on lucky streaks."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interval_coverage import FIXED, SHAPES, fixed, sequential

from ridgeline.analytical.statistics import Summary, summarise_medians
from ridgeline.bench.stopping import (
    BudgetSpent,
    EnoughBlocks,
    EnoughIndependent,
    EnoughMeasured,
    IntervalNarrow,
    LongMemory,
    OutOfReach,
    Progress,
    StopWhenNarrow,
)


def progress(half: float = 0.01, n: int = 100, effective: float = 50.0, at_s: float = 3.0) -> Progress:
    low, high = (None, None) if math.isinf(half) else (1.0 - half, 1.0 + half)
    return Progress(Summary(1.0, low, high, n, n, 0.0, effective), at_s, at_s)


def test_each_rule_names_what_is_missing_and_what_it_takes() -> None:
    short = progress(half=0.061, n=5, effective=4.0, at_s=0.25)
    assert EnoughBlocks(10).missing(short) == "only 5 of 10 blocks"
    assert EnoughBlocks(10).more_seconds(short) == pytest.approx(0.25)
    assert EnoughMeasured(0.5).missing(short) == "only 0.25 of 0.5 s measured"
    assert EnoughMeasured(0.5).more_seconds(short) == pytest.approx(0.25)
    assert EnoughIndependent(0.01, 20).missing(short) == "only 4.0 of 20 independent blocks"
    assert EnoughIndependent(0.01, 20).more_seconds(short) == pytest.approx(1.0)
    long = progress(half=0.061, n=100, effective=4.0, at_s=0.25)
    assert EnoughIndependent(0.5, 20).more_seconds(long) == pytest.approx(0.25 * ((125 * 0.061 / 0.5) ** (2 / 7) - 1))
    assert IntervalNarrow(0.05).missing(short) == "interval is ±6.1%, target ±5%"
    assert IntervalNarrow(0.0305).more_seconds(short) == pytest.approx(0.75)


def test_looks_at_the_interval_come_a_thirty_second_apart() -> None:
    rule = StopWhenNarrow(0.01)
    looks = [25]
    while looks[-1] < 300:
        looks.append(rule.next_look(looks[-1]))
    assert looks[:3] == [25, 26, 27], "each block while a look costs little beside what it may save"
    steps = [(after - before) / before for before, after in pairwise(looks[7:])]
    assert max(steps) <= 1 / 32
    assert len(looks) < 120


def test_the_reason_is_one_line_with_the_seconds_it_takes() -> None:
    assert StopWhenNarrow(0.05).reason(progress(half=0.061), 3.0) == (
        "interval is ±6.1%, target ±5% after 3.0 s; needs about 2 more seconds"
    )


def test_a_target_out_of_reach_of_the_budget_is_said_so() -> None:
    assert OutOfReach(3.0).met(30.0)
    assert not OutOfReach(3.0).met(29.0)
    reason = StopWhenNarrow(0.001).reason(progress(half=0.061), 3.0)
    assert reason.endswith("which the budget of 3 s cannot reach: ±6.1% is what it gives")


def test_few_independent_blocks_will_do_where_the_interval_is_as_far_under_its_target() -> None:
    rule = EnoughIndependent(0.05, 20)
    assert not rule.missing(progress(half=0.0061, effective=10.0))
    assert rule.missing(progress(half=0.0063, effective=10.0))
    assert rule.missing(progress(half=0.0003, n=59, effective=10.0))
    assert StopWhenNarrow(0.05).decide(progress(half=0.0003, effective=7.3), 6.0).stop


def test_blocks_that_hang_together_over_many_must_be_many_or_far_under_the_target() -> None:
    rule = LongMemory(0.05)
    assert (
        rule.missing(progress(half=0.04, n=160, effective=20.0)) == "only 160 of 300 blocks, which hang together over 8"
    )
    assert rule.more_seconds(progress(half=0.04, n=160, effective=20.0)) == pytest.approx(3.0 * 140 / 160)
    assert rule.more_seconds(progress(half=0.0275, n=160, effective=20.0)) == pytest.approx(0.63)
    assert not rule.missing(progress(half=0.025, n=160, effective=20.0))
    assert not rule.missing(progress(half=0.04, n=300, effective=20.0))
    assert not rule.missing(progress(half=0.04, n=100, effective=20.0)), "a memory of five blocks is soon known"
    assert StopWhenNarrow(0.05).decide(progress(half=0.04, n=160, effective=20.0), 6.0).stop is False


def test_a_narrow_interval_from_dependent_blocks_goes_on_until_the_budget() -> None:
    rule, lucky = StopWhenNarrow(0.05), progress(half=0.03, effective=8.0)
    assert not rule.decide(lucky, 6.0).stop
    ended = rule.decide(lucky, 3.0)
    assert ended.stop
    assert ended.unstable_reason.startswith("interval meets its target, but from only 8.0 of 20 independent blocks")


def test_a_spent_budget_still_takes_two_blocks() -> None:
    assert not BudgetSpent(1.0).met(progress(n=1), 5.0)
    assert BudgetSpent(1.0).met(progress(n=2), 5.0)


def test_extra_time_is_for_what_will_end_within_it() -> None:
    rule, near = StopWhenNarrow(0.05), progress(half=0.061, at_s=3.0)  # needs 1.5 s more
    assert rule.decide(near, 3.0, 1.0).stop
    assert not rule.decide(near, 3.0, 2.0).stop
    assert rule.decide(progress(half=0.061, at_s=4.5), 3.0, 2.0).stop, "most of it is used up, and it needs 2 s"


@given(st.floats(1e-4, 0.9), st.integers(6, 400), st.floats(1e-3, 0.5), st.floats(1e-2, 100.0))
def test_it_stops_exactly_when_every_rule_holds(half: float, n: int, target: float, at_s: float) -> None:
    rule, now = StopWhenNarrow(target), progress(half, n, float(n), at_s)
    enough = n >= 20  # independent as they are, fewer than 20 are also fewer than the blocks that a shortage needs
    holds = now.summary.half_width_relative <= target and n >= 10 and enough and at_s >= rule.min_measured_s
    assert rule.satisfied(now.summary, at_s) == holds
    assert (rule.more_seconds(now) == 0.0) == holds
    assert StopWhenNarrow(target / 2).more_seconds(now) >= rule.more_seconds(now)


@given(st.integers(1, 5), st.floats(1e-3, 100.0))
def test_without_an_interval_it_still_says_a_time(n: int, at_s: float) -> None:
    more = StopWhenNarrow(0.05).more_seconds(progress(math.inf, n, float(n), at_s))
    assert 0.0 < more < math.inf


@pytest.mark.parametrize("shape", [s for s in SHAPES if s.judged], ids=lambda s: s.name)
def test_the_interval_covers_after_a_fixed_number_of_blocks_and_where_it_stops(shape) -> None:  # type: ignore[no-untyped-def]
    assert fixed(shape, FIXED[2], 100, seed=1).passed
    ends = sequential(shape, 0.015, 25, seed=1, budget_blocks=200)
    assert ends.held >= ends.claims - 5


def test_the_oracle_bar_can_fail() -> None:
    """An interval from the blocks of an AR(1) 0.9 in shuffled order, as if independent, misses most of the time."""
    shape = SHAPES[2]
    rng = np.random.default_rng(3)
    series = shape.draw(rng, 100, 200)
    ends = [summarise_medians(rng.permutation(x), 200) for x in series]
    held = [s.low <= 1.0 <= s.high for s in ends if s.low is not None and s.high is not None]
    assert np.mean(held) < 0.8
