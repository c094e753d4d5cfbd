"""Sweeps: every point is the model's own step, fronts are not beaten, what cannot be is refused with its reason."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ridgeline.analytical.architectures import load_architecture
from ridgeline.analytical.architectures.step import step_time
from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.layout import Layout, Precisions
from ridgeline.analytical.memory import memory
from ridgeline.analytical.phases import Phase
from ridgeline.analytical.sweep import Grid, HourlyPrice, Refused, Swept, pareto, sensitivity, step_points, sweep
from ridgeline.analytical.sweep_run import run_scenario
from ridgeline.analytical.sweep_scenario import SweepError, load_scenario
from ridgeline.bench.model_commands import model_app

H100 = catalogue()["nvidia-h100-sxm5-80gb"]
A100 = catalogue()["nvidia-a100-sxm4-80gb"]
LLAMA = load_architecture("llama-3-8b")


def grid(**changes: Any) -> Grid:
    facts = {
        "models": {"llama-3-8b": LLAMA},
        "devices": (H100,),
        "phases": ("decode",),
        "precisions": (Precisions(),),
        "layouts": (Layout(),),
        "batches": np.array([1.0, 3.0, 32.0, 200.0]),
        "lengths": np.array([16.0, 2048.0, 100_000.0]),
        **changes,
    }
    return Grid(**facts)


def only(found: Any) -> Swept:
    (item,) = found
    assert isinstance(item, Swept)
    return item


@pytest.mark.parametrize("layout", [Layout(), Layout(tp=2, dp=2), Layout(tp=2, pp=2)])
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_every_point_is_the_models_own_step(layout: Layout, phase: str) -> None:
    item = only(sweep(grid(phases=(phase,), layouts=(layout,)), "numpy"))
    make = Phase.decode if phase == "decode" else Phase.prefill
    bound_s = step_time(LLAMA, make(item.batch, item.length), Precisions(), layout, H100)
    assert item.columns.bound_s == pytest.approx(bound_s, rel=1e-9)
    tokens = np.ceil(item.batch / layout.dp) * (item.length if phase == "prefill" else 1.0)
    held = memory(LLAMA, Precisions(), layout, sequences=item.batch, length=item.length, tokens=tokens).total_bytes
    assert item.columns.memory_bytes == pytest.approx(held, rel=1e-12)
    assert np.array_equal(item.columns.fits, held <= 0.9 * 80e9)
    assert set(item.columns.fits.tolist()) == {True, False}
    assert np.all(item.columns.bound_s <= item.columns.predicted_s)


@pytest.mark.parametrize("model", ["mixtral-8x7b", "mistral-7b", "gemma-2-9b", "deepseek-v2-lite"])
def test_models_with_experts_windows_and_latents(model: str) -> None:
    architecture = load_architecture(model)
    item = only(sweep(grid(models={model: architecture}), "numpy"))
    expected = step_time(architecture, Phase.decode(item.batch, item.length), Precisions(), Layout(), H100)
    assert item.columns.bound_s == pytest.approx(expected, rel=1e-9)


def test_throughput_and_cost() -> None:
    item = only(sweep(grid(layouts=(Layout(tp=4),)), "numpy"))
    assert item.tokens_per_s == pytest.approx(item.batch / item.columns.predicted_s)
    dollars = item.usd_per_million_tokens(HourlyPrice(usd_per_device_hour=3.6, date="2026-01"))
    assert dollars == pytest.approx(4 * 1e-3 / item.tokens_per_s * 1e6)
    prefill = only(sweep(grid(phases=("prefill",)), "numpy"))
    assert prefill.tokens_per_s == pytest.approx(prefill.batch * prefill.length / prefill.columns.predicted_s)


def test_what_cannot_be_is_refused_with_its_reason() -> None:
    fp8 = Precisions(weights="float8_e4m3fn", activations="float8_e4m3fn")
    found = list(sweep(grid(devices=(A100, H100), precisions=(fp8,), layouts=(Layout(), Layout(tp=3))), "numpy"))
    reasons = [(f.combination.device, f.reason) for f in found if isinstance(f, Refused)]
    assert [device for device, _ in reasons] == [A100.id, A100.id, H100.id]
    assert "has no matrix float8_e4m3fn rate" in reasons[0][1]
    assert "which 3 devices do not divide" in reasons[1][1]
    assert sum(isinstance(f, Swept) for f in found) == 1


points = st.lists(st.tuples(*[st.integers(0, 9).map(float)] * 3), min_size=1, max_size=40).map(np.array)


@given(points)
@settings(max_examples=60)
def test_a_front_is_what_nothing_beats(rows: Any) -> None:
    front = pareto(list(rows.T))
    for row, kept in zip(rows, front, strict=True):
        beaten = np.any(np.all(rows <= row, axis=1) & np.any(rows < row, axis=1))
        assert kept == (not beaten)


def test_elasticities_say_what_limits() -> None:
    item = only(sweep(grid(phases=("decode",)), "numpy"))
    at = step_points("decode", Layout(), np.array([1.0, 200.0]), np.array([2048.0, 100_000.0]))
    found = sensitivity(item.step, at)
    total = sum(found.values())
    assert total == pytest.approx([1.0, 1.0], abs=0.02)
    assert found["bandwidth"][1] > 0.9
    assert found["overhead"][0] > found["overhead"][1]
    assert found["links"].tolist() == [0.0, 0.0]
    prefill = only(sweep(grid(phases=("prefill",)), "numpy"))
    assert (
        sensitivity(prefill.step, step_points("prefill", Layout(), np.array([8.0]), np.array([2048.0])))["arithmetic"]
        > 0.8
    )


SCENARIO = """
models = ["llama-3-8b"]
devices = ["nvidia-h100-sxm5-80gb", "nvidia-a100-sxm4-80gb"]
phases = ["decode"]
batches = {from = 1, to = 65, step = 8}
lengths = [512, 2048]
step_within_ms = 20
[[precisions]]
[[layouts]]
tp = 2
[[prices]]
device = "nvidia-h100-sxm5-80gb"
usd_per_device_hour = 3.0
date = "2026-10"
[[prices]]
device = "nvidia-a100-sxm4-80gb"
usd_per_device_hour = 1.5
date = "2026-10"
"""


def test_a_scenario_gives_a_table_and_its_fronts(tmp_path: Path) -> None:
    path, out = tmp_path / "s.toml", tmp_path / "s.parquet"
    path.write_text(SCENARIO, encoding="utf-8")
    summary = run_scenario(load_scenario(path), out, "numpy")
    rows = pq.read_table(out).to_pylist()
    assert summary.points == len(rows) == 2 * 9 * 2
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    for front in summary.fronts:
        own = [r for r in rows if (r["length"], r["fits"]) == (front["length"], True)]
        for row in front["rows"]:
            same = [r for r in own if r["device"] == row["device"] and r["batch"] == row["batch"]]
            assert [r["predicted_s"] for r in same] == [row["predicted_s"]]
            assert not any(
                r["predicted_s"] < row["predicted_s"] and r["usd_per_million_tokens"] < row["usd_per_million_tokens"]
                for r in own
            )
            assert sum(row["elasticity"].values()) == pytest.approx(1.0, abs=0.05)
    assert [front["length"] for front in summary.fronts] == [512, 2048]
    for answer in summary.largest_batches:
        mine = [r for r in rows if all(r[k] == answer[k] for k in ("device", "length"))]
        within = [r["batch"] for r in mine if r["predicted_s"] <= 20e-3]
        assert max(within) <= answer["batch"] < min([r["batch"] for r in mine if r["predicted_s"] > 20e-3], default=66)


def test_a_device_without_a_price_has_no_cost(tmp_path: Path) -> None:
    path, out = tmp_path / "s.toml", tmp_path / "s.parquet"
    bare = dataclasses.replace(H100, prices=())
    path.write_text(SCENARIO.split("[[prices]]")[0].replace('"nvidia-a100-sxm4-80gb"', ""), encoding="utf-8")
    scenario = load_scenario(path)
    scenario = dataclasses.replace(scenario, grid=dataclasses.replace(scenario.grid, devices=(bare,), prices={}))
    assert run_scenario(scenario, out, "numpy").objectives == ("predicted_s", "device_s_per_token")
    assert set(pq.read_table(out)["usd_per_million_tokens"].to_pylist()) == {None}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('models = ["llama-3-8b"]', "", "models: needs a list of names"),
        ('["llama-3-8b"]', '["llama-9"]', "llama-9: no file and no built-in model"),
        ('phases = ["decode"]', 'phases = ["dream"]', "phases: no sweep of phase 'dream': one of prefill, decode"),
        ("lengths = [512, 2048]", "lengths = [0]", "lengths: must be whole numbers of at least 1, not 0"),
        ("lengths = [512, 2048]", "lengths = []", "lengths: needs a list of whole numbers"),
        ("{from = 1, to = 65, step = 8}", "{from = 9, to = 1}", "batches: to (1) is less than from (9)"),
        ("{from = 1, to = 65, step = 8}", "{to = 1}", "batches: needs 'from'"),
        ('date = "2026-10"', "", "prices.date: the price of nvidia-h100-sxm5-80gb has no date"),
        (
            "usd_per_device_hour = 3.0",
            "usd_per_device_hour = -1",
            "prices.usd_per_device_hour: must be a positive number",
        ),
        ("tp = 2", "tp = 0", "layouts: tp: must be a whole number of at least 1"),
        ("tp = 2", "ppp = 2", "layouts.ppp: unknown key: one of tp, pp, ep, dp"),
        ("tp = 2", "tp = 3", "no combination of the scenario can be: tp: llama-3-8b"),
        ("[[precisions]]", '[[precisions]]\nweights = "bf17"', "precisions: weights: unknown precision 'bf17'"),
        ("step_within_ms = 20", "step_within_ms = true", "step_within_ms: must be a positive number, not True"),
        ("step_within_ms = 20", "[prediction]\noverhead_us = 5", "prediction.compute_share: missing"),
        ("step_within_ms = 20", 'software = "ollama"', "software: must be one of vllm, sglang, trtllm, not 'ollama'"),
        (
            "step_within_ms = 20",
            'software = "vllm"\n[prediction]\noverhead_us = 5\ncompute_share = 0.5\nmemory_share = 0.5',
            "software: give it or [prediction], not both",
        ),
        ("models", "model", "model: unknown key"),
        ("models", "= models", "s.toml: "),
    ],
)
def test_a_bad_scenario_is_one_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "s.toml"
    assert old in SCENARIO
    path.write_text(SCENARIO.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=r".") as caught:
        run_scenario(load_scenario(path), tmp_path / "s.parquet", "numpy")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s.parquet").exists()


def test_the_commands(tmp_path: Path) -> None:
    path, out = tmp_path / "s.toml", tmp_path / "s.parquet"
    path.write_text(SCENARIO, encoding="utf-8")
    done = CliRunner().invoke(model_app, ["sweep", str(path), "-o", str(out), "--engine", "numpy", "--json"])
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert (document["points"], document["out"]) == (36, str(out))
    shown = CliRunner().invoke(model_app, ["sweep", str(path), "-o", str(out), "--engine", "numpy"])
    assert all(text in shown.stdout for text in ("36 points", "best trade-offs", "within 20 ms"))
    nowhere = CliRunner().invoke(model_app, ["sweep", str(path), "-o", str(tmp_path / "no" / "s.parquet")])
    assert isinstance(nowhere.exception, SweepError)

    table = tmp_path / "t.csv"
    rows = "8192,8192,8192,bf16,2000\n0,1,1,bf16,5\n8192,8192,8192,bf16,20\n"
    table.write_text(f"m,n,k,dtype,time_us\n{rows}", encoding="utf-8")
    options = ["audit", str(table), "--operator", "gemm", "--device", H100.id]
    audited = CliRunner().invoke(model_app, [*options, "--json"])
    assert audited.exit_code == 1
    assert [f["line"] for f in json.loads(audited.stdout)["findings"]] == [3, 4]
    text = CliRunner().invoke(model_app, options)
    assert all(words in text.stdout for words in ("  line 3\n", "  line 4: 20 us where", "2 impossible rows of 3"))
    table.write_text("m,n,k,dtype,time_us\n8192,8192,8192,bf16,2000\n", encoding="utf-8")
    assert CliRunner().invoke(model_app, options).exit_code == 0
