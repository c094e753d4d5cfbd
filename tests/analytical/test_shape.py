"""Outliers, modes and drift named where they are and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from ridgeline.analytical.shape import describe, modified_z


def test_plain_noise_has_nothing_to_say() -> None:
    rng = np.random.default_rng(1)
    shapes = [describe(100.0 + rng.normal(size=50)) for _ in range(100)]
    assert np.mean([s.notes == () for s in shapes]) > 0.85


def test_outliers_are_counted_and_are_no_mode() -> None:
    x = 100.0 + np.random.default_rng(2).normal(size=100)
    x[[10, 50, 90]] += 30.0
    s = describe(x)
    assert s.modes is None
    assert 3 <= s.outliers <= 5
    assert "kept" in s.notes[0]


def test_two_modes_are_named_and_are_no_outliers() -> None:
    rng = np.random.default_rng(3)
    s = describe(100.0 + rng.normal(size=100) + 10.0 * (rng.random(100) < 0.3))
    assert s.modes is not None
    assert (s.modes.low, s.modes.high) == (pytest.approx(100.0, abs=1.0), pytest.approx(110.0, abs=1.0))
    assert s.modes.share_high == pytest.approx(0.3, abs=0.12)
    assert s.outliers <= 3


def test_a_drift_is_told_over_the_window_and_is_no_mode() -> None:
    s = describe(100.0 + np.random.default_rng(4).normal(size=100) + np.linspace(-10.0, 10.0, 100))
    assert s.drift_relative == pytest.approx(0.2, rel=0.1)
    assert s.modes is None


def test_modified_z_when_most_values_are_equal() -> None:
    assert modified_z(np.ones(9)).tolist() == [0.0] * 9
    assert modified_z(np.array([1.0] * 9 + [50.0]))[-1] > 3.5


def test_no_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="no blocks"):
        describe([])
