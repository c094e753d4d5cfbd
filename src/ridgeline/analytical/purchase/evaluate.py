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

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.device import Device
from ridgeline.analytical.layout import Layout, LayoutError, Precisions
from ridgeline.analytical.purchase import finance
from ridgeline.analytical.purchase.chance import Draws
from ridgeline.analytical.purchase.decide import Decision, Driver, decide, drivers
from ridgeline.analytical.purchase.facts import Facts, devices_of, facts_of
from ridgeline.analytical.purchase.frontier import Curve, Deployment, Screen, Screened, curve, longest_request
from ridgeline.analytical.purchase.options import Option, Slowdown, best_plan, make_option
from ridgeline.analytical.purchase.scenario import Candidate, InfeasibleError, Scenario, ScenarioError, Traffic
from ridgeline.analytical.purchase.step_model import (
    UnservableError,
    step_model,
)
from ridgeline.analytical.serving.averages import LengthMeans, length_means
from ridgeline.analytical.serving.traffic import TrafficError

LEAST_PENALTY = 1.15
"""Most that a layout not simulated is charged for queueing, over its averages: the least that was seen, or this."""
MOST_SIMULATED = 32
"""Deployments of one traffic after which the devices that are left, the dearest by averages, are not simulated any more."""
LAYOUTS_SIMULATED = {True: 2, False: 3}
"""Most layouts of one device and traffic that are simulated: where one of them serves in nine of ten worlds, and where not."""


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
    slow = Slowdown(scenario)
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
            best_plan(scenario, traffic, found[name], draws, slow)
            for traffic, found in zip(scenario.traffic, curves, strict=True)
        )
        options.append(make_option(scenario, fact, plans, draws))
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


def _screened(
    scenario: Scenario,
    traffic: Traffic,
    lengths: LengthMeans,
    candidate: Candidate,
    device: Device,
    architecture: Architecture,
    slow: Slowdown,
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
    length, longest = lengths.input + lengths.output, longest_request(traffic)
    for tp in candidate.tp:
        for ep in candidate.ep:
            try:
                layout = Layout(tp=tp, ep=ep)
                model = step_model(architecture, device, layout, precisions, length, candidate.token_budget, longest)
                averages = Screen(
                    model,
                    traffic,
                    lengths,
                    max(candidate.max_sequences),
                    candidate.token_budget,
                    slow.first_token.middle,
                )
            except (LayoutError, UnservableError) as error:
                why = str(error)
                unfit.append(why)
                continue
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
    slow: Slowdown,
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


def _by_how_much(found: Mapping[str, list[Curve]], slow: Slowdown) -> str:
    closest = min(
        ((float(one.tightness[0]) * slow.middle, one) for curves in found.values() for one in curves),
        key=lambda pair: pair[0], default=None,
    )  # fmt: skip
    if closest is None:
        return "no candidate has a steady load"
    factor, one = closest
    return f"the closest, {one.deployment.device} {one.deployment.label}, misses them by a factor {factor:.2f}"
