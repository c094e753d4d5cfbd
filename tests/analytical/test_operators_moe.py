"""Work of mixtures of experts: which experts are touched, the router, dispatch and the grouped product."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from brute_force import Tally, assert_same, counted_flop, counts, grid, shaped
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.operators import (
    distinct_experts,
    gemm_work,
    moe_combine_work,
    moe_dispatch_work,
    moe_einsum_dispatch_work,
    moe_gemm_work,
    moe_routing_work,
)

sizes = st.integers(1, 40)


def routed(tokens: int, experts: int, top_k: int, seed: int) -> np.ndarray[Any, Any]:
    """[tokens, top_k] different experts of each token."""
    return np.random.default_rng(seed).permuted(np.tile(np.arange(experts), (tokens, 1)), axis=1)[:, :top_k]


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(1, 8, 2), (5, 8, 2), (6, 16, 4), (3, 4, 4), (200, 64, 1)])
def test_distinct_experts_are_right_on_average(tokens: int, experts: int, top_k: int) -> None:
    seen = [len(np.unique(routed(tokens, experts, top_k, seed))) for seed in range(400)]
    error = np.std(seen) / np.sqrt(len(seen))
    assert distinct_experts(experts, top_k, tokens) == pytest.approx(np.mean(seen), abs=4.0 * error + 1e-9)


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(1, 64), st.integers(1, 64))
def test_distinct_experts_stay_between_their_limits(experts: int, top_k: int, tokens: int) -> None:
    top_k = min(top_k, experts)
    distinct = distinct_experts(experts, top_k, tokens)
    assert top_k * (1 - 1e-12) <= distinct <= min(experts, top_k * tokens) * (1 + 1e-12)
    assert distinct_experts(experts, top_k, 1) == pytest.approx(top_k)
    assert distinct_experts(experts, experts, tokens) == experts


@pytest.mark.parametrize("gathered", [False, True])
@pytest.mark.parametrize("combined", [False, True])
def test_moe_gemm_by_brute_force(gathered: bool, combined: bool) -> None:
    tokens, experts, top_k, n, k = 5, 6, 2, 3, 4
    routing = routed(tokens, experts, top_k, seed=1)
    tally = Tally()
    for t, c in itertools.product(range(tokens), range(top_k)):
        tally.read("index", "int32", t, c)
        for i, p in itertools.product(range(n), range(k)):
            tally.matrix("bfloat16")
            tally.read("activations", "bfloat16", t, None if gathered else c, p)
            tally.read("weights", "int8", routing[t, c], p, i)
            tally.write("activations", "bfloat16", t, None if combined else c, i)
        if combined:
            tally.read("activations", "float32", "choice", t, c)
            tally.vector("float32", n * (1 if c == 0 else 2))  # times the weight; added to the sum
    work = moe_gemm_work(
        tokens, experts, top_k, n, k, "bfloat16",
        weight="int8", distinct=len(np.unique(routing)), gathered=gathered, combined=combined,
    )  # fmt: skip
    assert_same(work, tally)


def test_moe_routing_by_brute_force() -> None:
    tokens, experts, top_k, hidden = 3, 5, 2, 4
    tally = Tally()
    for t in range(tokens):
        for e, p in itertools.product(range(experts), range(hidden)):
            tally.matrix("bfloat16")
            tally.read("activations", "bfloat16", t, p)
            tally.read("weights", "bfloat16", p, e)
        tally.vector("float32", (experts - 1) + experts + (experts - 1) + experts)  # softmax
        tally.special(experts + 1)
        tally.vector("float32", experts - 1)  # the largest
        for c in range(top_k):
            tally.write("activations", "float32", t, c)
            tally.write("index", "int32", t, c)
    assert_same(moe_routing_work(tokens, experts, top_k, hidden, "bfloat16"), tally)


@settings(max_examples=30)
@given(tokens=sizes, n=sizes, k=sizes)
def test_one_expert_is_a_dense_gemm(tokens: int, n: int, k: int) -> None:
    moe, dense = counts(moe_gemm_work(tokens, 1, 1, n, k, "bfloat16")), counts(gemm_work(tokens, n, k, "bfloat16"))
    assert moe.pop("read index") == 4 * tokens
    moe["bytes"] -= 4 * tokens
    assert moe == dense


@pytest.mark.parametrize(("tokens", "n", "k"), [(1, 3, 2), (33, 5, 7)])
def test_moe_products_are_what_torch_counts(tokens: int, n: int, k: int) -> None:
    routing = routed(tokens, 8, 2, seed=tokens)
    x, w = shaped(tokens, k), shaped(8, k, n)

    def loop_over_experts() -> None:
        for e in range(8):
            x[: np.count_nonzero(routing == e)] @ w[e]

    assert moe_gemm_work(tokens, 8, 2, n, k, "float32").flop == counted_flop(loop_over_experts)


def test_dispatch_and_combine_by_brute_force() -> None:
    tokens, top_k, hidden = 4, 2, 3
    dispatch, combine = Tally(), Tally()
    for t, c, h in grid(tokens, top_k, hidden):
        dispatch.read("index", "int32", t, c)
        dispatch.read("activations", "bfloat16", t, h)
        dispatch.write("activations", "bfloat16", t, c, h)
        combine.read("index", "int32", t, c)
        combine.read("activations", "float32", "weight", t, c)
        combine.read("activations", "bfloat16", t, c, h)
        combine.vector("float32", 1 if c == 0 else 2)
        combine.write("activations", "bfloat16", t, h)
    assert_same(moe_dispatch_work(tokens, top_k, hidden, "bfloat16"), dispatch)
    assert_same(moe_combine_work(tokens, top_k, hidden, "bfloat16"), combine)


def test_einsum_dispatch_by_brute_force_and_torch() -> None:
    import torch

    tokens, experts, capacity, hidden = 4, 3, 2, 5
    tally = Tally()
    for t, e, c, h in grid(tokens, experts, capacity, hidden):
        tally.matrix("float32")
        tally.read("activations", "float32", "mask", t, e, c)
        tally.read("activations", "float32", t, h)
        tally.write("activations", "float32", e, c, h)
    work = moe_einsum_dispatch_work(tokens, experts, capacity, hidden, "float32")
    assert_same(work, tally)
    mask, x = shaped(tokens, experts, capacity), shaped(tokens, hidden)
    assert work.flop == counted_flop(lambda: torch.einsum("tec,th->ech", mask, x))
