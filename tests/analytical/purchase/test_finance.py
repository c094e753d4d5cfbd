"""Each formula with the check values of its source and its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.analytical.purchase import finance

RATES = st.floats(0.0, 0.3)
YEARS = st.floats(1.0, 10.0)
MONEY = st.floats(1.0, 1e6)


def test_capital_recovery_of_textbooks() -> None:
    assert finance.capital_recovery_factor(0.10, 5.0) == pytest.approx(0.2638, abs=5e-5)
    assert finance.capital_recovery_factor(0.10, 4.0) == pytest.approx(0.3155, abs=5e-5)
    assert finance.capital_recovery_factor(0.0, 4.0) == 0.25


@given(RATES, YEARS)
def test_payments_have_the_present_value_of_the_loan(rate: float, years: float) -> None:
    whole = round(years)
    payment = finance.capital_recovery_factor(rate, whole)
    assert sum(payment / (1.0 + rate) ** k for k in range(1, whole + 1)) == pytest.approx(1.0)


def test_an_h100_of_45_thousand_costs_a_dollar_fifty() -> None:
    """45 k$ all-in at 10 % over 5 years, 1.73 kW at 0.08 $/kWh: 1.36 + 0.14 (energy-stats-dashboard-tco.md D)."""
    capital = finance.capital_usd_per_h(45_000.0, 0.0, 0.10, 5.0)
    energy = finance.energy_usd_per_h(1.73, 0.08)
    assert capital == pytest.approx(1.36, abs=0.005)
    assert energy == pytest.approx(0.14, abs=0.002)
    assert capital + energy == pytest.approx(1.50, abs=0.01)
    assert 1.30 < capital + energy < 1.69  # between InferenceX's two owners


@given(MONEY, RATES, YEARS, st.floats(0.5, 1.0))
def test_capital_falls_with_residual_and_availability(
    capex: float, rate: float, years: float, availability: float
) -> None:
    whole = finance.capital_usd_per_h(capex, 0.0, rate, years)
    assert finance.capital_usd_per_h(capex, 0.3 * capex, rate, years) < whole
    assert finance.capital_usd_per_h(capex, 0.0, rate, years, availability) == pytest.approx(whole / availability)
    columns = finance.capital_usd_per_h(np.array([capex, capex]), 0.0, rate, years)
    assert columns.tolist() == pytest.approx([whole, whole])


def test_power_hosting_maintenance_tokens() -> None:
    assert finance.power_kw(700.0, 100.0, 250.0, 0.5, 1.2) == pytest.approx((400.0 + 250.0) * 1.2 / 1000.0)
    assert finance.hosting_usd_per_h(1.0, 146.0) == pytest.approx(0.2)
    assert finance.maintenance_usd_per_h(87_600.0, 0.04) == pytest.approx(0.4)
    # 3.6 $/h, 1000 tokens/s fully used: 3.6 million tokens an hour.
    assert finance.usd_per_million_tokens(3.6, 1000.0) == pytest.approx(1.0)
    assert finance.usd_per_million_tokens(3.6, 1000.0, 0.5) == pytest.approx(2.0)
    assert finance.tokens_per_s_per_mw(2000.0, 2.0) == pytest.approx(1e6)
    assert finance.carbon_g(10.0, 300.0, 200.0, 0.5) == pytest.approx(103_000.0)


@given(st.floats(0.1, 5.0), st.floats(0.2, 10.0), st.floats(0.0, 0.2))
def test_at_the_break_even_utilisation_both_cost_the_same(fixed: float, rent: float, variable: float) -> None:
    share = finance.break_even_utilisation(fixed, rent, variable)
    assert rent * share == pytest.approx(fixed + variable * share)
    assert finance.break_even_utilisation(fixed, variable, rent) == math.inf


def test_months_and_present_value() -> None:
    # 20 k$ saved at 2 $/h net: 10,000 h.
    assert finance.break_even_months(20_000.0, 3.0, 1.0) == pytest.approx(10_000.0 / 730.0)
    assert finance.break_even_months(20_000.0, 3.0, 1.0, 0.5) == pytest.approx(40_000.0 / 730.0)
    assert finance.break_even_months(20_000.0, 1.0, 1.0) == math.inf
    assert finance.net_present_value_usd(1000.0, 600.0, 100.0, 0.0, 2.0) == pytest.approx(300.0)
    yearly = 1000.0 * finance.capital_recovery_factor(0.1, 5.0)
    assert finance.net_present_value_usd(1000.0, yearly, 0.0, 0.1, 5.0) == pytest.approx(0.0, abs=1e-9)


@given(st.floats(0.5, 5.0), st.floats(0.5, 3.0), st.floats(0.5, 5.0), st.floats(0.5, 3.0))
def test_at_the_crossover_price_both_fleets_cost_the_same(a: float, kw_a: float, b: float, kw_b: float) -> None:
    price = finance.crossover_usd_per_kwh(a, kw_a, b, kw_b)
    if math.isfinite(price):
        assert a + kw_a * price == pytest.approx(b + kw_b * price, rel=1e-6, abs=1e-6 * (1.0 + abs(price)))
    assert finance.crossover_usd_per_kwh(1.0, 2.0, 3.0, 2.0) == math.inf
