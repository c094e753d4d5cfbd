"""Scenarios: what is refused, what a curve of one replica knows, and what an answer holds."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ridgeline.analytical.architectures.builtin import load_architecture
from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.device import Device
from ridgeline.analytical.layout import Layout, Precisions
from ridgeline.analytical.purchase.evaluate import Answer, answer
from ridgeline.analytical.purchase.frontier import Curve, Deployment, Screen, curve
from ridgeline.analytical.purchase.markdown import as_markdown
from ridgeline.analytical.purchase.report import as_dict
from ridgeline.analytical.purchase.scenario import (
    InfeasibleError,
    Scenario,
    ScenarioError,
    load_scenario,
    parse_scenario,
)
from ridgeline.analytical.purchase.step_model import UnservableError, step_model
from ridgeline.analytical.serving.averages import length_means

SCENARIOS = Path(__file__).parents[3] / "docs" / "scenarios"
H100, A100, H200 = "nvidia-h100-sxm5-80gb", "nvidia-a100-sxm4-80gb", "nvidia-h200-sxm-141gb"
MODEL = "llama-3.1-8b"


@cache
def devices() -> dict[str, Device]:
    return catalogue()


def values(**more: Any) -> dict[str, Any]:
    """A small scenario: short answers, few requests and draws."""
    level = [
        {"metric": "ttft", "percentile": 90, "limit_s": 1.0},
        {"metric": "tpot", "percentile": 90, "limit_s": 0.08},
    ]
    traffic = {
        "model": MODEL,
        "requests_per_s": 30.0,
        "input": 400,
        "output": {"median": 40, "sigma": 0.4, "most": 200},
    }
    return {
        "name": "small", "as_of": "2026-06-15", "draws": 2000, "requests": 300, "traffic": [{**traffic, "levels": level}],
        "candidates": [{"device": H100}, {"device": A100}],
        "prices": [
            {"device": H100, "basis": "rent_per_hour", "usd": 2.0, "date": "2026-01-01"},
            {"device": A100, "basis": "rent_per_hour", "usd": 1.5, "date": "2026-06"},
        ],
        **more,
    }  # fmt: skip


def answered(given: dict[str, Any]) -> Answer:
    scenario = parse_scenario(given, "s.toml")
    names = {traffic.model for traffic in scenario.traffic}
    return answer(scenario, devices(), {name: load_architecture(name) for name in names}, "s.toml")


@cache
def small() -> Answer:
    return answered(values())


def test_an_answer_adds_up() -> None:
    found = small()
    shown = as_dict(found)
    json.dumps(shown, allow_nan=False)
    assert sum(o["probability_cheapest"] for o in shown["options"]) == pytest.approx(1.0)
    tokens_per_s = 30.0 * (400 + found.scenario.traffic[0].output.mean_tokens)
    for option in found.options:
        served = np.isfinite(option.cost_usd)
        np.testing.assert_allclose(option.cost_usd[served], option.usd_per_h[served] * 8760 * 3)
        np.testing.assert_allclose(
            option.usd_per_million_tokens[served], option.usd_per_h[served] / (tokens_per_s * 3600) * 1e6
        )
        (plan,) = option.plans
        # Every fleet carries the peak within its headroom, and no replica less would.
        load = plan.load[served] * 0.8 * 0.97
        assert np.all(plan.replicas[served] * load >= 60.0 * (1 - 1e-6))
        assert np.all((plan.replicas[served] - 1.0) * load < 60.0)
        for label, seconds in plan.latencies.items():
            limit = plan.curves[0].limits_s[label]
            assert np.nanquantile(seconds, 0.9) <= limit * 1.05
    page = as_markdown(found)
    assert "| device | layout |" in page
    assert "**165 days old: more than 90**" in page  # the H100's price, flagged
    assert found.screening.simulations >= 4


def test_the_same_scenario_gives_the_same_answer_and_a_device_the_same_draws() -> None:
    again = answered(values())
    for one, other in zip(small().options, again.options, strict=True):
        np.testing.assert_array_equal(one.cost_usd, other.cost_usd)
    alone = answered(values(candidates=[{"device": H100}]))
    same = next(option for option in small().options if option.name == H100)
    np.testing.assert_array_equal(alone.options[0].plans[0].slowdown, same.plans[0].slowdown)
    assert alone.decision.ranks
    assert alone.decision.probability_cheapest.tolist() == [1.0]


def test_a_price_far_lower_decides_and_an_equal_one_does_not() -> None:
    prices = values()["prices"]
    cheap = answered(values(prices=[{**prices[0], "usd": 0.2}, prices[1]]))
    assert cheap.decision.ranks
    assert cheap.options[cheap.decision.best].name == H100
    near = answered(
        values(
            candidates=[{"device": H100}, {"device": H200}],
            prices=[prices[0], {"device": H200, "basis": "rent_per_hour", "usd": 2.3, "date": "2026-06"}],
        )
    )
    assert not near.decision.ranks
    told = as_dict(near)["measure"]
    assert told
    assert any("quote" in line or "measure" in line for line in told)
    assert "No ranking" in as_markdown(near)


def test_buying_counts_capital_and_power_and_says_when_it_pays() -> None:
    bought = answered(values(costs={"acquire": "buy"}, prices=[], candidates=[{"device": H100}]))
    (option,) = bought.options
    assert option.break_even_utilisation is not None
    assert np.median(option.break_even_utilisation) > 0.0
    per_device_h = np.median(option.usd_per_h / option.devices)
    assert 1.0 < per_device_h < 3.0  # 45 k$ all-in is 1.50 $/h without hosting and maintenance
    assert as_dict(bought)["options"][0]["rent_against_buy"]["probability_buying_pays"] > 0.5


def test_two_models_are_served_side_by_side() -> None:
    one = values()["traffic"][0]
    both = answered(values(traffic=[one, {**one, "model": "llama-3.2-1b"}], candidates=[{"device": H100}]))
    (option,) = both.options
    assert len(option.plans) == 2
    for plan in option.plans:
        assert set(plan.chosen.tolist()) <= set(range(len(plan.curves)))
    served = np.isfinite(option.devices)
    np.testing.assert_array_equal(option.devices[served], sum(p.devices[served] for p in option.plans))


def test_levels_that_nothing_meets_say_by_how_much() -> None:
    one = values()["traffic"][0]
    tight = {**one, "levels": [{"metric": "tpot", "percentile": 90, "limit_s": 0.002}]}
    with pytest.raises(InfeasibleError, match=r"p90 tpot <= 0.002 s .* takes [0-9.]+ times as long") as refused:
        answered(values(traffic=[tight]))
    assert "\n" not in str(refused.value)


def one_curve(slowdowns: tuple[float, ...] = (0.5, 1.0, 3.0)) -> Curve:
    scenario = parse_scenario(values(), "s.toml")
    traffic = scenario.traffic[0]
    model = step_model(load_architecture(MODEL), devices()[H100], Layout(), Precisions(), 450.0, 8192)
    asked = Screen(model, traffic, length_means(traffic.input, traffic.output), 256, 8192)
    found = curve(Deployment(H100, Layout(), 256, 8192, model), asked, traffic, 400, 1, slowdowns)
    assert found is not None
    return found


def test_a_curve_falls_with_slowness_and_ends_where_the_levels_cannot_be_kept() -> None:
    found = one_curve()
    slowdown = np.geomspace(0.3, 60.0, 50)
    load = found.load_at(slowdown)
    kept = ~np.isnan(load)
    assert kept[0]
    assert not kept[-1]
    assert np.all(np.diff(load[kept]) <= 1e-12)
    assert np.all(load[kept] * slowdown[kept] <= found.requests_per_s[-1] * (1 + 1e-9))  # nothing is extrapolated
    middle = np.asarray([1.0])
    latencies = found.latencies_at(found.load_at(middle), middle)
    worst = max(float(seconds[0]) / found.limits_s[label] for label, seconds in latencies.items())
    assert worst <= 1.0 + 1e-6


def test_step_models_follow_the_bound_and_refuse_what_cannot_be() -> None:
    llama, h100 = load_architecture(MODEL), devices()[H100]
    model = step_model(llama, h100, Layout(), Precisions(), 2048.0, 8192)
    # Batch 1 decode: 15 GB of weights over 3.35 TB/s are 4.5 ms (by hand); kernels reach about 0.78 of that.
    decode = float(model.step_times(0.0, 0.0, 1.0, 2048.0)[0])
    assert 4.56e-3 < decode < 8e-3
    # 2,048 tokens of prompt: 30.0 ms by hand.
    prefill = float(model.step_times(2048.0, 1024.5, 0.0, 0.0)[0])
    assert 30.0e-3 < prefill < 50e-3
    many = model.step_times(np.array([0.0, 0.0, 512.0]), np.array([0.0, 0.0, 256.5]), np.array([1.0, 64.0, 64.0]),
                            np.array([2048.0, 64 * 2048.0, 64 * 2048.0]))  # fmt: skip
    assert many[0] == pytest.approx(decode)
    assert many[0] < many[1] < many[2]
    assert 200_000 < model.kv_tokens < 500_000  # (72 - 16) GB over 131 kB a token
    two = step_model(llama, h100, Layout(tp=2), Precisions(), 2048.0, 8192)
    assert float(two.step_times(0.0, 0.0, 1.0, 2048.0)[0]) < decode
    assert two.kv_tokens > 2 * model.kv_tokens
    with pytest.raises(UnservableError, match=r"does not fit: .* need [0-9.]+ GB"):
        step_model(load_architecture("llama-3-70b"), h100, Layout(), Precisions(), 2048.0, 8192)
    eight = Precisions(weights="float8_e4m3fn", activations="float8_e4m3fn")
    on_ampere = step_model(llama, devices()[A100], Layout(), eight, 2048.0, 8192)
    with pytest.raises(UnservableError, match="float8_e4m3fn"):
        on_ampere.step_times(0.0, 0.0, 1.0, 100.0)
    with pytest.raises(UnservableError, match="tp"):
        step_model(llama, h100, Layout(tp=7), Precisions(), 2048.0, 8192)
    with pytest.raises(UnservableError, match="token by token"):
        step_model(load_architecture("bert-base"), h100, Layout(), Precisions(), 128.0, 512)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prices": [{"device": H100, "basis": "rent_per_hour", "usd": 2.0}]}, "without a date"),
    ({"prices": [{"device": H100, "basis": "rent_per_hour", "usd": 2.0, "date": "yesterday"}]}, "no date"),
    ({"prices": [{"device": H100, "basis": "lease", "usd": 2.0, "date": "2026-06"}]}, "prices.0.basis"),
    ({"prices": [{"device": H100, "basis": "purchase", "usd": -2.0, "date": "2026-06"}]}, "prices.0.usd"),
    ({"candidates": [{"device": "nvidia-h100"}]}, "unknown device 'nvidia-h100': did you mean nvidia-h100"),
    ({"candidates": [{"device": H100, "tp": 0}]}, "candidates.0.tp"),
    ({"candidates": [{"device": H100}, {"device": H100}]}, "twice"),
    ({"candidates": [{"device": H100, "max_sequences": 256, "token_budget": 128}]}, "token_budget"),
    ({"candidates": [{"device": "nvidia-l20"}]}, r"no price of nvidia-l20: add \[\[prices\]\]"),
    ({"candidate": []}, "candidate: .*no such key"),
    ({"traffic": []}, "traffic"),
    ({"as_of": "soon"}, "as_of"),
    ({"costs": {"pue": 0.5}}, "costs.pue"),
    ({"costs": {"rate": {"low": 0.2, "mode": 0.1, "high": 0.3}}}, "costs.rate"),
    ({"draws": 1}, "draws"),
]


@pytest.mark.parametrize(("more", "said"), BAD)
def test_bad_scenarios_are_refused_in_one_line(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=f"^s.toml: .*{said}") as refused:
        answered(values(**more))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"requests_per_s": None}, "one of requests_per_s and tokens_per_day"),
        ({"tokens_per_day": 1e9}, "one of requests_per_s and tokens_per_day"),
        ({"input": "long"}, "traffic.0.input"),
        ({"output": {"median": 10, "sigma": 9, "most": 5}}, "traffic.0.output"),
        ({"output": 1}, "one token"),
        ({"levels": []}, "levels"),
        ({"levels": [{"metric": "latency", "percentile": 90, "limit_s": 1.0}]}, "unknown metric"),
        ({"activations": "float13"}, "float13"),
        ({"model": "llama-3-70b"}, "does not fit"),
        ({"input": 600_000}, "one sequence of 600216 tokens"),
        ({"weights": "float8_e4m3fn", "activations": "float8_e4m3fn"}, "float8"),
    ],
)
def test_bad_traffic_is_refused_in_one_line(more: dict[str, Any], said: str) -> None:
    traffic = {key: value for key, value in {**values()["traffic"][0], **more}.items() if value is not None}
    candidates = [{"device": A100}] if "weights" in more or "model" in more else values()["candidates"]
    with pytest.raises(ScenarioError, match=said) as refused:
        answered(values(traffic=[traffic], candidates=candidates))
    assert "\n" not in str(refused.value)


def test_long_prompts_with_short_answers_are_served() -> None:
    """Less than one sequence decodes on average: nothing but prompts."""
    one = values()["traffic"][0]
    level = [{"metric": "ttft", "percentile": 90, "limit_s": 20.0}]
    found = answered(
        values(
            traffic=[{**one, "requests_per_s": 1.0, "input": 12_000, "output": 2, "levels": level}],
            candidates=[{"device": H100}],
        )
    )
    load = found.options[0].plans[0].load
    # 12,000 tokens of 8 billion weights at 0.76 of 989 Tflop/s take 0.26 s and more; engines a little longer.
    assert 0.5 < float(np.nanmedian(load)) < 4.0


def test_tokens_per_day_are_requests_per_second() -> None:
    one = {k: v for k, v in values()["traffic"][0].items() if k != "requests_per_s"}
    scenario = parse_scenario(values(traffic=[{**one, "output": 100, "tokens_per_day": 86400 * 500.0}]), "s.toml")
    assert scenario.traffic[0].mean_requests_per_s == pytest.approx(1.0)


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_scenarios_load_and_name_known_things(path: Path) -> None:
    scenario: Scenario = load_scenario(path)
    assert all(candidate.device in devices() for candidate in scenario.candidates)
    for traffic in scenario.traffic:
        assert load_architecture(traffic.model).parameter_count > 1e9


def test_a_file_that_is_no_scenario(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    for text in ("", "not toml [", 'name = "x"'):
        path.write_text(text)
        with pytest.raises(ScenarioError) as refused:
            load_scenario(path)
        assert str(refused.value).startswith(str(path))
    with pytest.raises(ScenarioError):
        load_scenario(tmp_path / "absent.toml")
    tomllib.loads((SCENARIOS / "chat-8b.toml").read_text())
