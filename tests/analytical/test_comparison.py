"""Ratios of interleaved times: what cancels, how often repeated looks are wrong, and what a verdict may say."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ridgeline.analytical.comparison import (
    detectable_change,
    log_ratios,
    planned_looks,
    sequential_interval,
    sign_inflation,
    verdict,
    walk_ranks,
)

Series = Callable[[np.random.Generator, int], NDArray[np.float64]]


def independent(random: np.random.Generator, n: int) -> NDArray[np.float64]:
    return random.normal(0.0, 0.02, n)


def with_outliers(random: np.random.Generator, n: int) -> NDArray[np.float64]:
    return independent(random, n) + np.where(random.random(n) < 0.1, random.exponential(1.0, n), 0.0) * random.choice(
        [-1.0, 1.0], n
    )


def correlated(random: np.random.Generator, n: int) -> NDArray[np.float64]:
    noise = random.normal(0.0, 0.02, n)
    out = np.empty(n)
    state = noise[0]
    for i in range(n):
        state = 0.5 * state + noise[i]
        out[i] = state
    return out


def bimodal(random: np.random.Generator, n: int) -> NDArray[np.float64]:
    return random.normal(0.0, 0.004, n) + random.choice([-0.03, 0.0, 0.03], n, p=[0.25, 0.5, 0.25])


def sequential(values: NDArray[np.float64], looks: tuple[int, ...], margin: float) -> str:
    """The verdict of a comparison that stops at the first look that decides."""
    said = "unclear"
    for look in looks:
        interval = sequential_interval(values[:look], looks)
        said = verdict(interval.log_low, interval.log_high, margin)
        if said != "unclear":
            break
    return said


LOOKS = planned_looks(300)


@pytest.mark.parametrize(
    ("series", "most"), [(independent, 0.02), (with_outliers, 0.02), (bimodal, 0.02), (correlated, 0.05)]
)
def test_looking_repeatedly_at_equal_times_is_rarely_wrong(series: Series, most: float) -> None:
    """With next to no margin every miss of the interval is a false alarm; confidence is 0.99."""
    random = np.random.default_rng(7)
    wrong = sum(sequential(series(random, 300), LOOKS, 1e-9) in ("faster", "slower") for _ in range(300))
    assert wrong / 300 <= most


def test_equal_times_are_proved_the_same_and_five_percent_is_found() -> None:
    random = np.random.default_rng(8)
    same = [sequential(independent(random, 300), LOOKS, 0.02) for _ in range(100)]
    slower = [sequential(independent(random, 300) + math.log(1.05), LOOKS, 0.02) for _ in range(100)]
    assert same.count("same") >= 95
    assert slower.count("slower") >= 95
    assert same.count("slower") + same.count("faster") <= 2


def test_a_drift_that_is_linear_over_a_quad_cancels() -> None:
    # A B B A at times 0, 1, 2, 3, all of one kernel that gets slower by 10 % a leg.
    time = [1.0 + 0.1 * t for t in range(4)]
    assert log_ratios([[time[0], time[3]]], [[time[1], time[2]]])[0] == pytest.approx(0.0)


@given(st.lists(st.tuples(*[st.floats(0.5, 2.0)] * 4), min_size=1, max_size=60))
def test_swapping_the_sides_turns_the_ratio_round(quads: list[tuple[float, float, float, float]]) -> None:
    a, b = [q[:2] for q in quads], [q[2:] for q in quads]
    there = sequential_interval(log_ratios(a, b), (len(quads),))
    back = sequential_interval(log_ratios(b, a), (len(quads),))
    assert there.log_ratio == pytest.approx(-back.log_ratio)
    if there.log_low is None or there.log_high is None:
        assert back.log_low is None
    else:
        assert (back.log_low, back.log_high) == (pytest.approx(-there.log_high), pytest.approx(-there.log_low))
        assert there.log_low <= there.log_ratio <= there.log_high


@given(st.integers(1, 4000))
def test_looks_grow_and_end_with_the_last_quad(most: int) -> None:
    looks = planned_looks(most)
    assert looks[-1] == most
    assert list(looks) == sorted(set(looks))


def test_ranks_spend_no_more_than_they_may() -> None:
    """The walk's own probability of a miss, by simulation of fair coins."""
    looks, spending = (24, 60, 150), (0.02, 0.05, 0.10)
    ranks = walk_ranks(looks, spending)
    assert all(r >= 1 for r in ranks)
    heads = np.cumsum(np.random.default_rng(3).integers(0, 2, (20_000, 150)), axis=1)
    missed = np.zeros(20_000, dtype=bool)
    for look, rank, allowed in zip(looks, ranks, spending, strict=True):
        below = heads[:, look - 1]
        missed |= (below < rank) | (below > look - rank)
        assert missed.mean() <= allowed + 0.006  # three standard errors of the simulation
    assert missed.mean() >= 0.05  # and they use what they are given
    with pytest.raises(ValueError, match="looks must grow"):
        walk_ranks((5, 5), (0.1, 0.1))


def test_many_quads_do_not_overflow() -> None:
    assert walk_ranks((4000,), (0.01,))[0] > 1800


def test_correlation_widens_and_independence_does_not() -> None:
    random = np.random.default_rng(5)
    assert np.mean([sign_inflation(correlated(random, 400)) for _ in range(20)]) > 1.5
    assert np.mean([sign_inflation(independent(random, 400)) for _ in range(20)]) < 1.3
    assert sign_inflation([1.0, 1.0, 1.0, 1.0, 1.0]) == 1.0
    assert sign_inflation([]) == 1.0


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.03, 0.05, "slower"),
        (-0.05, -0.03, "faster"),
        (-0.01, 0.01, "same"),
        (0.005, 0.015, "same"),  # real, and within the margin
        (0.01, 0.03, "unclear"),
        (-0.10, 0.10, "unclear"),
        (None, None, "unclear"),
    ],
)
def test_a_verdict_follows_where_the_interval_lies(low: float | None, high: float | None, said: str) -> None:
    assert verdict(low, high, 0.02) == said


def test_without_quads_there_is_nothing_to_compare_and_few_give_no_interval() -> None:
    with pytest.raises(ValueError, match="no quads"):
        sequential_interval([], (24,))
    few = sequential_interval([0.0, 0.1, 0.2], (24,))
    assert few.low is None
    assert few.ratio == pytest.approx(math.exp(0.1))
    assert detectable_change(few, 100, 0.02) is None


def test_more_quads_find_smaller_changes() -> None:
    interval = sequential_interval(independent(np.random.default_rng(1), 300), LOOKS)
    found = [detectable_change(interval, quads, 0.02) for quads in (100, 300, 3000)]
    assert found[0] > found[1] > found[2] > 0.02  # type: ignore[operator]
