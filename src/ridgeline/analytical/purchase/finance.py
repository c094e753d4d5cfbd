"""Costs: pure functions of numbers or float64 columns. Money in US dollars, rates per year, times in hours where said.

Capital recovery and present values are those of engineering economics (Park, "Contemporary Engineering Economics", chapters 3
and 5); power and hosting as data centres are billed (Barroso, Hölzle, Ranganathan, "The Datacenter as a Computer", chapter 6).
"""

from __future__ import annotations

from typing import Any

import numpy as np

HOURS_PER_YEAR = 8760.0
HOURS_PER_MONTH = 730.0


def capital_recovery_factor(rate: Any, years: Any) -> Any:
    """Share of a sum that has to be paid back each year: r(1+r)^n / ((1+r)^n - 1); 1/n at no interest.

    10 % over 5 years: 0.2638; over 4 years: 0.3155.
    """
    rate, years = np.asarray(rate, dtype=np.float64), np.asarray(years, dtype=np.float64)
    grown = np.expm1(years * np.log1p(rate))
    return np.divide(rate * (grown + 1.0), grown, out=np.asarray(1.0 / years + 0.0 * grown), where=grown != 0.0)[()]


def capital_usd_per_h(capex_usd: Any, residual_usd: Any, rate: Any, years: Any, availability: Any = 1.0) -> Any:
    """Capital cost of an hour in which the device is available."""
    present = capex_usd - residual_usd / (1.0 + rate) ** years
    return present * capital_recovery_factor(rate, years) / (HOURS_PER_YEAR * availability)


def power_kw(busy_w: Any, idle_w: Any, host_w: Any, utilisation: Any, pue: Any) -> Any:
    """Mean power at the meter of one device with its share of the host, in kW."""
    return (utilisation * busy_w + (1.0 - utilisation) * idle_w + host_w) * pue / 1000.0


def energy_usd_per_h(mean_kw: Any, usd_per_kwh: Any) -> Any:
    """Electricity."""
    return mean_kw * usd_per_kwh


def hosting_usd_per_h(provisioned_kw: Any, usd_per_kw_month: Any) -> Any:
    """Space and cooling, billed by the power that is provided, used or not."""
    return provisioned_kw * usd_per_kw_month / HOURS_PER_MONTH


def maintenance_usd_per_h(capex_usd: Any, share_per_year: Any) -> Any:
    """Maintenance as a share of the purchase."""
    return share_per_year * capex_usd / HOURS_PER_YEAR


def usd_per_million_tokens(usd_per_h: Any, tokens_per_s: Any, utilisation: Any = 1.0) -> Any:
    """``tokens_per_s`` is what the hardware can deliver, ``utilisation`` the share of it that is asked for."""
    return usd_per_h * 1e6 / (3600.0 * tokens_per_s * utilisation)


def tokens_per_s_per_mw(tokens_per_s: Any, all_in_kw: Any) -> Any:
    """Throughput of a megawatt at the meter."""
    return tokens_per_s * 1000.0 / all_in_kw


def break_even_utilisation(owned_fixed_usd_per_h: Any, rent_usd_per_h: Any, owned_variable_usd_per_h: Any) -> Any:
    """Share of the hours in use from which owning costs less than renting those hours; over 1: never.

    ``owned_variable_usd_per_h`` is what an hour in use costs the owner beyond the fixed cost. Infinity where renting an hour
    costs no more than that.
    """
    gain = np.asarray(rent_usd_per_h - owned_variable_usd_per_h, dtype=np.float64)
    fixed = np.asarray(owned_fixed_usd_per_h, dtype=np.float64) + 0.0 * gain
    return np.divide(fixed, gain, out=np.full_like(fixed, np.inf), where=gain > 0.0)[()]


def break_even_months(capex_usd: Any, rent_usd_per_h: Any, owned_running_usd_per_h: Any, utilisation: Any = 1.0) -> Any:
    """Months until the rent saved has paid the purchase, without interest; infinity where nothing is saved.

    ``owned_running_usd_per_h`` is what owning costs per hour beside the purchase; rent is paid in ``utilisation`` of the hours.
    """
    saved = np.asarray(rent_usd_per_h * utilisation - owned_running_usd_per_h, dtype=np.float64)
    capex = np.asarray(capex_usd, dtype=np.float64) + 0.0 * saved
    hours = np.divide(capex, saved, out=np.full_like(capex, np.inf), where=saved > 0.0)
    return (hours / HOURS_PER_MONTH)[()]


def net_present_value_usd(capex_usd: Any, saved_usd_per_year: Any, residual_usd: Any, rate: Any, years: Any) -> Any:
    """Value today of buying instead of renting: savings of each year, at its end, and the residual, less the purchase."""
    return saved_usd_per_year / capital_recovery_factor(rate, years) + residual_usd / (1.0 + rate) ** years - capex_usd


def crossover_usd_per_kwh(fixed_a_usd_per_h: Any, kw_a: Any, fixed_b_usd_per_h: Any, kw_b: Any) -> Any:
    """Price of electricity at which two fleets cost the same; NaN-free: infinity where their powers are equal.

    Negative where one is cheaper at every price.
    """
    difference = np.asarray(kw_a - kw_b, dtype=np.float64)
    money = np.asarray(fixed_b_usd_per_h - fixed_a_usd_per_h, dtype=np.float64) + 0.0 * difference
    return np.divide(money, difference, out=np.full_like(money, np.inf), where=difference != 0.0)[()]


def carbon_g(energy_kwh: Any, grid_g_per_kwh: Any, embodied_kg: Any, share_of_life: Any) -> Any:
    """Carbon dioxide: of the electricity, and the share of what making the devices cost."""
    return energy_kwh * grid_g_per_kwh + embodied_kg * 1000.0 * share_of_life
