"""The report that a buyer reads: Markdown, from the plain values of :mod:`ridgeline.analytical.purchase.report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ridgeline.analytical.purchase.evaluate import Answer
from ridgeline.analytical.purchase.report import as_dict, usd
from ridgeline.analytical.purchase.scenario import STALE_DAYS

SHOWN_DRIVERS = 12


def as_markdown(answer: Answer) -> str:
    """The page that a buyer reads."""
    values = as_dict(answer)
    lines = [f"# {values['scenario']}", "", f"**{_sentence(values['verdict'])}**", ""]
    if values["measure"]:
        lines += ["To be surer:", "", *(f"- {line}" for line in values["measure"]), ""]
    lines += _options_table(values)
    lines += _latency_table(values)
    lines += _power_table(values)
    lines += _money_table(values)
    lines += ["## What drives it", "", *_drivers_table(values["drivers"])]
    if values["crossover_usd_per_kwh"] is not None:
        crossover = values["crossover_usd_per_kwh"]
        price = crossover["usd_per_kwh"]
        said = "cost the same at no price of electricity" if price is None else f"cost the same at ${price:.3f}/kWh"
        lines += [f"{' and '.join(crossover['between'])} {said}.", ""]
    lines += _sources(values)
    lines += _work(values)
    return "\n".join(lines).rstrip() + "\n"


def _options_table(values: Mapping[str, Any]) -> list[str]:
    years = values["options"][0]["horizon_years"]
    rows = [
        [
            option["device"], "; ".join(_layouts(plan) for plan in option["plans"]),
            _span(option["devices"], "{:.0f}"), _span(option["usd_per_million_tokens"], "{:.3g}"),
            _span(_scaled(option["cost_usd"], 1e-6), "{:.3g}"), f"{option['probability_cheapest']:.2f}",
            usd(option["expected_regret_usd"]),
        ]
        for option in values["options"]
    ]  # fmt: skip
    head = ["device", "layout", "devices", "$/Mtok", f"M$ in {years:g} years", "P(cheapest)", "expected regret"]
    return [
        "## Options",
        "",
        "P50 (P10 to P90); of several layouts, in how many draws each is best.",
        "",
        *_table(head, rows),
    ]


def _layouts(plan: Mapping[str, Any]) -> str:
    """Layouts by how often they are the best, those that hardly ever are left out."""
    kept = [one for one in plan["layouts"] if one["best_in_share"] >= 0.02] or plan["layouts"][:1]
    if len(kept) == 1:
        return f"{kept[0]['layout']}, {kept[0]['max_sequences']} seq."
    return ", ".join(f"{one['layout']}, {one['max_sequences']} seq. ({one['best_in_share']:.0%})" for one in kept)


def _latency_table(values: Mapping[str, Any]) -> list[str]:
    rows = []
    for option in values["options"]:
        for plan in option["plans"]:
            for label, latency in plan["latency_at_peak_s"].items():
                milliseconds = _scaled(latency, 1e3)
                rows.append(
                    [
                        option["device"], plan["model"], _span(plan["goodput_requests_per_s_per_device"], "{:.3g}"),
                        _span(plan["replicas"], "{:.0f}"), label, _span(milliseconds, "{:.3g}"),
                    ]
                )  # fmt: skip
    head = ["device", "model", "goodput, requests/s per device", "replicas", "level", "at the peak, ms"]
    return ["## Latency", "", "Percentiles are simulated.", "", *_table(head, rows)]


def _power_table(values: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            option["device"], _span(option["power_kw"], "{:.3g}"), _span(option["j_per_token"], "{:.3g}"),
            _span(option["busy_j_per_token"], "{:.3g}"), _span(_scaled(option["tokens_per_s_per_mw"], 1e-6), "{:.3g}"),
            _span(option["carbon_t"], "{:.3g}"), _span(option["carbon_g_per_million_tokens"], "{:.3g}"),
            option["power_source"],
        ]
        for option in values["options"]
    ]  # fmt: skip
    head = ["device", "mean kW", "J/token all-in", "J/token of the device at goodput", "Mtok/s per MW", "t CO2", "g CO2/Mtok",
            "power from"]  # fmt: skip
    return ["## Power and carbon", "", *_table(head, rows)]


def _money_table(values: Mapping[str, Any]) -> list[str]:
    rows = []
    for option in values["options"]:
        both = option["rent_against_buy"]
        if both is not None:
            rows.append(
                [
                    option["device"], _span(both["utilisation"], "{:.2f}", "never"), f"{both['utilisation']['reached']:.2f}",
                    _span(both["months"], "{:.0f}", "never"), _span(both["net_present_value_usd_per_device"], "{:.0f}"),
                    f"{both['probability_buying_pays']:.2f}",
                ]
            )  # fmt: skip
    if not rows:
        return []
    head = ["device", "break-even utilisation", "reached with probability", "months to break even",
            "net present value of buying one, $", "P(buying pays)"]  # fmt: skip
    return ["## Rent against buy", "", *_table(head, rows)]


def _drivers_table(drivers: list[dict[str, Any]]) -> list[str]:
    rows = [
        [
            d["input"], usd(d["value_usd"]) if d["value_usd"] > 0.0 else "none",
            "yes" if d["flips"] else "", f"{d['cost_ratio']:.2f}",
            f"{d['margin_ratio']:.2f}",
        ]
        for d in drivers[:SHOWN_DRIVERS]
    ]  # fmt: skip
    head = ["input", "value of knowing it", "flips the choice", "cost of the best, high over low",
            "cost of the runner-up over the best, high over low"]  # fmt: skip
    return _table(head, rows)


def _sources(values: Mapping[str, Any]) -> list[str]:
    lines = ["## Prices", ""]
    for option in values["options"]:
        for price in option["prices"]:
            old = f", **{price['age_days']} days old: more than {STALE_DAYS}**" if price["stale"] else ""
            unit = "$/h" if price["basis"] == "rent_per_hour" else "$"
            lines.append(f"- {option['device']}: {price['usd']} {unit}, {price['date']}{old} ({price['source']})")
    lines += ["", "## Assumed", "", "Not said by the scenario, so taken from this program:", ""]
    return [*lines, *(f"- {line}" for line in values["assumed"]), ""]


def _evidence(options: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which devices' kernels were measured, and which are judged by others."""
    said = {
        "fitted": "Kernel constants fitted on public measurements of the device itself",
        "transferred": "Kernel constants carried over from other devices or precisions",
    }
    lines = []
    for tier, text in said.items():
        devices = [option["device"] for option in options if option["step_times_from"] == tier]
        if devices:
            lines += [f"{text}: {', '.join(devices)}.", ""]
    return lines


def _work(values: Mapping[str, Any]) -> list[str]:
    s = values["screening"]
    lines = [
        "## How it was found",
        "",
        f"{s['layouts']} combinations of device, layout and batch were screened by averages; {len(s['unfit'])} more layouts do "
        f"not fit, {s['missing_levels']} cannot keep the levels. {len(s['simulated'])} were simulated at several loads "
        f"({s['simulations']} simulations, {s['steps']} steps); {values['draws']} draws with seed {values['seed']}; "
        f"{s['seconds']:.1f} s.",
        "",
        *_evidence(values["options"]),
        "Simulated:",
        "",
        *(f"- {line}" for line in s["simulated"]),
        "",
    ]
    for title, key in (
        ("Not simulated, for averages already cost so much over the best simulated", "not_promising"),
        ("Left out: service levels", "failing"),
        ("Layouts that do not fit", "unfit"),
    ):
        if s[key]:
            lines += [f"{title}:", "", *(f"- {line}" for line in dict.fromkeys(s[key])), ""]
    return lines


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _span(found: Mapping[str, Any], form: str, none: str = "not served") -> str:
    """``P50 (P10 to P90)``; ``none`` for those that do not exist."""
    text = {key: none if found[key] is None else form.format(found[key]) for key in ("p10", "p50", "p90")}
    return text["p50"] if len(set(text.values())) == 1 else f"{text['p50']} ({text['p10']} to {text['p90']})"


def _scaled(found: Mapping[str, Any], by: float) -> dict[str, Any]:
    return {key: None if v is None else v * by for key, v in found.items()}


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
