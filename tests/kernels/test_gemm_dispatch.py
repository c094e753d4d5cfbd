"""The dispatcher of few rows: which crossovers follow from times, what is kept, and what it hands the work to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.operators import Gemm
from ridgeline.kernels import registry
from ridgeline.kernels.gemm import crossovers as module
from ridgeline.kernels.gemm.crossovers import CrossoverError, Crossovers, crossovers, least_cost
from ridgeline.kernels.native.build import NativeCallError
from ridgeline.kernels.registry import Context, Unsupported, get_implementation

registry.load()
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="needs a C++ compiler"
)
WAYS = ("native_gemv", "native_flat", "torch")


def times(*rows: tuple[float, ...]) -> dict[int, dict[str, float]]:
    """By M = 1, 2, 4, ...: seconds of each way, as many as are given."""
    return {2**i: dict(zip(WAYS[3 - len(row) :], row, strict=True)) for i, row in enumerate(rows)}


def test_each_takes_the_rows_where_it_is_fastest() -> None:
    found = least_cost(times((1.0, 2.0, 3.0), (2.0, 2.5, 3.0), (4.0, 2.6, 3.0), (3.0, 2.9), (6.0, 3.1)))
    assert found == Crossovers(gemv_below=4, flat_below=8)
    assert [found.choose(m) for m in (1, 3, 4, 7, 8, 1000)] == [WAYS[0]] * 2 + [WAYS[1]] * 2 + [WAYS[2]] * 2


def test_one_disturbed_point_moves_nothing() -> None:
    clean = times((1.0, 2.0, 3.0), (1.0, 2.0, 3.0), (1.0, 2.0, 3.0), (3.0, 2.0, 3.0))
    clean[2]["native_gemv"] = 2.5
    assert least_cost(clean) == Crossovers(gemv_below=8, flat_below=9)


def test_one_way_may_be_best_everywhere() -> None:
    assert least_cost(times((1.0, 2.0, 3.0), (1.0, 2.0, 3.0))) == Crossovers(3, 3)
    assert least_cost(times((3.0, 2.0, 1.0), (3.0, 2.0, 1.0))) == Crossovers(1, 1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.floats(1e-6, 1.0)] * 3), min_size=1, max_size=7))
def test_no_other_pair_of_thresholds_costs_less(rows: list[tuple[float, float, float]]) -> None:
    measured = times(*rows)

    def cost(chosen: Crossovers) -> float:
        return float(
            torch.tensor([row[chosen.choose(m)] for m, row in measured.items()], dtype=torch.float64).log().sum()
        )

    limits = [*measured, max(measured) + 1]
    least = min(cost(Crossovers(a, b)) for a in limits for b in limits if a <= b)
    assert cost(least_cost(measured)) == pytest.approx(least, abs=1e-9)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (3, 2), (1.5, 2), (True, 2), ("1", 2)])
def test_impossible_crossovers_are_refused(low: int, high: int) -> None:
    with pytest.raises(CrossoverError, match="below"):
        Crossovers(low, high)


@needs_compiler
def test_they_are_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cache_folder", lambda part: tmp_path)  # the compiled library stays where it is
    monkeypatch.setattr(module, "ROWS", (1, 8))
    monkeypatch.setattr(module, "SETTLED", 1e9)  # this machine may be busy
    b = torch.randn(96, 64, generator=torch.Generator().manual_seed(0))
    found = crossovers(b, 1)
    [path] = tmp_path.glob("96x64-1t-*.json")
    kept = json.loads(path.read_text())
    assert (kept["gemv_below"], kept["flat_below"]) == (found.gemv_below, found.flat_below)
    assert all(len(seconds) == module.ROUNDS for row in kept["times_s"].values() for seconds in row.values())
    assert all(0.0 < s < 10.0 for row in kept["times_s"].values() for seconds in row.values() for s in seconds)
    assert set(kept["times_s"]) == {"1", "8"}
    assert set(kept["times_s"]["1"]) == set(WAYS)

    calls: list[int] = []
    quiet = {1: {"native_gemv": [3.0, 3.0], "native_flat": [2.0, 2.1], "torch": [1.0, 1.0]}}
    monkeypatch.setattr(module, "measure", lambda b, threads: calls.append(threads) or quiet)
    module._KNOWN.clear()  # as in another process
    assert crossovers(b, 1) == found
    assert calls == []
    crossovers(b, 2)  # other threads are another question
    assert calls == [2]
    path.write_text("{")  # damaged: measured again, and right afterwards
    for _ in range(2):
        module._KNOWN.clear()
        assert crossovers(b, 1) == Crossovers(1, 1)
    assert calls == [2, 1]


@needs_compiler
def test_what_a_busy_machine_gave_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cache_folder", lambda part: tmp_path)  # the compiled library stays where it is
    calls: list[int] = []
    busy = {1: {"native_gemv": [3.0, 1.0], "native_flat": [2.0, 4.0], "torch": [1.5, 2.5]}}
    monkeypatch.setattr(module, "measure", lambda b, threads: calls.append(threads) or busy)
    b = torch.ones(3, 4)
    assert crossovers(b, 1) == crossovers(b, 1) == Crossovers(2, 2)  # the least of each
    assert calls == [1]
    module._KNOWN.clear()
    crossovers(b, 1)
    assert calls == [1, 1]
    assert not list(tmp_path.iterdir())


def test_dispatch_is_what_it_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []

    def note(operator: str, name: str) -> registry.Implementation:
        chosen.append(name)
        return get_implementation(operator, "torch")

    monkeypatch.setattr("ridgeline.kernels.gemm.dispatch.get_implementation", note)
    prepare = get_implementation("gemm", "dispatch").prepare
    for m in (1, 2, 5, 6):
        problem = Gemm(m=m, n=4, k=3, precision="float32")
        context = Context("cpu", 1, {"gemv_below": 2, "flat_below": 6})
        run = prepare(problem, {"b": torch.ones(3, 4)}, context)
        out = torch.empty(m, 4)
        run({"a": torch.ones(m, 3)}, out)
        assert torch.equal(out, torch.full((m, 4), 3.0))
    assert chosen == ["native_gemv", "native_flat", "native_flat", "torch"]


@pytest.mark.parametrize("config", [{"gemv_below": 0, "flat_below": 1}, {"gemv_below": 1}, {"m1": 3}])
def test_a_wrong_config_is_refused(config: dict[str, int]) -> None:
    problem = Gemm(m=1, n=4, k=3, precision="float32")
    with pytest.raises(Unsupported, match="crossovers: "):
        get_implementation("gemm", "dispatch").prepare(problem, {"b": torch.ones(3, 4)}, Context("cpu", 1, config))


@needs_compiler
@pytest.mark.parametrize("name", ["native_gemv", "native_flat"])
def test_wrong_tensors_are_refused(name: str) -> None:
    problem = Gemm(m=3, n=8, k=5, precision="float32")
    run = get_implementation("gemm", name).prepare(problem, {"b": torch.ones(5, 8)}, Context("cpu", 1))
    a, out = torch.ones(3, 5), torch.empty(3, 8)
    run({"a": a}, out)
    assert torch.equal(out, torch.full((3, 8), 5.0))
    for wrong, to in ((a.double(), out), (torch.ones(5, 3).T, out), (torch.ones(4, 5), out), (a, torch.empty(8, 3).T)):
        with pytest.raises(NativeCallError, match="must be a contiguous CPU tensor"):
            run({"a": wrong}, to)


@needs_compiler
def test_flat_is_for_few_rows() -> None:
    problem = Gemm(m=257, n=4, k=3, precision="float32")
    with pytest.raises(Unsupported, match="up to 256 rows"):
        get_implementation("gemm", "native_flat").prepare(problem, {"b": torch.ones(3, 4)}, Context("cpu", 1))
