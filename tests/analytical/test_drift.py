"""Drift found where it is, and not where a stationary series only wanders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interval_coverage import ar1

from ridgeline.analytical.drift import FEWEST, drift_per_block, slope_per_block


@given(st.integers(2, 200), st.floats(-5.0, 5.0), st.floats(-100.0, 100.0))
def test_slope_of_a_straight_line_is_exact(n: int, slope: float, start: float) -> None:
    assert slope_per_block(start + slope * np.arange(n)) == pytest.approx(slope, abs=1e-9)


def test_slope_withstands_a_fifth_of_outliers() -> None:
    x = 0.1 * np.arange(100.0)
    x[::5] += 50.0
    assert slope_per_block(x) == pytest.approx(0.1, rel=0.02)


def test_one_value_has_no_slope() -> None:
    assert slope_per_block(np.array([3.0])) == 0.0


@pytest.mark.parametrize("n", [50, 200])
def test_a_clear_drift_is_found_and_its_size_is_right(n: int) -> None:
    rng = np.random.default_rng(1)
    per_block = 4.0 / n
    found = [drift_per_block(rng.normal(size=n) + per_block * np.arange(n)) for _ in range(200)]
    assert np.mean([slope != 0.0 for slope in found]) > 0.97
    assert np.median(found) == pytest.approx(per_block, rel=0.1)


def test_a_drift_without_noise_is_found() -> None:
    assert drift_per_block(5.0 - 0.01 * np.arange(30.0)) == pytest.approx(-0.01)


@pytest.mark.parametrize(("rho", "share"), [(0.0, 0.005), (0.5, 0.015), (0.9, 0.02)])
@pytest.mark.parametrize("n", [50, 150])
def test_stationary_series_seldom_look_like_a_drift(n: int, rho: float, share: float) -> None:
    rng = np.random.default_rng(2)
    assert np.mean([drift_per_block(ar1(rng, n, rho)) != 0.0 for _ in range(500)]) <= share


def test_few_or_equal_values_do_not_drift() -> None:
    assert drift_per_block(np.arange(FEWEST - 1.0)) == 0.0
    assert drift_per_block(np.ones(40)) == 0.0
