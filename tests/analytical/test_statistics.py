"""Medians and their intervals on synthetic signals whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ridgeline.analytical.statistics import (
    effective_size,
    interval_ranks,
    lag1_autocorrelation,
    summarise,
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
    # 20 values give 95.9 %; the widening for a chance autocorrelation adds a little. Three standard errors down. A
    # chance autocorrelation over 0.54 leaves too few effective blocks, and then no interval is claimed.
    assert len(covered) > 980
    assert sum(covered) / len(covered) >= 0.94


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


def test_lag1_autocorrelation_of_known_signals() -> None:
    assert lag1_autocorrelation([1.0, 1.0, 1.0, 1.0]) == 0.0
    assert lag1_autocorrelation([1.0, 2.0]) == 0.0
    assert lag1_autocorrelation([1.0, -1.0] * 50) == pytest.approx(-0.99)
    assert lag1_autocorrelation(np.arange(1000.0)) > 0.99


def test_effective_size() -> None:
    assert effective_size(100, 0.2) == 100.0
    assert effective_size(100, -0.9) == 100.0
    assert effective_size(100, 0.5) == pytest.approx(100 / 3)


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
