"""An answer as plain values, for JSON and for the page of :mod:`ridgeline.analytical.purchase.markdown`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ridgeline.analytical.calibration.step_constants import step_constants
from ridgeline.analytical.prediction import TIERS, Tier
from ridgeline.analytical.purchase.chance import Certain, Chance, Lognormal, Triangular
from ridgeline.analytical.purchase.decide import Driver, quantiles
from ridgeline.analytical.purchase.evaluate import Answer
from ridgeline.analytical.purchase.facts import PriceFact
from ridgeline.analytical.purchase.finance import crossover_usd_per_kwh
from ridgeline.analytical.purchase.options import Option, Plan
from ridgeline.analytical.purchase.scenario import Costs, Evidence
from ridgeline.analytical.purchase.step_model import DEVICE_SIGMA, FIRST_TOKEN, SHAPE_SIGMA, SOFTWARE_EFFICIENCY
from ridgeline.analytical.serving.traffic import Floats


def as_dict(answer: Answer) -> dict[str, Any]:
    """The whole answer as plain values; a figure that does not exist is ``None``."""
    scenario, decision, screening = answer.scenario, answer.decision, answer.screening
    return {
        "scenario": scenario.name,
        "as_of": scenario.day.isoformat(),
        "seed": scenario.seed,
        "draws": scenario.draws,
        "verdict": verdict(answer),
        "ranks": decision.ranks,
        "best": answer.options[decision.best].name if decision.ranks else None,
        "least_probability": scenario.evidence.least_probability,
        "options": [_option(answer, place) for place in range(len(answer.options))],
        "drivers": [_driver(driver) for driver in answer.drivers],
        "measure": measure(answer),
        "crossover_usd_per_kwh": _crossover(answer),
        "screening": {
            "layouts": screening.layouts,
            "unfit": list(screening.unfit),
            "missing_levels": screening.missing_levels,
            "simulated": list(screening.simulated),
            "not_promising": list(screening.not_promising),
            "failing": list(screening.failing),
            "simulations": screening.simulations,
            "steps": screening.steps,
            "seconds": round(screening.seconds, 3),
        },
        "assumed": assumed(answer),
    }


def verdict(answer: Answer) -> str:
    """One sentence."""
    decision = answer.decision
    best = answer.options[decision.best]
    probability = float(decision.probability_cheapest[decision.best])
    regret = float(decision.expected_regret_usd[decision.best])
    if decision.ranks:
        return (
            f"{_amount(best)} is cheapest with probability {probability:.2f}; choosing it costs "
            f"{usd(regret)} more than the best choice on average"
        )
    assert decision.runner_up is not None
    other = answer.options[decision.runner_up]
    return (
        f"no ranking: {best.name} is cheapest with probability {probability:.2f} only, "
        f"{other.name} with {decision.probability_cheapest[decision.runner_up]:.2f} (asked: "
        f"{answer.scenario.evidence.least_probability:g})"
    )


def measure(answer: Answer) -> list[str]:
    """What to find out, most valuable first: only inputs that knowing is worth something."""
    told = []
    for driver in answer.drivers:
        if driver.value_usd > 0.0:
            told.append(f"{_remedy(driver.name)} (knowing it is worth {usd(driver.value_usd)})")
    return told[:5]


def _remedy(name: str) -> str:
    kind, _, of = name.partition(" of ")
    if name == "software efficiency":
        return "run the engine on any one candidate (`vllm bench serve`): its share of the kernels' speed is unknown"
    if name == "engine's share of the first token":
        return "measure the time to first token of the engine on any one candidate (`vllm bench serve`)"
    if kind == "step times":
        return f"rent one {of} and measure decode and prefill of the model: its speed is not known"
    if kind == "shapes":
        return f"run the model once in that layout: {of}"
    if kind == "simulation":
        return f"raise `requests`: the simulated percentile of {of} is uncertain"
    if kind in ("rent", "purchase price"):
        return f"get a quote: {name}"
    if kind in ("busy power", "idle power"):
        return f"measure the {name}"
    return f"find out the {name}"


def assumed(answer: Answer) -> list[str]:
    """Inputs that the scenario left to this program, with their values."""
    found = []
    evidence = {
        "software_efficiency": SOFTWARE_EFFICIENCY, "first_token": FIRST_TOKEN, "device_sigma": DEVICE_SIGMA,
        "shape_sigma": SHAPE_SIGMA,
    }  # fmt: skip
    for part, values in (("costs", answer.scenario.costs), ("evidence", answer.scenario.evidence)):
        model = Costs if part == "costs" else Evidence
        for name in model.model_fields:
            if name not in values.model_fields_set:
                value = getattr(values, name)
                found.append(f"{part}.{name} = {_chance(evidence[name] if value is None else value)}")
    return found


def _evidence(option: Option) -> Tier:
    """What the constants of the option's step times rest on: the weakest of its traffic."""
    found = (step_constants(option.facts.device, "both", plan.traffic.activations).tier for plan in option.plans)
    return max(found, key=TIERS.index)


def _option(answer: Answer, place: int) -> dict[str, Any]:
    option, decision = answer.options[place], answer.decision
    return {
        "device": option.name,
        "step_times_from": _evidence(option),
        "probability_cheapest": float(decision.probability_cheapest[place]),
        "expected_regret_usd": float(decision.expected_regret_usd[place]),
        "serves_share": float(np.isfinite(option.cost_usd).mean()),
        "devices": quantiles(option.devices),
        "usd_per_h": quantiles(option.usd_per_h),
        "cost_usd": quantiles(option.cost_usd),
        "horizon_years": answer.scenario.costs.horizon_years,
        "usd_per_million_tokens": quantiles(option.usd_per_million_tokens),
        "usd_per_million_output_tokens": quantiles(option.usd_per_million_output_tokens),
        "tokens_per_s": option.tokens_per_s,
        "output_tokens_per_s": option.output_tokens_per_s,
        "capacity_tokens_per_s": quantiles(option.capacity_tokens_per_s),
        "j_per_token": quantiles(option.j_per_token),
        "busy_j_per_token": quantiles(option.busy_j_per_token),
        "tokens_per_s_per_mw": quantiles(option.tokens_per_s_per_mw),
        "power_kw": quantiles(option.power_kw),
        "power_source": option.facts.power_source,
        "carbon_g_per_million_tokens": quantiles(option.carbon_g_per_million_tokens),
        "carbon_t": quantiles(option.carbon_t),
        "rent_against_buy": _rent_against_buy(option),
        "prices": [
            {"basis": basis, **_price(price)}
            for basis, price in (("rent_per_hour", option.facts.rent), ("purchase", option.facts.purchase))
            if price is not None
        ],
        "plans": [_plan(plan) for plan in option.plans],
    }


def _rent_against_buy(option: Option) -> dict[str, Any] | None:
    if option.break_even_utilisation is None or option.break_even_months is None:
        return None
    assert option.net_present_value_usd is not None
    return {
        "utilisation": _reachable(option.break_even_utilisation, 1.0),
        "months": _reachable(option.break_even_months, np.inf),
        "net_present_value_usd_per_device": quantiles(option.net_present_value_usd),
        "probability_buying_pays": float((option.net_present_value_usd > 0.0).mean()),
    }


def _reachable(values: Floats, most: float) -> dict[str, Any]:
    """Quantiles, ``None`` each where it is never reached, and how often it is."""
    reached = np.isfinite(values) & (values <= most)
    return {"reached": float(reached.mean()), **quantiles(np.where(reached, values, np.inf))}


def _price(price: PriceFact) -> dict[str, Any]:
    return {
        "usd": _chance(price.usd), "date": price.date, "age_days": price.age_days, "stale": price.stale,
        "source": price.source,
    }  # fmt: skip


def _plan(plan: Plan) -> dict[str, Any]:
    served = np.isfinite(plan.devices)
    share = [float((served & (plan.chosen == i)).mean()) for i in range(len(plan.curves))]
    return {
        "model": plan.traffic.model,
        "layouts": [
            {
                "layout": curve.deployment.layout.label,
                "devices_per_replica": curve.deployment.layout.devices,
                "max_sequences": curve.deployment.max_sequences,
                "best_in_share": best_in,
                "simulated": [
                    {
                        "requests_per_s": float(rate),
                        "requests": curve.requests,
                        "utilisation": summary.utilisation,
                        "decode_sequences": summary.decode_sequences,
                        "kv_occupancy": summary.kv_occupancy,
                        "preemptions": summary.preemptions,
                    }
                    for rate, summary in zip(curve.requests_per_s, curve.summaries, strict=True)
                ],
            }
            for curve, best_in in sorted(zip(plan.curves, share, strict=True), key=lambda pair: -pair[1])
        ],
        "replicas": quantiles(plan.replicas),
        "goodput_requests_per_s_per_device": quantiles(np.nan_to_num(plan.load * plan.replicas / plan.devices)),
        "busy": quantiles(np.where(np.isnan(plan.busy), np.inf, plan.busy)),
        "latency_at_peak_s": {
            label: {**quantiles(np.where(np.isnan(v), np.inf, v)), "limit": plan.curves[0].limits_s[label]}
            for label, v in plan.latencies.items()
        },
    }


def _driver(driver: Driver) -> dict[str, Any]:
    return {
        "input": driver.name, "value_usd": driver.value_usd, "flips": driver.flips, "cost_ratio": driver.swing,
        "margin_ratio": driver.margin_swing,
    }  # fmt: skip


def _crossover(answer: Answer) -> dict[str, Any] | None:
    """Price of electricity at which the two best cost the same, by their medians."""
    other = answer.decision.runner_up
    if other is None or answer.scenario.costs.acquire == "rent":
        return None
    a, b = answer.options[answer.decision.best], answer.options[other]
    kwh = answer.scenario.costs.usd_per_kwh.middle
    kw_a, kw_b = (float(np.median(o.power_kw)) for o in (a, b))
    fixed = [float(np.median(o.usd_per_h)) - kw * kwh for o, kw in ((a, kw_a), (b, kw_b))]
    price = float(crossover_usd_per_kwh(fixed[0], kw_a, fixed[1], kw_b))
    return {"between": [a.name, b.name], "usd_per_kwh": price if 0.0 < price < np.inf else None}


def _chance(value: Chance | Any) -> str:
    if isinstance(value, Triangular):
        return f"{value.low:g} to {value.high:g}, most likely {value.mode:g}"
    if isinstance(value, Lognormal):
        return f"{value.median:g}, times or over {np.exp(value.sigma):.3g}"
    return f"{value.value:g}" if isinstance(value, Certain) else f"{value}"


def _amount(option: Option) -> str:
    return f"{np.median(option.devices):.0f} x {option.name}"


def usd(value: float) -> str:
    """Dollars with three digits."""
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"${value / scale:.3g}{unit}"
    return f"${value:.3g}"
