"""The answer to a scenario: screen every candidate, simulate those that can be the cheapest, and draw what is uncertain.

Order of work: all layouts are judged by averages; per device the layout that averages like best is simulated, and further ones
where their averages promise less cost than it showed, or where it serves in fewer than nine of ten worlds; a device whose
averages cost more than the best simulated one by a factor that uncertainty could not make up is not simulated, nor are those
that are left after :data:`MOST_SIMULATED`. The report says which is which.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.device import Device
from ridgeline.analytical.layout import Layout, LayoutError, Precisions
from ridgeline.analytical.purchase import finance
from ridgeline.analytical.purchase.chance import Chance, Draws, Lognormal
from ridgeline.analytical.purchase.decide import Decision, Driver, decide, drivers
from ridgeline.analytical.purchase.facts import Facts, devices_of, facts_of
from ridgeline.analytical.purchase.frontier import Curve, Deployment, Screen, Screened, curve
from ridgeline.analytical.purchase.scenario import Candidate, InfeasibleError, Scenario, ScenarioError, Traffic
from ridgeline.analytical.purchase.step_model import (
    DEVICE_SIGMA,
    FIRST_TOKEN,
    SHAPE_SIGMA,
    SOFTWARE_EFFICIENCY,
    FitError,
    step_model,
)
from ridgeline.analytical.serving.averages import LengthMeans, length_means
from ridgeline.analytical.serving.traffic import Floats, TrafficError

LEAST_PENALTY = 1.15
"""Most that a layout not simulated is charged for queueing, over its averages: the least that was seen, or this."""
MOST_SIMULATED = 36
"""Deployments of one traffic after which the devices that are left, the dearest by averages, are not simulated any more."""
LAYOUTS_SIMULATED = {True: 2, False: 3}
"""Most layouts of one device and traffic that are simulated: where one of them serves in nine of ten worlds, and where not."""


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


@dataclass(frozen=True)
class Screening:
    """What was looked at, and how."""

    layouts: int
    """Combinations of device, layout and traffic."""
    unfit: tuple[str, ...]
    """Why the layouts that do not fit do not."""
    missing_levels: int
    simulated: tuple[str, ...]
    not_promising: tuple[str, ...]
    """Devices that averages show to be dear, with the factor of their cost over that of the best simulated."""
    failing: tuple[str, ...]
    """Devices of which no layout keeps the levels, with the factor by which they miss."""
    simulations: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Answer:
    """Options by median cost, the decision, and the work behind them."""

    scenario: Scenario
    options: tuple[Option, ...]
    decision: Decision
    drivers: tuple[Driver, ...]
    screening: Screening


def answer(
    scenario: Scenario, known: Mapping[str, Device], architectures: Mapping[str, Architecture], origin: str
) -> Answer:
    """Answer a scenario.

    Args:
        scenario: what is asked.
        known: devices by id.
        architectures: of every model of the traffic, by the scenario's name for it.
        origin: the scenario's file, for messages.

    Raises:
        ScenarioError: for an unknown device or model, a price or power that is missing, a layout that does not fit.
        InfeasibleError: where no candidate meets the service levels.
    """
    begun = time.monotonic()
    devices = devices_of(scenario, known, origin)
    facts = {name: facts_of(scenario, device, origin) for name, device in devices.items()}
    slow = _Slowdown(scenario)
    unfit: list[str] = []
    simulated: list[str] = []
    steps, simulations, missing, looked_at = 0, 0, 0, 0
    curves: list[dict[str, list[Curve]]] = []
    dear: dict[str, float] = {}
    failing: dict[str, str] = {}
    for traffic in scenario.traffic:
        screened: dict[str, list[tuple[float, Screen, Screened]]] = {}
        closest: Screened | None = None
        try:
            lengths = length_means(traffic.input, traffic.output)
        except TrafficError as error:
            raise ScenarioError(f"{origin}: traffic: {error}") from None
        for candidate in scenario.candidates:
            tried = _screened(
                scenario, traffic, lengths, candidate, devices[candidate.device], architectures[traffic.model], slow, unfit,
                origin,
            )  # fmt: skip
            looked_at += len(tried)
            kept = [s for s in tried if s[1].requests_per_s > 0.0]
            missing += len(tried) - len(kept)
            best = min((s[1] for s in tried), key=lambda s: s.miss)
            if closest is None or best.miss < closest.miss:
                closest = best
            if not kept:
                failing[candidate.device] = f"{best.hardest} missed by a factor {best.miss:.2f} at best"
                continue
            fact = facts[candidate.device]
            priced = [
                # Layouts that slower steps than the middle ones would rule out come last.
                (asked.judge(one.deployment, slow.slower).requests_per_s == 0.0, _optimistic(scenario, traffic, fact, one),
                 asked, one)
                for asked, one in kept
            ]  # fmt: skip
            priced.sort(key=lambda p: (*p[:2], p[3].deployment.layout.devices, p[3].deployment.layout.ep,
                                       -p[3].deployment.max_sequences))  # fmt: skip
            screened[candidate.device] = [p[1:] for p in priced]
        if not screened:
            assert closest is not None
            raise InfeasibleError(
                f"{origin}: no candidate meets {closest.hardest} of {traffic.model}: the closest, "
                f"{closest.deployment.device} {closest.deployment.label}, takes {closest.miss:.2f} times as long on an empty "
                f"server: relax the level or add faster devices or layouts"
            )
        found, done = _simulate(scenario, traffic, screened, slow, dear)
        curves.append(found)
        for one in (c for cs in found.values() for c in cs):
            simulated.append(f"{traffic.model} on {one.deployment.device} {one.deployment.label}")
            steps += sum(summary.steps for summary in one.summaries)
        simulations += done
    draws = Draws(scenario.seed, scenario.draws)
    options = []
    for name, fact in facts.items():
        if name in dear or name in failing:
            continue
        if not all(name in found for found in curves):
            failing[name] = "the simulation kept the levels at no load"
            continue
        plans = tuple(
            _best_plan(scenario, traffic, found[name], draws, slow)
            for traffic, found in zip(scenario.traffic, curves, strict=True)
        )
        options.append(_option(scenario, fact, plans, draws))
    options = [o for o in options if np.isfinite(o.cost_usd).mean() >= 0.5]
    options.sort(key=lambda o: float(np.median(o.cost_usd)))
    if not options:
        raise InfeasibleError(
            f"{origin}: no candidate meets the service levels once requests queue: "
            + "; ".join(_by_how_much(found, slow) for found in curves)
        )
    kept_names = {o.name for o in options}
    for name in facts:
        if name not in kept_names and name not in dear and name not in failing:
            failing[name] = "keeps the levels in less than half of the draws"
    cost = np.stack([o.cost_usd for o in options], axis=1)
    decision = decide(cost, scenario.evidence.least_probability)
    # Options that are never the cheapest change no decision.
    kept_options = sorted({*np.flatnonzero(decision.probability_cheapest > 0.001).tolist(), decision.best})
    if decision.runner_up is not None:
        kept_options = sorted({*kept_options, decision.runner_up})
    near = cost[:, kept_options]
    found_drivers = drivers(near, decide(near, scenario.evidence.least_probability), draws.used)
    screening = Screening(
        looked_at, tuple(unfit), missing, tuple(simulated), tuple(f"{n}: {f:.2f}" for n, f in sorted(dear.items())),
        tuple(f"{n}: {why}" for n, why in sorted(failing.items())), simulations, steps, time.monotonic() - begun,
    )  # fmt: skip
    return Answer(scenario, tuple(options), decision, tuple(found_drivers), screening)


class _Slowdown:
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


def _screened(
    scenario: Scenario,
    traffic: Traffic,
    lengths: LengthMeans,
    candidate: Candidate,
    device: Device,
    architecture: Architecture,
    slow: _Slowdown,
    unfit: list[str],
    origin: str,
) -> list[tuple[Screen, Screened]]:
    """Every layout and batch of a candidate that fits.

    Raises:
        ScenarioError: where none does.
    """
    try:
        precisions = Precisions(weights=traffic.weights, activations=traffic.activations, kv=traffic.kv)
    except LayoutError as error:
        raise ScenarioError(f"{origin}: traffic: {error}") from None
    found: list[tuple[Screen, Screened]] = []
    why = ""
    length = lengths.input + lengths.output
    for tp in candidate.tp:
        for ep in candidate.ep:
            try:
                layout = Layout(tp=tp, ep=ep)
                model = step_model(architecture, device, layout, precisions, length, candidate.token_budget)
            except (LayoutError, FitError) as error:
                why = str(error)
                unfit.append(why)
                continue
            averages = Screen(
                model, traffic, lengths, max(candidate.max_sequences), candidate.token_budget, slow.first_token.middle
            )
            for most in candidate.max_sequences:
                deployment = Deployment(device.id, layout, most, candidate.token_budget, model)
                found.append((averages, averages.judge(deployment, slow.middle)))
    if not found:
        raise ScenarioError(
            f"{origin}: candidates: {why}; give a larger layout, a narrower precision, or another device"
        )
    return found


def _optimistic(scenario: Scenario, traffic: Traffic, fact: Facts, screened: Screened) -> float:
    """Hourly cost if requests never queued, at middle values: rough, and the same for all."""
    costs = scenario.costs
    peak = traffic.mean_requests_per_s * traffic.peak_factor
    replicas = peak / (screened.requests_per_s * costs.max_utilisation * costs.availability)
    devices = max(replicas, 1.0) * screened.deployment.layout.devices
    return devices * _middle_usd_per_h(scenario, fact)


def _middle_usd_per_h(scenario: Scenario, fact: Facts) -> float:
    costs = scenario.costs
    if costs.acquire == "rent":
        assert fact.rent is not None
        return fact.rent.usd.middle
    assert fact.purchase is not None
    capex = fact.purchase.usd.middle * (1.0 + costs.system_share.middle)
    kw = finance.power_kw(fact.busy_w.middle, fact.idle_w.middle, costs.host_w.middle, 0.8, costs.pue.middle)
    capital = finance.capital_usd_per_h(capex, capex * costs.residual_share.middle, costs.rate.middle, costs.years)
    running = finance.energy_usd_per_h(kw, costs.usd_per_kwh.middle)
    return float(capital + running + finance.hosting_usd_per_h(kw, costs.hosting_usd_per_kw_month.middle))


def _simulate(
    scenario: Scenario,
    traffic: Traffic,
    screened: Mapping[str, list[tuple[float, Screen, Screened]]],
    slow: _Slowdown,
    dear: dict[str, float],
) -> tuple[dict[str, list[Curve]], int]:
    """Simulate devices from the most promising on; what is found too dear goes into ``dear``."""
    found: dict[str, list[Curve]] = {}
    best, penalty = math.inf, math.inf
    done = made = 0
    alone = len(scenario.traffic) == 1
    for name, layouts in sorted(screened.items(), key=lambda item: min(p[0] for p in item[1])):
        # What queueing cost the kindest so far, others will pay too.
        charged = max(min(penalty, LEAST_PENALTY), 1.0)
        least = min(optimistic for optimistic, _, _ in layouts) * charged
        if alone and (least > best * slow.margin or (made >= MOST_SIMULATED and best < math.inf)):
            dear[name] = least / best
            continue
        cheapest, serves = math.inf, False
        tried: list[Layout] = []
        for optimistic, asked, one in layouts:
            if len(tried) == LAYOUTS_SIMULATED[serves] or (serves and optimistic * charged >= cheapest):
                break
            if tried and alone and optimistic * charged > best * slow.margin:
                break
            if tried and not serves and asked.judge(one.deployment, slow.slowest).requests_per_s == 0.0:
                continue
            if one.deployment.layout in tried:
                continue  # the levels bound the batch, not what it is allowed to be: the best by averages stands for all
            tried.append(one.deployment.layout)
            made += 1
            simulated = curve(one.deployment, asked, traffic, scenario.requests, scenario.seed, slow.range)
            if simulated is None:
                continue
            done += len(simulated.summaries)
            found.setdefault(name, []).append(simulated)
            load, *hard = (float(v) for v in simulated.load_at(*slow.trials))
            serves |= all(world > 0.0 for world in hard)
            if load > 0.0:
                penalty = min(penalty, one.requests_per_s / load)
                cheapest = min(cheapest, optimistic * one.requests_per_s / load)
        best = min(best, cheapest)
    return found, done


def _best_plan(scenario: Scenario, traffic: Traffic, curves: list[Curve], draws: Draws, slow: _Slowdown) -> Plan:
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


def _plan(scenario: Scenario, traffic: Traffic, one: Curve, draws: Draws, slow: _Slowdown) -> Plan:
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


def _option(scenario: Scenario, fact: Facts, plans: tuple[Plan, ...], draws: Draws) -> Option:
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


def _by_how_much(found: Mapping[str, list[Curve]], slow: _Slowdown) -> str:
    closest = min(
        ((float(one.tightness[0]) * slow.middle, one) for curves in found.values() for one in curves),
        key=lambda pair: pair[0], default=None,
    )  # fmt: skip
    if closest is None:
        return "no candidate has a steady load"
    factor, one = closest
    return f"the closest, {one.deployment.device} {one.deployment.label}, misses them by a factor {factor:.2f}"
