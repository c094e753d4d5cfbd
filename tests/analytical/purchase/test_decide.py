"""Draws that inputs share, and decisions from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.analytical.purchase.chance import Certain, ChanceError, Draws, Lognormal, Triangular, parse_chance
from ridgeline.analytical.purchase.decide import decide, drivers, quantiles


def test_distributions_have_their_quantiles() -> None:
    u = (np.arange(10_000) + 0.5) / 10_000
    triangular = Triangular(1.0, 2.0, 6.0).quantile(u)
    assert triangular.min() >= 1.0
    assert triangular.max() <= 6.0
    assert triangular.mean() == pytest.approx((1.0 + 2.0 + 6.0) / 3.0, rel=1e-3)
    lognormal = Lognormal(3.0, 0.2).quantile(u)
    assert np.median(lognormal) == pytest.approx(3.0, rel=1e-3)
    assert np.std(np.log(lognormal)) == pytest.approx(0.2, rel=0.01)


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_quantiles_rise(a: float, b: float) -> None:
    low, high = sorted((min(max(a, 1e-9), 1 - 1e-9), min(max(b, 1e-9), 1 - 1e-9)))
    for chance in (Triangular(0.0, 0.0, 1.0), Triangular(0.0, 1.0, 1.0), Lognormal(1.0, 1.0), Certain(2.0)):
        found = chance.quantile(np.array([low, high]))
        assert found[0] <= found[1]


@pytest.mark.parametrize(
    "value",
    ["3", True, {}, {"low": 1, "mode": 0, "high": 2}, {"median": -1, "sigma": 1}, {"low": 1, "high": 2}, [1], -1],
)
def test_what_is_no_distribution_is_refused(value: object) -> None:
    with pytest.raises(ChanceError) as refused:
        parse_chance(value)
    assert "\n" not in str(refused.value)


def test_draws_depend_on_the_name_alone() -> None:
    one, other = Draws(7, 100), Draws(7, 100)
    price = Lognormal(1.0, 0.2)
    other("something first", price)
    np.testing.assert_array_equal(one("rent of a", price), other("rent of a", price))
    assert not np.array_equal(one("rent of b", price), one("rent of a", price))
    assert list(one.used) == ["rent of a", "rent of b"]
    one("known", Certain(3.0))
    assert "known" not in one.used


def worlds(gap: float, sigma: float, count: int = 20_000) -> tuple[np.ndarray, Draws]:
    """Two options: costs 100 and 100 (1 + gap), each with a factor of its own, both with a common one."""
    draws = Draws(1, count)
    common = draws("common", Lognormal(1.0, 0.5))
    a, b = draws("a", Lognormal(1.0, sigma)), draws("b", Lognormal(1.0, sigma))
    return np.stack([100.0 * common * a, 100.0 * (1.0 + gap) * common * b], axis=1), draws


def test_probability_of_being_cheapest_is_the_closed_form() -> None:
    """Of two lognormals: Phi(log(1 + gap) / (sigma sqrt 2)), whatever they have in common."""
    from scipy.special import ndtr

    cost, _ = worlds(0.2, 0.1)
    decision = decide(cost, 0.8)
    assert decision.probability_cheapest[0] == pytest.approx(float(ndtr(np.log(1.2) / (0.1 * np.sqrt(2.0)))), abs=0.01)
    assert (decision.best, decision.runner_up, decision.ranks) == (0, 1, True)
    assert decision.expected_regret_usd[0] < decision.expected_regret_usd[1]
    assert not decide(worlds(0.02, 0.2)[0], 0.8).ranks


def test_what_is_worth_measuring_is_what_can_change_the_choice() -> None:
    cost, draws = worlds(0.02, 0.2)
    decision = decide(cost, 0.8)
    found = {d.name: d for d in drivers(cost, decision, draws.used)}
    assert found["common"].value_usd == 0.0  # it moves the cost most, and never the choice
    assert found["common"].swing > 3.0
    assert found["common"].margin_swing == pytest.approx(1.0, abs=0.03)
    assert not found["common"].flips
    assert found["a"].flips
    assert found["b"].flips
    assert 0.0 < found["a"].value_usd <= decision.expected_regret_usd[decision.best]
    sure = decide(worlds(3.0, 0.1)[0], 0.8)
    assert all(d.value_usd == 0.0 for d in drivers(worlds(3.0, 0.1)[0], sure, draws.used))


def test_an_option_that_fails_in_some_worlds_is_not_cheap_there() -> None:
    cost, draws = worlds(0.2, 0.05)
    cost[::2, 0] = np.inf
    decision = decide(cost, 0.8)
    assert decision.probability_cheapest[0] == pytest.approx(0.5, abs=0.01)
    assert all(np.isfinite(d.value_usd) for d in drivers(cost, decision, draws.used))
    shown = quantiles(cost[:, 0])
    assert shown["p10"] is not None
    assert shown["p90"] is None
    assert None not in quantiles(cost[:, 1]).values()
