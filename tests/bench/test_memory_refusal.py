"""A case beyond memory is refused before anything of it is made, with the bytes needed and the bytes there."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from ridgeline.analytical.operators import Attention, Gemm
from ridgeline.bench import memory
from ridgeline.bench.devices.cpu_session import CpuSession
from ridgeline.bench.launches import make_launches
from ridgeline.bench.memory import Size, TooLargeError, affordable_slots, refuse_beyond_memory, sizes_of
from ridgeline.bench.worker import _Runner
from ridgeline.kernels.registry import Operator, Tensors, get_implementation, get_operator, load, operators

load()
SAYS = re.compile(r"needs ([\d.,]+) GB( on the \w+)?, ([\d.]+) GB are there \(\d+ sets of buffers of [\d.,]+ GB.*\)")


def attention(kv_length: int, **other: Any) -> Attention:
    shape = {"batch": 1, "q_heads": 8, "kv_heads": 8, "q_length": 1, "head_dim": 128, "precision": "float32"}
    return Attention(**{**shape, "kv_length": kv_length, "causal": False, "transform": "softmax", **other})


class Card(CpuSession):
    """A session whose unit has memory of its own."""

    def __init__(self, free: float) -> None:
        super().__init__()
        self.free = free

    def free_bytes(self) -> float:
        return self.free


class Forbidding(Operator):
    """Says what it would make, and fails where it is made to make it."""

    name = "gemm"

    def make_constants(self, problem: Gemm, generator: torch.Generator) -> Tensors:
        return {"b": self._only_a_shape(problem.k, problem.n)}

    def make_inputs(self, problem: Gemm, generator: torch.Generator) -> Tensors:
        return {"a": self._only_a_shape(problem.m, problem.k)}

    def make_output(self, problem: Gemm) -> torch.Tensor:
        return self._only_a_shape(problem.m, problem.n)

    def _only_a_shape(self, *shape: int) -> torch.Tensor:
        tensor = torch.empty(*shape)
        assert tensor.is_meta, "allocated"
        return tensor


@pytest.mark.parametrize("name", sorted(operators()))
def test_sizes_are_those_of_what_is_made(name: str) -> None:
    operator = get_operator(name)
    for problem in operator.test_problems[:4]:
        found = sizes_of(operator, problem)
        if found is None:
            continue  # it looks at values; the next test says for which that is so
        generator = torch.Generator().manual_seed(0)
        for size, tensors in (
            (found.constants, operator.make_constants(problem, generator)),
            (found.inputs, operator.make_inputs(problem, generator)),
            (found.output, {"out": operator.make_output(problem)}),
        ):
            assert size == Size(
                float(sum(t.nbytes for t in tensors.values())), sum(t.numel() for t in tensors.values())
            ), (name, problem.label)


def test_sizes_of_the_large_operators_are_known() -> None:
    for name in ("attention", "gemm", "stream", "weight_only_gemm"):
        operator = get_operator(name)
        assert all(sizes_of(operator, problem) is not None for problem in operator.test_problems)


@pytest.mark.parametrize("cold", [False, True])
def test_a_giant_attention_is_refused_at_once(cold: bool) -> None:
    problem = attention(2**31)
    with pytest.raises(TooLargeError) as caught:
        make_launches(
            get_operator("attention"),
            problem,
            get_implementation("attention", "torch_sdpa"),
            CpuSession(),
            threads=1,
            cold=cold,
            cache_bytes=1e8,
            seed=1,
        )
    found = SAYS.fullmatch(str(caught.value))
    assert found, str(caught.value)
    needed, there = float(found[1].replace(",", "")), float(found[3])
    assert needed >= 2 * problem.footprint_bytes() / 1e9 - 1.0 > there


def test_nothing_is_made_where_only_the_reference_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Gemm(m=2, n=1000, k=1000, precision="float32")  # 4 MB of B: 3 of it, and 8 MB in float64
    monkeypatch.setattr(memory, "_host_bytes", lambda limit: 17e6)
    with pytest.raises(
        TooLargeError, match=r"needs 0\.0201 GB, 0\.017 GB are there \(2 sets of buffers of 0\.00402 GB, 0\.012"
    ):
        refuse_beyond_memory(Forbidding(), problem, CpuSession(), slots=2, eviction_bytes=0.0, limit_bytes=None)
    monkeypatch.setattr(memory, "_host_bytes", lambda limit: 21e6)
    refuse_beyond_memory(Forbidding(), problem, CpuSession(), slots=2, eviction_bytes=0.0, limit_bytes=None)


def test_a_card_holds_the_buffers_and_the_host_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Gemm(m=2, n=1000, k=1000, precision="float32")
    monkeypatch.setattr(memory, "_host_bytes", lambda limit: 13e6)
    arguments = {"slots": 2, "eviction_bytes": 1e6, "limit_bytes": None}
    refuse_beyond_memory(Forbidding(), problem, Card(10e6), **arguments)
    with pytest.raises(TooLargeError, match=r"needs 0\.00903 GB on the card, 0\.008 GB are there"):
        refuse_beyond_memory(Forbidding(), problem, Card(8e6), **arguments)
    monkeypatch.setattr(memory, "_host_bytes", lambda limit: 11e6)
    with pytest.raises(TooLargeError, match=r"needs 0\.012 GB on the host, 0\.011 GB are there"):
        refuse_beyond_memory(Forbidding(), problem, Card(10e6), **arguments)


def test_an_operator_that_looks_at_values_is_taken_by_its_footprint(monkeypatch: pytest.MonkeyPatch) -> None:
    class Looking(Forbidding):
        def make_inputs(self, problem: Gemm, generator: torch.Generator) -> Tensors:
            return {"a": torch.ones(problem.m, problem.k).nonzero()[: int(torch.ones(1).sum())]}

    problem = Gemm(m=2, n=1000, k=1000, precision="float32")
    assert sizes_of(Looking(), problem) is None
    monkeypatch.setattr(memory, "_host_bytes", lambda limit: 8e6)
    with pytest.raises(TooLargeError, match=r"needs 0\.00803 GB, 0\.008 GB"):
        refuse_beyond_memory(Looking(), problem, CpuSession(), slots=2, eviction_bytes=0.0, limit_bytes=None)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What a worker in this process says; a case that comes to allocating fails."""

    for method in ("make_constants", "make_inputs"):
        original = getattr(get_operator("attention"), method)

        def only_on_meta(problem: Attention, generator: torch.Generator, original: Any = original) -> Tensors:
            made: Tensors = original(problem, generator)
            assert all(tensor.is_meta for tensor in made.values()), "allocated"
            return made

        monkeypatch.setattr(get_operator("attention"), method, only_on_meta)
    threads = torch.get_num_threads()
    yield io.StringIO()
    torch.set_num_threads(threads)


def test_a_worker_tells_out_of_memory(events: io.StringIO) -> None:
    runner = _Runner(events)
    runner.serve(
        {
            "operator": "attention",
            "problem": attention(100_000).to_dict(),  # 0.8 GB of keys and values
            "implementation": "torch_sdpa",
            "unit": "cpu",
            "threads": 1,
            "cache": "warm",
            "cache_bytes": 1e6,
            "seed": 0,
            "settings": {},
            "beside": [],
            "with": [],
            "memory_limit_bytes": 2e9,
            "config": {},
        }
    )
    runner._sessions["cpu"].close()
    result = json.loads(events.getvalue().splitlines()[-1])
    assert result["event"] == "result"
    assert result["status"] == "out_of_memory"
    assert SAYS.fullmatch(result["reason"]), result


@pytest.mark.parametrize(("there", "slots"), [(100.0, 20), (99.0, 17), (30.0, 4), (20.0, 2)])
def test_as_many_copies_as_memory_holds_beside_what_empties_the_cache(there: float, slots: int) -> None:
    def fit(count: int, emptying: float) -> None:
        if 5.0 * count + emptying > there:
            raise TooLargeError(f"{count}")

    assert affordable_slots(fit, 20, 10.0) == slots


def test_two_copies_that_do_not_fit_are_refused() -> None:
    def fit(count: int, emptying: float) -> None:
        raise TooLargeError(f"{count} {emptying}")

    with pytest.raises(TooLargeError, match=r"2 10\.0"):
        affordable_slots(fit, 20, 10.0)
