"""Medians and their intervals on synthetic signals whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interval_coverage import ar1
from scipy import stats

from ridgeline.analytical.statistics import (
    SMALLEST_EFFECTIVE,
    interval_ranks,
    summarise,
    summarise_medians,
)


@pytest.mark.parametrize(
    ("n", "ranks"),
    [(5, None), (6, (1, 6)), (10, (2, 9)), (20, (6, 15)), (30, (10, 21)), (50, (18, 33)), (100, (40, 61))],
)
def test_ranks_are_those_of_the_published_tables(n: int, ranks: tuple[int, int] | None) -> None:
    assert interval_ranks(n) == ranks


@given(st.integers(min_value=6, max_value=2000), st.sampled_from([0.9, 0.95, 0.99]))
def test_ranks_are_the_narrowest_that_reach_the_confidence(n: int, confidence: float) -> None:
    ranks = interval_ranks(n, confidence)
    if ranks is None:
        assert 1 - 2 * 0.5**n < confidence
        return
    low, high = ranks
    assert low + high == n + 1
    assert 1 - 2 * stats.binom.cdf(low - 1, n, 0.5) >= confidence
    assert 1 - 2 * stats.binom.cdf(low, n, 0.5) < confidence


def test_interval_covers_the_median_of_skewed_times_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    truth = 1.0 + math.log(2.0) * 0.1  # median of 1 + 0.1 Exp(1)
    covered = []
    for _ in range(1000):
        s = summarise(1.0 + 0.1 * rng.exponential(size=(20, 1)))
        if s.low is not None and s.high is not None:
            covered.append(s.low <= truth <= s.high)
    # 20 values give 95.9 %; the widening for a chance autocorrelation adds two points. Where chance leaves too few
    # effective blocks no interval is claimed.
    assert len(covered) > 970
    assert sum(covered) / len(covered) >= 0.95


def test_autocorrelated_blocks_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(size=400)
    walk = np.zeros(400)
    for i in range(1, 400):
        walk[i] = 0.8 * walk[i - 1] + noise[i]
    correlated = summarise((10.0 + walk)[:, None])
    shuffled = summarise((10.0 + rng.permutation(walk))[:, None])
    assert correlated.autocorrelation > 0.6
    assert correlated.n_effective < 100
    assert correlated.half_width_relative > 1.5 * shuffled.half_width_relative


@pytest.mark.parametrize("n", [6, 10, 30])
def test_equal_blocks_have_an_interval_without_width(n: int) -> None:
    s = summarise_medians([2.0] * n, n)
    assert (s.median, s.low, s.high, s.n_effective, s.drift_per_block) == (2.0, 2.0, 2.0, n, 0.0)


@pytest.mark.parametrize("n", [8, 20, 60])
def test_blocks_that_remember_too_much_have_no_interval(n: int) -> None:
    """Ten blocks low, then ten high, are two blocks' worth; the range of all would be a guess."""
    s = summarise_medians([1.0 + 1e-3 * (i % 3) + (i >= n // 2) for i in range(n)], n)
    assert (s.low, s.high) == (None, None)
    assert s.n_effective < SMALLEST_EFFECTIVE


@pytest.mark.parametrize("rho", [0.1, 0.3, 0.6, 0.9])
def test_the_range_of_dependent_blocks_holds_the_median(rho: float) -> None:
    n = math.ceil(SMALLEST_EFFECTIVE * (1 + rho) / (1 - rho))
    series = ar1(np.random.default_rng(6), n, rho, 4000)
    assert np.mean((series > 0).all(axis=1) | (series < 0).all(axis=1)) < 0.03


def test_blocks_that_remember_much_have_their_range_and_too_much_none() -> None:
    rng, seen = np.random.default_rng(8), []
    for _ in range(100):
        x = 1.0 + 0.01 * ar1(rng, 50, 0.9)
        s = summarise_medians(x, 50)
        if s.n_effective < 6.0:
            enough = s.n_effective >= SMALLEST_EFFECTIVE
            assert (s.low, s.high) == ((x.min(), x.max()) if enough else (None, None))
            seen.append(enough)
    assert {True, False} == set(seen)


def test_a_drift_does_not_widen_the_interval_on_the_mean_median() -> None:
    rng = np.random.default_rng(4)
    noise = 0.01 * rng.normal(size=100)
    still, moving = (
        summarise_medians(1.0 + noise, 100),
        summarise_medians(1.0 + noise + np.linspace(-0.1, 0.1, 100), 100),
    )
    assert moving.drift_per_block == pytest.approx(0.2 / 99, rel=0.1)
    assert still.drift_per_block == 0.0
    assert moving.half_width_relative < 2.0 * still.half_width_relative
    assert moving.low is not None
    assert moving.high is not None
    assert moving.low <= 1.0 <= moving.high


def test_medians_and_blocks_give_the_same_summary() -> None:
    blocks = np.random.default_rng(5).exponential(size=(40, 7))
    assert summarise(blocks) == summarise_medians(np.median(blocks, axis=1), 280)


def test_few_blocks_have_no_interval() -> None:
    s = summarise([[1.0, 2.0, 3.0]] * 5)
    assert (s.median, s.low, s.high) == (2.0, None, None)
    assert math.isinf(s.half_width_relative)


def test_blocks_of_different_sizes_count_once_each() -> None:
    s = summarise([[1.0], [1.0], [5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0], [1.0], [1.0]])
    assert s.median == 1.0
    assert s.n_samples == 11


@pytest.mark.parametrize("blocks", [[], [[]], [[1.0], []]])
def test_no_samples_is_refused(blocks: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarise(blocks)


@given(st.lists(st.floats(1e-6, 1e3), min_size=6, max_size=60), st.floats(0.1, 10.0))
def test_summary_scales_with_the_unit(values: list[float], factor: float) -> None:
    one, other = summarise([[v] for v in values]), summarise([[v * factor] for v in values])
    assert other.median == pytest.approx(one.median * factor)
    assert one.low is None or one.low <= one.median
    assert one.high is None or one.median <= one.high


def test_rounding_errors_are_no_dependence_between_blocks() -> None:
    """Equal times whose last bits wander, as differences of a growing clock do."""
    medians = [7e-6 * (1.0 + 1e-13 * n) for n in range(60)]
    summary = summarise([[m] for m in medians])
    assert summary.n_effective == pytest.approx(60.0)
    assert summary.drift_per_block == 0.0
    assert summary.half_width_relative < 1e-9
