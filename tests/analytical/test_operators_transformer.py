"""Work of what stands around attention and products, and of collectives: loops, torch, and properties."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from brute_force import Tally, assert_columns_agree, assert_grows, assert_same, counts
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.operators import (
    ACTIVATIONS,
    NORMS,
    activation_work,
    all_gather_work,
    all_reduce_work,
    all_to_all_work,
    attention_work,
    elementwise_work,
    embedding_work,
    gemm_work,
    mla_projection_work,
    mla_work,
    moe_gemm_work,
    moe_routing_work,
    norm_work,
    reduce_scatter_work,
    rope_work,
    send_work,
    softmax_work,
)

sizes = st.integers(1, 40)


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
        lambda **s: attention_work(**s, causal=True, precision="float16"),
        ("batch", "q_heads", "kv_heads", "q_length", "kv_length", "head_dim", "value_dim", "window"),
    ),
    # Not with a window too: as it slides on it lies in one page less now and then.
    "attention-paged": (
        lambda **s: attention_work(**s, causal=True, precision="float16", page=16),
        ("batch", "q_heads", "kv_heads", "q_length", "kv_length", "head_dim", "value_dim"),
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
@settings(max_examples=12)
@given(data=st.data())
def test_work_grows_with_every_size(name: str, data: st.DataObject) -> None:
    formula, names = FORMULAS[name]
    shape = data.draw(st.fixed_dictionaries(dict.fromkeys(names, sizes)))
    # More ranks hold smaller parts each; with a two-sided window queries that stand before all keys may see none.
    never = frozenset({"ranks"} & set(names))
    assert_grows(formula, shape, data, never)


@pytest.mark.parametrize("name", FORMULAS)
@settings(max_examples=6)
@given(data=st.data())
def test_numbers_and_columns_agree(name: str, data: st.DataObject) -> None:
    formula, names = FORMULAS[name]
    rows = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(names, sizes)), min_size=1, max_size=4))
    assert_columns_agree(formula, rows)


@settings(max_examples=30)
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
