"""Options: what one device costs and delivers in every world, from its curves, prices and powers. Columns of draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from ridgeline.analytical.purchase import finance
from ridgeline.analytical.purchase.chance import Chance, Draws, Lognormal
from ridgeline.analytical.purchase.facts import Facts
from ridgeline.analytical.purchase.frontier import Curve, Deployment
from ridgeline.analytical.purchase.scenario import Scenario, Traffic
from ridgeline.analytical.purchase.step_model import DEVICE_SIGMA, FIRST_TOKEN, SHAPE_SIGMA, SOFTWARE_EFFICIENCY
from ridgeline.analytical.serving.traffic import Floats


@dataclass(frozen=True)
class Plan:
    """How one device serves one traffic, in every world: columns of draws.

    A device is bought for good, its layout can be tried out: in each world it has the layout that needs the fewest devices there.
    """

    traffic: Traffic
    curves: tuple[Curve, ...]
    """Of the layouts that were simulated."""
    chosen: npt.NDArray[np.intp]
    """Which of them."""
    slowdown: Floats
    load: Floats
    """Requests per second of one replica at the service levels; NaN where they cannot be kept."""
    replicas: Floats
    """Infinity there."""
    devices: Floats
    busy: Floats
    latencies: dict[str, Floats]
    """Of each service level, at the peak; seconds."""


@dataclass(frozen=True)
class Option:
    """One device for all traffic: columns of draws; infinite where it does not serve."""

    facts: Facts
    plans: tuple[Plan, ...]
    devices: Floats
    power_kw: Floats
    usd_per_h: Floats
    cost_usd: Floats
    """Over the horizon."""
    tokens_per_s: float
    """Mean, input and output."""
    output_tokens_per_s: float
    capacity_tokens_per_s: Floats
    """What the fleet could deliver within the service levels."""
    usd_per_million_tokens: Floats
    usd_per_million_output_tokens: Floats
    j_per_token: Floats
    """All-in at the mean load."""
    busy_j_per_token: Floats
    """Of the devices alone at their goodput."""
    tokens_per_s_per_mw: Floats
    carbon_g_per_million_tokens: Floats
    carbon_t: Floats
    """Over the horizon."""
    break_even_utilisation: Floats | None
    """``None`` without both prices."""
    break_even_months: Floats | None
    net_present_value_usd: Floats | None
    """Of buying one device instead of renting it."""

    @property
    def name(self) -> str:
        """Device id."""
        return self.facts.device.id


class Slowdown:
    """Steps' times over those of the model: software, device and shape."""

    def __init__(self, scenario: Scenario) -> None:
        evidence = scenario.evidence
        self.software: Chance = evidence.software_efficiency or SOFTWARE_EFFICIENCY
        self.first_token: Chance = evidence.first_token or FIRST_TOKEN
        self.device_sigma = evidence.device_sigma or DEVICE_SIGMA
        self.shape_sigma = evidence.shape_sigma or SHAPE_SIGMA
        self.middle = 1.0 / self.software.middle
        ends = self.software.quantile(np.asarray([0.95, 0.05]))
        spread = math.exp(1.645 * math.hypot(self.device_sigma, self.shape_sigma))
        self.range = (1.0 / float(ends[0]) / spread, self.middle, spread / float(ends[1]))
        """Smallest, middle and largest that draws are likely to ask for."""
        self.slower, self.slowest = (
            float(1.0 / self.software.quantile(np.asarray([1.0 - p]))[0]) * spread ** (float(ndtri(p)) / 1.645)
            for p in (0.75, 0.9)
        )
        """What one in four worlds has, or more, and one in ten: roughly, for the parts are added up."""
        first = math.log(float(self.first_token.quantile(np.asarray([0.9]))[0]) / self.first_token.middle)
        steps = math.log(self.slowest / self.middle)
        both = math.hypot(first, steps)
        self.trials = (
            np.asarray([self.middle, self.slowest, self.middle * math.exp(steps**2 / both)]),
            1.0,
            self.first_token.middle * np.asarray([1.0, 1.0, math.exp(first**2 / both)]),
        )
        """Slowdown, error and factor on the first token: in the middle, where slow steps make it one world in ten, and where slow
        steps and a late first token do."""
        pair = math.sqrt(2.0 * (self.device_sigma**2 + self.shape_sigma**2))
        self.margin = math.exp(float(ndtri(0.99)) * pair)
        """Cost over the best from which a device is cheaper in less than one of a hundred worlds."""

    def draw(self, draws: Draws, deployment: Deployment, traffic: Traffic) -> Floats:
        """Slowdown in every world."""
        software = draws("software efficiency", self.software)
        device = draws(f"step times of {deployment.device}", Lognormal(1.0, self.device_sigma))
        shape = draws(
            f"shapes of {traffic.model} on {deployment.device} {deployment.layout.label}",
            Lognormal(1.0, self.shape_sigma),
        )
        return device * shape / software


def best_plan(scenario: Scenario, traffic: Traffic, curves: list[Curve], draws: Draws, slow: Slowdown) -> Plan:
    """In each world the layout that needs the fewest devices."""
    plans = [_plan(scenario, traffic, one, draws, slow) for one in curves]
    chosen = np.argmin(np.stack([plan.devices for plan in plans]), axis=0)

    def pick(columns: list[Floats]) -> Floats:
        return np.asarray(np.take_along_axis(np.stack(columns), chosen[None, :], axis=0)[0])

    return Plan(
        traffic,
        tuple(curves),
        chosen,
        slowdown=pick([plan.slowdown for plan in plans]),
        load=pick([plan.load for plan in plans]),
        replicas=pick([plan.replicas for plan in plans]),
        devices=pick([plan.devices for plan in plans]),
        busy=pick([plan.busy for plan in plans]),
        latencies={label: pick([plan.latencies[label] for plan in plans]) for label in plans[0].latencies},
    )


def _plan(scenario: Scenario, traffic: Traffic, one: Curve, draws: Draws, slow: Slowdown) -> Plan:
    costs = scenario.costs
    slowdown = slow.draw(draws, one.deployment, traffic)
    noise = draws(f"simulation of {traffic.model} on {one.deployment.device}", one.sampling_error)
    first_token = draws("engine's share of the first token", slow.first_token)
    load = one.load_at(slowdown, noise, first_token)
    peak = traffic.mean_requests_per_s * traffic.peak_factor
    with np.errstate(invalid="ignore"):
        replicas = np.ceil(peak / (load * costs.max_utilisation * costs.availability) - 1e-9) + costs.spare_replicas
    replicas = np.where(np.isnan(load), np.inf, replicas)
    served = np.isfinite(replicas)
    shared = np.where(served, replicas, 1.0) * costs.availability
    busy = np.where(served, one.busy_at(traffic.mean_requests_per_s / shared, slowdown), np.nan)
    at_peak = one.latencies_at(peak / shared, slowdown, first_token)
    latencies = {label: np.where(served, seconds, np.nan) for label, seconds in at_peak.items()}
    chosen = np.zeros(scenario.draws, dtype=np.intp)
    devices = replicas * one.deployment.layout.devices
    return Plan(traffic, (one,), chosen, slowdown, load, replicas, devices, busy, latencies)


def make_option(scenario: Scenario, fact: Facts, plans: tuple[Plan, ...], draws: Draws) -> Option:
    costs = scenario.costs
    name = fact.device.id
    busy_w, idle_w = draws(f"busy power of {name}", fact.busy_w), draws(f"idle power of {name}", fact.idle_w)
    host_w, pue = draws("host power", costs.host_w), draws("PUE", costs.pue)
    devices = np.sum([p.devices for p in plans], axis=0)
    kw = np.sum(
        [
            np.where(np.isfinite(p.devices), p.devices, 0.0)
            * finance.power_kw(busy_w, idle_w, host_w, np.nan_to_num(p.busy), pue)
            for p in plans
        ],
        axis=0,
    )
    served = np.isfinite(devices)
    kw = np.where(served, kw, np.inf)
    owned = _owned(scenario, fact, draws, (busy_w + host_w) * pue / 1000.0)
    rent = None if fact.rent is None else draws(f"rent of {name}", fact.rent.usd)
    kwh_usd = draws("price of electricity", costs.usd_per_kwh)
    if costs.acquire == "rent":
        assert rent is not None
        usd_per_h = devices * rent
    else:
        assert owned is not None
        usd_per_h = devices * owned.fixed_usd_per_h + finance.energy_usd_per_h(kw, kwh_usd)
    hours = finance.HOURS_PER_YEAR * costs.horizon_years
    tokens = sum(
        p.traffic.mean_requests_per_s * (p.traffic.input.mean_tokens + p.traffic.output.mean_tokens) for p in plans
    )
    output = sum(p.traffic.mean_requests_per_s * p.traffic.output.mean_tokens for p in plans)
    capacity = np.sum(
        [
            np.where(np.isfinite(p.replicas), p.replicas, 0.0) * np.nan_to_num(p.load)
            * (p.traffic.input.mean_tokens + p.traffic.output.mean_tokens)
            for p in plans
        ],
        axis=0,
    )  # fmt: skip
    carbon = finance.carbon_g(
        kw * hours, draws("grid carbon", costs.grid_g_per_kwh), devices * draws("embodied carbon", costs.embodied_kg),
        costs.horizon_years / costs.years,
    )  # fmt: skip
    millions = tokens * hours * 3600.0 / 1e6
    utilisation = months = value = None
    if rent is not None and owned is not None:
        per_device = np.where(served, kw / np.where(served, devices, 1.0), np.nan)
        idle_kw = finance.power_kw(busy_w, idle_w, host_w, 0.0, pue)
        fixed = owned.fixed_usd_per_h + finance.energy_usd_per_h(idle_kw, kwh_usd)
        variable = finance.energy_usd_per_h((busy_w - idle_w) * pue / 1000.0, kwh_usd)
        utilisation = finance.break_even_utilisation(fixed, rent, variable)
        running = owned.running_usd_per_h + finance.energy_usd_per_h(np.nan_to_num(per_device), kwh_usd)
        months = finance.break_even_months(owned.capex_usd, rent, running)
        value = finance.net_present_value_usd(
            owned.capex_usd, (rent - running) * finance.HOURS_PER_YEAR, owned.residual_usd, owned.rate, costs.years
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        busy_j = np.where(served, busy_w * np.where(served, devices, 1.0) / capacity, np.inf)
        per_mw = np.where(served, finance.tokens_per_s_per_mw(capacity, kw), 0.0)
    return Option(
        fact, plans, devices, kw, usd_per_h, usd_per_h * hours, float(tokens), float(output), capacity,
        finance.usd_per_million_tokens(usd_per_h, tokens), finance.usd_per_million_tokens(usd_per_h, output),
        kw * 1000.0 / tokens, busy_j, per_mw, carbon / millions, carbon / 1e6, utilisation, months, value,
    )  # fmt: skip


@dataclass(frozen=True)
class _Owned:
    capex_usd: Floats
    residual_usd: Floats
    rate: Floats
    fixed_usd_per_h: Floats
    """Capital, maintenance and hosting of one device."""
    running_usd_per_h: Floats
    """Maintenance and hosting."""


def _owned(scenario: Scenario, fact: Facts, draws: Draws, provisioned_kw: Floats) -> _Owned | None:
    if fact.purchase is None:
        return None
    costs = scenario.costs
    price = draws(f"purchase price of {fact.device.id}", fact.purchase.usd)
    capex = price * (1.0 + draws("share of server and network", costs.system_share))
    residual = capex * draws("residual value", costs.residual_share)
    rate = draws("cost of capital", costs.rate)
    running = finance.maintenance_usd_per_h(capex, draws("maintenance", costs.maintenance_share_per_year))
    running = running + finance.hosting_usd_per_h(
        provisioned_kw, draws("price of hosting", costs.hosting_usd_per_kw_month)
    )
    capital = finance.capital_usd_per_h(capex, residual, rate, costs.years)
    return _Owned(capex, residual, rate, capital + running, running)
