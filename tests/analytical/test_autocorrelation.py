"""Autocorrelation and the independent blocks it leaves, on series whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interval_coverage import ar1
from scipy import stats

from ridgeline.analytical.autocorrelation import (
    HIGHEST_RHO,
    corrected_rho,
    initial_monotone_time,
    integrated_time,
    lag1_autocorrelation,
    mean_ranks,
    normal_scores,
)


def test_lag1_autocorrelation_of_known_signals() -> None:
    assert lag1_autocorrelation([1.0, 1.0, 1.0, 1.0]) == 0.0
    assert lag1_autocorrelation([1.0, 2.0]) == 0.0
    assert lag1_autocorrelation([1.0, -1.0] * 50) == pytest.approx(-0.99)
    assert lag1_autocorrelation(np.arange(1000.0)) > 0.99


@given(st.lists(st.integers(0, 20), min_size=1, max_size=80))
def test_ranks_are_those_of_scipy_with_ties(values: list[int]) -> None:
    x = np.array(values, dtype=np.float64)
    assert mean_ranks(x).tolist() == stats.rankdata(x).tolist()


def test_ranks_without_ties_are_those_of_scipy() -> None:
    x = np.random.default_rng(0).normal(size=500)
    assert mean_ranks(x).tolist() == stats.rankdata(x).tolist()


def test_equal_values_have_no_autocorrelation() -> None:
    """A clock that ticks coarsely gives equal medians; ranked from left to right they would look like a trend."""
    assert integrated_time(normal_scores(mean_ranks(np.ones(50)))) == 1.0


def test_scores_of_many_ranks_are_standard_normal() -> None:
    scores = normal_scores(np.arange(1.0, 1001.0))
    assert scores.mean() == pytest.approx(0.0, abs=1e-12)
    assert scores.std() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("rho", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("detrended", [False, True])
def test_the_correction_takes_away_most_of_the_bias(rho: float, detrended: bool) -> None:
    rng = np.random.default_rng(3)
    n = 50
    time = np.arange(n) - (n - 1) / 2.0
    raw, corrected = [], []
    for _ in range(1000):
        x = ar1(rng, n, rho)
        if detrended:
            x -= x.mean() + time * (time @ x) / (time @ time)
        raw.append(lag1_autocorrelation(x))
        corrected.append(corrected_rho(x, detrended))
    assert abs(np.mean(corrected) - rho) < 0.5 * abs(np.mean(raw) - rho)


@given(st.lists(st.floats(-1e6, 1e6), max_size=40), st.booleans())
def test_corrected_rho_stays_in_its_range(values: list[float], detrended: bool) -> None:
    assert 0.0 <= corrected_rho(np.array(values), detrended) <= HIGHEST_RHO


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_initial_monotone_time_of_a_long_series_is_that_of_its_model(rho: float) -> None:
    rng = np.random.default_rng(4)
    seen = np.mean([initial_monotone_time(ar1(rng, 20000, rho)) for _ in range(5)])
    assert seen == pytest.approx((1 + rho) / (1 - rho), rel=0.15)


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_the_rank_of_the_truth_varies_no_more_than_the_time_says(rho: float) -> None:
    rng = np.random.default_rng(5)
    n = 400
    series = [ar1(rng, n, rho) for _ in range(800)]
    below = np.array([(x < 0.0).sum() for x in series])
    truth = below.var() / (n / 4.0)
    seen = np.median([integrated_time(normal_scores(mean_ranks(x))) for x in series])
    assert truth < seen < truth * 1.8


def test_slow_wandering_below_independent_noise_is_seen() -> None:
    """The lag-1 correlation of half noise, half AR(1) 0.9 is 0.45: an AR(1) of that would say 2 for the true 7."""
    rng = np.random.default_rng(6)
    n = 400
    times = []
    for _ in range(100):
        x = ar1(rng, n, 0.9) + rng.normal(size=n)
        times.append(integrated_time(normal_scores(mean_ranks(x))))
    assert np.median(times) > 4.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.booleans())
def test_time_is_finite_and_never_less_than_one(values: list[float], detrended: bool) -> None:
    time = integrated_time(normal_scores(mean_ranks(np.array(values))), detrended)
    assert 1.0 <= time < np.inf


@given(st.lists(st.floats(1e-3, 1e3), min_size=6, max_size=60, unique=True))
def test_time_depends_on_the_order_of_values_only(values: list[float]) -> None:
    x = np.array(values)
    assert integrated_time(normal_scores(mean_ranks(x))) == integrated_time(normal_scores(mean_ranks(x**3)))
