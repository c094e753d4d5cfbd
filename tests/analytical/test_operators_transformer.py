"""Work of transformer operators against counts by loops, torch's counter, and properties."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from brute_force import Tally, assert_columns_agree, assert_grows, assert_same, counted_flop, counts, shaped
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.operators import (
    ACTIVATIONS,
    NORMS,
    activation_work,
    all_gather_work,
    all_reduce_work,
    all_to_all_work,
    attended_keys,
    attention_pairs,
    attention_work,
    distinct_experts,
    elementwise_work,
    embedding_work,
    gemm_work,
    mla_projection_work,
    mla_work,
    moe_gemm_work,
    moe_routing_work,
    norm_work,
    pages,
    reduce_scatter_work,
    rope_work,
    send_work,
    softmax_work,
)
from ridgeline.analytical.work import SPECIAL, fma_key

sizes = st.integers(1, 40)


def visible(q_length: int, kv_length: int, causal: bool, window: int | None) -> set[tuple[int, int]]:
    """Unmasked (query, key) pairs by the definition of the mask."""
    pairs = set()
    for t, s in itertools.product(range(q_length), range(kv_length)):
        distance = t + kv_length - q_length - s  # bottom-right: the last query stands at the last key
        if causal and distance < 0:
            continue
        if window is not None and abs(distance) >= window:
            continue
        pairs.add((t, s))
    return pairs


# Attention


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 1, 2, 3, 5, 9])
def test_pairs_and_keys_are_those_of_the_mask(causal: bool, window: int | None) -> None:
    for q_length, kv_length in itertools.product(range(1, 7), repeat=2):
        pairs = visible(q_length, kv_length, causal, window)
        assert attention_pairs(q_length, kv_length, causal, window) == len(pairs), (q_length, kv_length)
        assert attended_keys(q_length, kv_length, window) == len({s for _, s in pairs}), (q_length, kv_length)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("q_length", "kv_length"), [(1, 7), (3, 5), (4, 4)])
@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize(("shared_prefix", "page"), [(0, None), (3, 2), (4, 3)])
def test_attention_by_brute_force(
    causal: bool, q_length: int, kv_length: int, window: int | None, shared_prefix: int, page: int | None
) -> None:
    batch, q_heads, kv_heads, head_dim, value_dim = 2, 4, 2, 3, 5
    tally = Tally()
    for b, h, (t, s) in itertools.product(range(batch), range(q_heads), visible(q_length, kv_length, causal, window)):
        owner = "shared" if s < shared_prefix else b
        for i in range(head_dim):
            tally.matrix("bfloat16")
            tally.read("activations", "bfloat16", "q", b, h, t, i)
            tally.read("kv", "int8", "k", owner, h // 2, s, i)
        tally.special()
        for i in range(value_dim):
            tally.matrix("bfloat16")
            tally.read("kv", "int8", "v", owner, h // 2, s, i)
            tally.write("activations", "float32", b, h, t, i)
    if page is not None:
        for b, (_, s) in itertools.product(range(batch), visible(q_length, kv_length, causal, window)):
            tally.read("index", "int32", b, s // page)
    work = attention_work(
        batch, q_heads, kv_heads, q_length, kv_length, head_dim, causal, "bfloat16",
        kv_precision="int8", output="float32", value_dim=value_dim, window=window, page=page,
        shared_prefix=shared_prefix,
    )  # fmt: skip
    assert_same(work, tally)


attention_sizes = st.fixed_dictionaries(
    dict.fromkeys(("batch", "q_heads", "kv_heads", "q_length", "kv_length", "head_dim", "value_dim"), sizes)
)


@given(attention_sizes, st.booleans())
def test_a_window_of_everything_is_no_window(shape: dict[str, int], causal: bool) -> None:
    whole = attention_work(**shape, causal=causal, precision="float16")
    wide = shape["q_length"] + shape["kv_length"]
    assert counts(attention_work(**shape, causal=causal, precision="float16", window=wide)) == counts(whole)
    assert counts(attention_work(**shape, causal=causal, precision="float16", shared_prefix=0)) == counts(whole)


@given(attention_sizes, st.booleans(), st.integers(1, 50), st.integers(1, 50))
def test_wider_windows_are_more_work(shape: dict[str, int], causal: bool, window: int, wider: int) -> None:
    narrow = counts(attention_work(**shape, causal=causal, precision="float16", window=window))
    wide = counts(attention_work(**shape, causal=causal, precision="float16", window=window + wider))
    assert all(wide[name] >= value for name, value in narrow.items())


@given(attention_sizes, st.integers(1, 30))
def test_sharing_a_prefix_saves_its_bytes_for_all_but_one(shape: dict[str, int], prefix: int) -> None:
    prefix = min(prefix, shape["kv_length"])
    apart = attention_work(**shape, causal=True, precision="float16")
    shared = attention_work(**shape, causal=True, precision="float16", shared_prefix=prefix)
    saved = 2 * (shape["batch"] - 1) * prefix * shape["kv_heads"] * (shape["head_dim"] + shape["value_dim"])
    assert apart.read_bytes["kv"] - shared.read_bytes["kv"] == saved
    assert shared.operations == apart.operations


@given(st.integers(1, 300), st.integers(1, 64))
def test_pages_hold_the_tokens_and_waste_less_than_one(length: int, page: int) -> None:
    assert 0 <= pages(length, page) * page - length < page


@pytest.mark.parametrize("absorbed", [False, True])
@pytest.mark.parametrize(("q_length", "kv_length", "causal"), [(1, 5, True), (3, 4, True), (4, 3, False)])
def test_mla_by_brute_force(absorbed: bool, q_length: int, kv_length: int, causal: bool) -> None:
    batch, heads, rank, rope, nope, value = 2, 3, 5, 2, 4, 3
    tally = Tally()
    key, out = (rank, rank) if absorbed else (nope, value)
    for b, h, (t, s) in itertools.product(range(batch), range(heads), visible(q_length, kv_length, causal, None)):
        for i in range(key):
            tally.matrix("bfloat16")
            tally.read("activations", "bfloat16", "q", b, h, t, i)
            tally.read("kv", "float8_e4m3fn", "latent" if absorbed else ("k", h), b, s, i)
        for i in range(rope):
            tally.matrix("bfloat16")
            tally.read("activations", "bfloat16", "q rope", b, h, t, i)
            tally.read("kv", "float8_e4m3fn", "k rope", b, s, i)
        tally.special()
        for i in range(out):
            tally.matrix("bfloat16")
            tally.read("kv", "float8_e4m3fn", "latent" if absorbed else ("v", h), b, s, i)
            tally.write("activations", "bfloat16", b, h, t, i)
    # Every query sees a key in these shapes, or none at all: those that see none are read and written as zeros too.
    for b, h, t in itertools.product(range(batch), range(heads), range(q_length)):
        for i in range(key):
            tally.read("activations", "bfloat16", "q", b, h, t, i)
        for i in range(rope):
            tally.read("activations", "bfloat16", "q rope", b, h, t, i)
        for i in range(out):
            tally.write("activations", "bfloat16", b, h, t, i)
    work = mla_work(
        batch, heads, q_length, kv_length, rank, rope, nope, value, causal, "bfloat16",
        kv_precision="float8_e4m3fn", absorbed=absorbed,
    )  # fmt: skip
    assert_same(work, tally)


@pytest.mark.parametrize("absorbed", [False, True])
def test_mla_projections_by_brute_force(absorbed: bool) -> None:
    batch, heads, q_length, kv_length, rank, nope, value = 2, 3, 2, 5, 4, 3, 2
    tally = Tally()
    length = q_length if absorbed else kv_length
    for b, h, t, r in itertools.product(range(batch), range(heads), range(length), range(rank)):
        for i in range(nope):
            tally.matrix("float16")
            tally.read("weights", "int8", "uk", h, i, r)
            if absorbed:
                tally.read("activations", "float16", "q", b, h, t, i)
                tally.write("activations", "float16", "q latent", b, h, t, r)
            else:
                tally.read("kv", "float16", "latent", b, t, r)
                tally.write("kv", "float16", "k", b, h, t, i)
        for i in range(value):
            tally.matrix("float16")
            tally.read("weights", "int8", "uv", h, r, i)
            if absorbed:
                tally.read("activations", "float16", "o latent", b, h, t, r)
                tally.write("activations", "float16", "o", b, h, t, i)
            else:
                tally.write("kv", "float16", "v", b, h, t, i)
    work = mla_projection_work(
        batch, heads, q_length, kv_length, rank, nope, value, "float16", weight="int8", absorbed=absorbed
    )
    assert_same(work, tally, launches=2 if absorbed else 1)


@pytest.mark.parametrize(("batch", "heads", "kv_length"), [(1, 1, 1), (3, 5, 30)])
def test_both_ways_of_mla_do_what_torch_counts(batch: int, heads: int, kv_length: int) -> None:
    import torch

    rank, rope, nope, value, q_length = 16, 4, 8, 6, 3
    latent, k_rope = shaped(batch, 1, kv_length, rank), shaped(batch, 1, kv_length, rope)
    q, q_rope = shaped(batch, heads, q_length, nope), shaped(batch, heads, q_length, rope)
    uk, uv = shaped(heads, nope, rank), shaped(heads, rank, value)

    def plain() -> None:
        both = torch.cat([uk.reshape(-1, rank), uv.transpose(1, 2).reshape(-1, rank)])  # kv_b_proj is one weight
        kv = latent[:, 0] @ both.T
        k = kv[..., : heads * nope].view(batch, kv_length, heads, nope).transpose(1, 2)
        v = kv[..., heads * nope :].view(batch, kv_length, heads, value).transpose(1, 2)
        scores = torch.cat([q, q_rope], -1) @ torch.cat([k, k_rope.expand(-1, heads, -1, -1)], -1).transpose(-1, -2)
        scores.softmax(-1) @ v

    def absorbed() -> None:
        query = torch.cat([q @ uk, q_rope], -1)
        scores = query @ torch.cat([latent, k_rope], -1).transpose(-1, -2)
        (scores.softmax(-1) @ latent) @ uv

    for way, function in ((False, plain), (True, absorbed)):
        whole = mla_work(batch, heads, q_length, kv_length, rank, rope, nope, value, False, "float32", absorbed=way)
        whole += mla_projection_work(batch, heads, q_length, kv_length, rank, nope, value, "float32", absorbed=way)
        assert whole.flop == counted_flop(function)


# Row by row: norms, activations, rotations, softmax, look-ups


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (2, 5), (3, 4)])
def test_norms_by_brute_force(kind: str, residual: bool, rows: int, width: int) -> None:
    tally = Tally()
    for r in range(rows):
        for i in range(width):
            tally.read("activations", "bfloat16", "x", r, i)
            if residual:
                tally.read("activations", "bfloat16", "residual", r, i)
                tally.vector("bfloat16")
                tally.write("activations", "bfloat16", "sum", r, i)
        if kind == "layer":
            tally.vector("bfloat16", width - 1)  # sum
            tally.vector("bfloat16")  # times 1 / width
            tally.vector("bfloat16", width)  # minus the mean
        tally.vector("bfloat16", width)  # squares
        tally.vector("bfloat16", width - 1)  # their sum
        tally.vector("bfloat16")  # times 1 / width
        tally.vector("bfloat16")  # plus epsilon
        tally.special()  # reciprocal square root
        for i in range(width):
            tally.vector("bfloat16")
            tally.read("weights", "bfloat16", "gain", i)
            tally.vector("bfloat16")
            if kind == "layer":
                tally.read("weights", "bfloat16", "bias", i)
                tally.vector("bfloat16")
            tally.write("activations", "float8_e4m3fn", "y", r, i)
    assert_same(norm_work(rows, width, "bfloat16", kind, residual=residual, output="float8_e4m3fn"), tally)


def gelu(x: Any, tally: Tally) -> None:
    tally.vector("float16", 2)  # 0.5 x, x / sqrt(2)
    tally.special()
    tally.vector("float16", 2)  # 1 + erf, product


def gelu_tanh(x: Any, tally: Tally) -> None:
    tally.vector("float16", 5)  # x x, a + b x x, times x, and 0.5 x
    tally.special()
    tally.vector("float16", 2)


DEFINITIONS = {
    "relu": lambda x, tally: tally.vector("float16"),
    "relu_squared": lambda x, tally: tally.vector("float16", 2),
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": lambda x, tally: (tally.vector("float16"), tally.special(), tally.vector("float16")),
    "silu": lambda x, tally: (tally.special(), tally.vector("float16")),
    "sigmoid": lambda x, tally: tally.special(),
    "tanh": lambda x, tally: tally.special(),
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_by_brute_force(kind: str) -> None:
    rows, width = 3, 4
    tally = Tally()
    for r, i in itertools.product(range(rows), range(width)):
        tally.read("activations", "float16", "x", r, i)
        DEFINITIONS[kind.removesuffix("_and_mul")](None, tally)
        if kind.endswith("_and_mul"):
            tally.read("activations", "float16", "gate", r, i)
            tally.vector("float16")
        tally.write("activations", "float16", r, i)
    assert_same(activation_work(rows, width, "float16", kind), tally)


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(ValueError, match="unknown norm 'batch': one of rms, layer"):
        norm_work(1, 1, "float32", "batch")
    with pytest.raises(ValueError, match="unknown activation 'swish': one of relu, "):
        activation_work(1, 1, "float32", "swish")


@pytest.mark.parametrize(("tokens", "positions"), [(1, 1), (4, 4), (6, 3)])
def test_rope_by_brute_force(tokens: int, positions: int) -> None:
    heads, head_dim = 3, 4
    tally = Tally()
    for token in range(tokens):
        tally.read("index", "int64", token)
        for h, pair in itertools.product(range(heads), range(head_dim // 2)):
            tally.read("weights", "float16", "cos", token % positions, pair)
            tally.read("weights", "float16", "sin", token % positions, pair)
            for value in range(2):
                tally.read("activations", "float16", token, h, pair, value)
                tally.vector("float16", 3)  # x cos - y sin, or x sin + y cos
                tally.write("activations", "float16", token, h, pair, value)
    assert_same(rope_work(tokens, heads, head_dim, "float16", positions=positions), tally)


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (2, 5)])
def test_softmax_by_brute_force(rows: int, width: int) -> None:
    tally = Tally()
    for r in range(rows):
        tally.vector("float32", width - 1)  # maximum
        for i in range(width):
            tally.read("activations", "float32", r, i)
            tally.vector("float32")
            tally.special()
        tally.vector("float32", width - 1)  # sum
        tally.special()  # its reciprocal
        for i in range(width):
            tally.vector("float32")
            tally.write("activations", "float32", r, i)
    assert_same(softmax_work(rows, width, "float32"), tally)


def test_elementwise_by_brute_force() -> None:
    tally = Tally()
    for i in range(7):
        for name in ("a", "b"):
            tally.read("activations", "float32", name, i)
        tally.vector("float32", 3)
        tally.write("activations", "float16", i)
    assert_same(elementwise_work(7, 2, "float32", 3, output="float16"), tally)


def test_embedding_by_brute_force() -> None:
    numbers, width = [4, 1, 4, 2, 1], 3
    tally = Tally()
    for position, number in enumerate(numbers):
        tally.read("index", "int64", position)
        for i in range(width):
            tally.read("weights", "bfloat16", number, i)
            tally.write("activations", "bfloat16", position, i)
    assert_same(embedding_work(5, 9, width, "bfloat16", distinct=len(set(numbers))), tally)


# GEMM with precisions


def test_gemm_counts_each_array_in_its_own_precision() -> None:
    m, n, k = 2, 3, 5
    tally = Tally()
    for i, j, p in itertools.product(range(m), range(n), range(k)):
        tally.matrix("bfloat16")
        tally.read("activations", "bfloat16", i, p)
        tally.read("weights", "float8_e4m3fn", p, j)
        tally.write("activations", "float32", i, j)
    assert_same(gemm_work(m, n, k, "bfloat16", weight="float8_e4m3fn", output="float32"), tally)


# Mixture of experts


def routed(tokens: int, experts: int, top_k: int, seed: int) -> np.ndarray[Any, Any]:
    """[tokens, top_k] different experts of each token."""
    return np.random.default_rng(seed).permuted(np.tile(np.arange(experts), (tokens, 1)), axis=1)[:, :top_k]


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(1, 8, 2), (5, 8, 2), (6, 16, 4), (3, 4, 4), (200, 64, 1)])
def test_distinct_experts_are_right_on_average(tokens: int, experts: int, top_k: int) -> None:
    seen = [len(np.unique(routed(tokens, experts, top_k, seed))) for seed in range(400)]
    error = np.std(seen) / np.sqrt(len(seen))
    assert distinct_experts(experts, top_k, tokens) == pytest.approx(np.mean(seen), abs=4.0 * error + 1e-9)


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


# Collectives


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_collectives_pass_what_a_ring_passes(ranks: int) -> None:
    """Rings of one element a rank: each rank sends its part on until all have it, or all have added to it."""
    message = 24.0 * ranks
    gathered = {rank: {rank} for rank in range(ranks)}
    sent = 0
    for step in range(ranks - 1):
        passed = {rank: (rank - step) % ranks for rank in range(ranks)}
        sent += 1
        for rank, part in passed.items():
            gathered[(rank + 1) % ranks].add(part)
    assert all(parts == set(range(ranks)) for parts in gathered.values())
    gather, scatter = all_gather_work(message, ranks), reduce_scatter_work(message, ranks)
    assert gather.link_bytes == scatter.link_bytes == pytest.approx(sent * message / ranks)
    assert (sum(gather.read_bytes.values()), sum(gather.written_bytes.values())) == pytest.approx((24.0, message))
    assert (sum(scatter.read_bytes.values()), sum(scatter.written_bytes.values())) == pytest.approx((message, 24.0))
    both = gather + scatter
    assert all_reduce_work(message, ranks).link_bytes == pytest.approx(both.link_bytes)
    assert all_to_all_work(message, ranks).link_bytes == pytest.approx(message * (ranks - 1) / ranks)
    assert (send_work(message).link_bytes, send_work(message).bytes) == (message, message)


# Properties

FORMULAS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "attention-window": (
        lambda **s: attention_work(**s, causal=True, precision="float16", page=16),
        ("batch", "q_heads", "kv_heads", "q_length", "kv_length", "head_dim", "value_dim", "window"),
    ),
    "attention-two-sided-window": (
        lambda **s: attention_work(**s, causal=False, precision="float16"),
        ("batch", "q_heads", "kv_heads", "q_length", "kv_length", "head_dim", "window"),
    ),
    "mla-absorbed": (
        lambda **s: mla_work(**s, causal=True, precision="bfloat16", absorbed=True),
        ("batch", "heads", "q_length", "kv_length", "kv_rank", "rope_dim", "nope_dim", "value_dim"),
    ),
    "mla-plain": (
        lambda **s: mla_work(**s, causal=True, precision="bfloat16", absorbed=False),
        ("batch", "heads", "q_length", "kv_length", "kv_rank", "rope_dim", "nope_dim", "value_dim"),
    ),
    "mla-projection": (
        lambda **s: mla_projection_work(**s, precision="bfloat16", absorbed=True),
        ("batch", "heads", "q_length", "kv_length", "kv_rank", "nope_dim", "value_dim"),
    ),
    "norm": (lambda **s: norm_work(**s, precision="float16", residual=True), ("rows", "width")),
    "activation": (lambda **s: activation_work(**s, precision="float16", kind="silu_and_mul"), ("rows", "width")),
    "rope": (lambda **s: rope_work(**s, precision="float16"), ("tokens", "heads", "head_dim")),
    "softmax": (lambda **s: softmax_work(**s, precision="float32"), ("rows", "width")),
    "elementwise": (
        lambda **s: elementwise_work(**s, precision="float16"),
        ("count", "inputs", "operations_per_element"),
    ),
    "embedding": (lambda **s: embedding_work(**s, precision="float16"), ("tokens", "vocabulary", "width")),
    "moe-routing": (
        lambda **s: moe_routing_work(**s, precision="bfloat16"),
        ("tokens", "experts", "top_k", "hidden"),
    ),
    "moe-gemm": (
        lambda **s: moe_gemm_work(s.pop("tokens"), s["more"] + s["top_k"], s["top_k"], s["n"], s["k"], "bfloat16"),
        ("tokens", "more", "top_k", "n", "k"),
    ),
    "all-gather": (lambda **s: all_gather_work(s["message"] * 1.0, s["ranks"]), ("message", "ranks")),
}


@pytest.mark.parametrize("name", FORMULAS)
@settings(max_examples=25)
@given(data=st.data())
def test_work_grows_with_every_size(name: str, data: st.DataObject) -> None:
    formula, names = FORMULAS[name]
    shape = data.draw(st.fixed_dictionaries(dict.fromkeys(names, sizes)))
    # More ranks hold smaller parts each; with a two-sided window queries that stand before all keys may see none.
    never = frozenset({"ranks"} & set(names))
    assert_grows(formula, shape, data, never)


@pytest.mark.parametrize("name", FORMULAS)
@settings(max_examples=10)
@given(data=st.data())
def test_numbers_and_columns_agree(name: str, data: st.DataObject) -> None:
    formula, names = FORMULAS[name]
    rows = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(names, sizes)), min_size=1, max_size=4))
    assert_columns_agree(formula, rows)


@given(a=sizes, b=sizes, width=sizes)
def test_rows_of_two_batches_add_up_to_those_of_one(a: int, b: int, width: int) -> None:
    """All but what both read: the gain of a norm is read once a launch."""
    for work in (
        lambda rows: softmax_work(rows, width, "float16"),
        lambda rows: activation_work(rows, width, "float16", "gelu"),
        lambda rows: rope_work(rows, 2, width, "float16"),
        lambda rows: elementwise_work(rows, 2, "float16", 1.0),
    ):
        assert counts(work(a) + work(b)) == counts(work(a + b))
    halves, whole = norm_work(a, width, "float16") + norm_work(b, width, "float16"), norm_work(a + b, width, "float16")
    assert halves.operations == whole.operations
    assert halves.read_bytes["weights"] == 2 * whole.read_bytes["weights"]


def test_mla_of_deepseek_v3_is_576_and_512() -> None:
    """A decode step reads 576 values a token whatever the heads, and a pair takes 2 (576 + 512) operations."""
    work = mla_work(1, 128, 1, 1000, 512, 64, 128, 128, True, "bfloat16", absorbed=True)
    assert work.read_bytes["kv"] == 1000 * 576 * 2
    assert work.operations == {fma_key("bfloat16"): 128 * 1000 * 2 * 1088, SPECIAL: 128 * 1000}
