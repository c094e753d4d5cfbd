"""Tuning: what is searched and what is refused beforehand; a whole search on this CPU, and that the run uses its choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ridgeline_process import Run

from ridgeline.analytical.operators import make_problem
from ridgeline.kernels import tuning
from ridgeline.kernels.compiled import CompiledKernel
from ridgeline.kernels.registry import get_implementation, load

SUITE = """
name = "tunable"
description = "one product"
settings = { target_relative = 0.2, budget_s = 1.5, meter = "none" }
[[case]]
operator = "gemm"
implementations = ["repeats", "torch"]
problems = [{ m = 192, n = 192, k = 192, precision = "float32" }]
cache = ["warm"]
"""
KERNELS = Path(__file__).parent / "tunable_kernels"


def rows_of(text: str) -> dict[str, dict[str, Any]]:
    return {row["implementation"]: row for row in json.loads(text)}


def test_a_search_finds_what_is_faster_and_the_run_uses_it(tmp_path: Path, ridgeline_command: Run) -> None:
    suite = tmp_path / "tunable.toml"
    suite.write_text(SUITE)
    command = ("run", suite, "--store", tmp_path / "store", "--with", KERNELS)
    done = ridgeline_command(*command, "--tune")
    assert done.returncode == 0, done.stderr
    assert "Search for the best configuration" in done.stdout
    assert "x the default's speed" in done.stdout
    assert "repeats (tuned)" in done.stdout
    again = rows_of(ridgeline_command(*command, "--tune", "--json").stdout)
    assert again["repeats"]["config"] == {"times": 1, "wrong": False}
    assert again["torch"]["config"] == {}
    shown = json.loads(ridgeline_command("show", "--json", "--store", tmp_path / "store").stdout)
    searched = [row for row in shown if row["role"] == "tuning"]
    assert len(searched) == 4, "searched once: the second --tune found the choice in the store"
    (default,) = (row for row in searched if not row["config"])
    assert again["repeats"]["case_id"] == default["case_id"]
    assert again["repeats"]["content_key"] != default["content_key"]
    assert [row["status"] for row in searched if row["config"].get("wrong")] == ["incorrect"]
    listed = json.loads(ridgeline_command("list", "runs", "--json", "--store", tmp_path / "store").stdout)
    assert [run["suite"] for run in listed] == ["tunable", "tunable", "tune tunable"]


def test_the_space_of_a_kernel_follows_its_problem() -> None:
    load()
    numba = get_implementation("gemm", "numba")
    sizes = [make_problem("gemm", {"m": m, "n": 64, "k": 300, "precision": "float32"}) for m in (20, 1000)]
    small, large = (tuning.space(numba, size) for size in sizes)
    assert {config["block_m"] for config in small} == {32}
    assert {config["block_k"] for config in large} == {128, 256, 512}
    assert tuning.space(get_implementation("gemm", "torch"), sizes[0]) == []


def test_code_that_spills_or_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    made = {
        64: CompiledKernel(64, 0, 100, (), num_warps=4, shared_bytes=1000),
        128: CompiledKernel(255, 40, 100, (), num_warps=4, shared_bytes=1000),
        16: CompiledKernel(64, 0, 100, (), num_warps=4, shared_bytes=120_000),
    }
    monkeypatch.setattr(tuning, "compile_here", lambda compilation, target: made[compilation.constexprs["BLOCK_M"]])
    triton = get_implementation("gemm", "triton")
    half = make_problem("gemm", {"m": 1024, "n": 1024, "k": 1024, "precision": "bfloat16"})
    refusals = {c.config["block_m"]: c.refused for c in tuning.candidates(triton, half, "sm_89")}
    assert refusals == {
        64: "",
        128: "spills 40 bytes per thread on sm_89",
        16: "does not fit on sm_89: too much of shared memory",
    }
    assert not any(c.refused for c in tuning.candidates(triton, half, "sm_86")), "nothing is known of that one"


def test_the_compiled_code_itself_refuses_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    from ridgeline.kernels.gemm.triton_gemm import CONFIGS, HOPPER

    half = make_problem("gemm", {"m": 1024, "n": 1024, "k": 1024, "precision": "bfloat16"})
    triton = get_implementation("gemm", "triton")
    monkeypatch.setattr(tuning, "space", lambda implementation, problem: [CONFIGS["half"][1], HOPPER["half"]])
    found = tuning.candidates(triton, half, "sm_89")
    assert [c.refused for c in found] == ["", "does not fit on sm_89: too much of shared memory"]
