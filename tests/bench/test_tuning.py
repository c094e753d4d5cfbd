"""Tuning: what is searched and what is refused beforehand; a whole search on this CPU, and that the run uses its choice."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ridgeline.analytical.operators import make_problem
from ridgeline.bench import cli
from ridgeline.bench.compare_command import Options, compare_targets, parse_target
from ridgeline.bench.compare_report import sentence
from ridgeline.bench.devices.cpu import detect
from ridgeline.bench.plan import Plan, make_plan
from ridgeline.bench.run import run_plan
from ridgeline.bench.tuning import tuned_plan, tuning_plan
from ridgeline.kernels import tuning
from ridgeline.kernels.compiled import CompiledKernel
from ridgeline.kernels.registry import get_implementation, load
from ridgeline.results import views
from ridgeline.results.store import Store
from ridgeline.results.tuning import stored_choices
from ridgeline.workloads.suite import load_suite

SUITE = """
name = "tunable"
description = "one product"
settings = { target_relative = 0.2, budget_s = 0.8, meter = "none" }
[[case]]
operator = "gemm"
implementations = ["waits", "torch"]
problems = [{ m = 192, n = 192, k = 192, precision = "float32" }]
cache = ["warm"]
threads = [1]
"""
KERNELS = Path(__file__).parent / "tunable_kernels"
CPU = detect()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    """A plan, and a store with a whole search for it."""
    folder = tmp_path_factory.mktemp("tuning")
    suite = folder / "tunable.toml"
    suite.write_text(SUITE)
    load([KERNELS])
    plan = make_plan(load_suite(str(suite)), CPU, with_folders=[str(KERNELS)])
    search = tuning_plan(plan, CPU, {})
    assert search is not None
    store = Store(folder / "store")
    run_plan(search, CPU, store, lambda step, record: None)
    return plan, store


def test_a_search_tries_every_configuration_and_the_default(searched: tuple[Plan, Store]) -> None:
    store = searched[1]
    (run,) = store.runs()
    assert run.suite == "tune tunable"
    rows = {str(row["config"]): row for row in views.rows(store)}
    assert set(rows) == {"{}", "{'wait_s': 0.0, 'wrong': False}", "{'wait_s': 0.0, 'wrong': True}"}
    assert rows["{'wait_s': 0.0, 'wrong': True}"]["status"] == "incorrect"
    assert len({row["case_id"] for row in rows.values()}) == 1
    assert len({row["content_key"] for row in rows.values()}) == 3
    assert {row["role"] for row in rows.values()} == {"tuning"}


def test_the_plan_uses_the_choice_and_searches_no_more(searched: tuple[Plan, Store]) -> None:
    plan, store = searched
    tuned = {case.implementation.name: case for case in tuned_plan(plan, store).cases}
    assert tuned["waits"].config == {"wait_s": 0.0, "wrong": False}
    assert tuned["torch"].config == {}
    untuned = next(case for case in plan.cases if case.implementation.name == "waits")
    assert tuned["waits"].case_id == untuned.case_id
    assert tuned["waits"].content_key != untuned.content_key
    assert tuning_plan(plan, CPU, stored_choices(store)) is None
    other = dataclasses.replace(untuned, facts={"driver": "another"})
    assert tuned_plan(dataclasses.replace(plan, cases=(other,)), store).cases == (other,), "a choice is of one unit"


def test_the_command_searches_and_then_measures_with_the_choice(
    searched: tuple[Plan, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = searched[1]
    measured: list[Plan] = []
    monkeypatch.setattr(cli, "_measure", lambda plan, *rest, **more: measured.append(plan))
    suite = tmp_path / "tunable.toml"
    suite.write_text(SUITE)
    command = ["run", str(suite), "--device", "cpu", "--with", str(KERNELS), "--tune", "--store"]
    assert CliRunner().invoke(cli.app, [*command, str(tmp_path / "empty")]).exit_code == 0
    assert [plan.name for plan in measured] == ["tune tunable", "tunable"]
    done = CliRunner().invoke(cli.app, [*command, str(store.path)])
    assert "nothing to tune" in done.stderr
    configs = {case.implementation.name: dict(case.config) for case in measured[-1].cases}
    assert configs == {"waits": {"wait_s": 0.0, "wrong": False}, "torch": {}}


def test_a_comparison_runs_what_a_run_would(searched: tuple[Plan, Store], tmp_path: Path) -> None:
    plan, store = searched
    problem = plan.cases[0].problem
    targets = [parse_target(f"gemm/{name}") for name in ("waits", "torch")]
    options = Options("warm", 1, 2.0, 0.02, 0.99)
    (tuned,) = compare_targets(*targets, [problem], options, CPU, store, (str(KERNELS),))
    assert (tuned.status, tuned.side_a.config, tuned.side_b.config) == ("ok", {"wait_s": 0.0, "wrong": False}, {})
    assert max(map(max, tuned.a_s)) < 0.1, "the default waits that long"
    (default,) = compare_targets(*targets, [problem], options, CPU, Store(tmp_path / "empty"), (str(KERNELS),))
    assert default.side_a.config == {}
    assert min(map(min, default.a_s)) >= 0.1
    assert tuned.side_a.content_key != default.side_a.content_key
    assert tuned.side_b.content_key == default.side_b.content_key
    assert "waits (wait_s=0.0, wrong=False)" in sentence(tuned)


def test_a_search_is_shown_with_its_choice(searched: tuple[Plan, Store]) -> None:
    done = CliRunner().invoke(cli.app, ["show", "--store", str(searched[1].path)])
    assert "Search for the best configuration" in done.stdout
    assert "x the default's speed" in done.stdout


def test_the_space_of_a_kernel_follows_its_problem() -> None:
    load()
    numba = get_implementation("gemm", "numba")
    sizes = [make_problem("gemm", {"m": m, "n": 64, "k": 300, "precision": "float32"}) for m in (20, 1000)]
    small, large = (tuning.space(numba, size) for size in sizes)
    assert {config["block_m"] for config in small} == {32}
    assert {config["block_k"] for config in large} == {128, 256, 512}
    assert tuning.space(get_implementation("gemm", "torch"), sizes[0]) == []


@pytest.mark.parametrize(
    ("spilled", "refusal"), [(256, ""), (264, "spills 264 bytes per thread on sm_89")], ids=["little", "much"]
)
def test_code_that_spills_much_or_does_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, spilled: int, refusal: str
) -> None:
    load()
    made = {
        64: CompiledKernel(64, 0, 100, (), num_warps=4, shared_bytes=1000),
        128: CompiledKernel(255, spilled, 100, (), num_warps=4, shared_bytes=1000),
        16: CompiledKernel(64, 0, 100, (), num_warps=4, shared_bytes=120_000),
    }
    monkeypatch.setattr(tuning, "compile_here", lambda compilation, target: made[compilation.constexprs["BLOCK_M"]])
    triton = get_implementation("gemm", "triton")
    half = make_problem("gemm", {"m": 1024, "n": 1024, "k": 1024, "precision": "bfloat16"})
    refusals = {c.config["block_m"]: c.refused for c in tuning.candidates(triton, half, "sm_89")}
    assert refusals == {
        64: "",
        128: refusal,
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
