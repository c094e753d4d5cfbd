"""Work of products with quantised, low-bit, sparse, gathered and factored weights against counts by loops and torch."""

from __future__ import annotations

import numpy as np
import pytest
from brute_force import Tally, assert_same, counted_flop, counts, grid, shaped
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.operators import (
    IntegerGemm,
    SparseGemm,
    bit_plane_gemm_work,
    block_sparse_gemm_work,
    dequantisation_work,
    dual_grain_gemm_work,
    embedding_bag_work,
    embedding_work,
    fused_mlp_work,
    gather_gemm_work,
    gather_mlp_work,
    gemm_work,
    int8_gemm_work,
    low_rank_gemm_work,
    lut_gemm_work,
    quantise_work,
    shift_gemm_work,
    structured_sparse_gemm_work,
    ternary_gemm_work,
    weight_only_gemm_work,
)
from ridgeline.analytical.work import RateKey, fma_key

sizes = st.integers(1, 40)


# Weight-only


@pytest.mark.parametrize("zero", [None, "int8"])
@pytest.mark.parametrize(("m", "n", "k", "group"), [(1, 2, 6, 3), (3, 2, 4, 4)])
def test_weight_only_gemm_with_scales_and_zeros(m: int, n: int, k: int, group: int, zero: str | None) -> None:
    tally = Tally()
    for i, j, p in grid(m, n, k):
        tally.matrix("float16")
        tally.read("activations", "float16", i, p)
        tally.read("weights", "int4", j, p)
        tally.read("scales", "float32", "scale", j, p // group)
        if zero:
            tally.read("scales", zero, "zero", j, p // group)
        tally.write("activations", "bfloat16", i, j)
    work = weight_only_gemm_work(m, n, k, "int4", group, "float16", scale="float32", zero=zero, output="bfloat16")
    assert_same(work, tally)


@settings(max_examples=30)
@given(m=sizes, n=sizes, k=sizes)
def test_a_group_as_long_as_the_channel_is_a_scale_a_channel(m: int, n: int, k: int) -> None:
    assert weight_only_gemm_work(m, n, k, "int8", k, "float16").read_bytes["scales"] == pytest.approx(2 * n)


def test_dequantisation_is_the_implementations() -> None:
    problem = weight_only_gemm_work(1, 8, 16, "int4", 4, "float16", zero="int4")
    tally = Tally()
    for _ in grid(2, 8, 16):
        tally.vector("float32", 3)  # convert, minus zero, times scale
    added = dequantisation_work(8, 16, zero=True, times=2)
    assert_same(added, tally, launches=0)
    assert (problem + added).operations[fma_key("float16")] == problem.flop
    assert (problem + added).bytes == problem.bytes


@pytest.mark.parametrize("outliers", [set(), {(0, 1), (0, 3), (2, 2)}])
def test_lut_gemm_by_brute_force(outliers: set[tuple[int, int]]) -> None:
    m, n, k, index_bits = 2, 3, 4, 3
    tally = Tally()
    for i, j, p in grid(m, n, k):
        tally.matrix("float32")
        tally.read("activations", "float32", i, p)
        for bit in range(index_bits):
            tally.read("weights", "int1", j, p, bit)
        for entry in range(2**index_bits):
            tally.read("scales", "float32", j, entry)
        tally.write("activations", "float32", i, j)
        if (j, p) in outliers:
            tally.matrix("float32")
            tally.read("weights", "float32", "outlier", j, p)
            tally.read("index", "int32", "column", j, p)
    if outliers:
        for start in range(n + 1):
            tally.read("index", "int32", "start", start)
    assert_same(lut_gemm_work(m, n, k, index_bits, "float32", outliers=len(outliers)), tally)


# Integers and few bits


@pytest.mark.parametrize("outliers", [set(), {1, 3}])
def test_int8_gemm_by_brute_force(outliers: set[int]) -> None:
    m, n, k = 2, 3, 5
    tally = Tally()
    for i, j in grid(m, n):
        for p in range(k):
            tally.matrix("float16" if p in outliers else "int8")
            tally.read("activations", "float16" if p in outliers else "int8", i, p)
            tally.read("weights", "int8", j, p)
        for p in outliers:
            tally.read("index", "int32", p)
        tally.vector("float32", 2)
        if outliers:
            tally.vector("float32")
        tally.read("scales", "float32", "row", i)
        tally.read("scales", "float32", "channel", j)
        tally.write("activations", "float16", i, j)
    assert_same(int8_gemm_work(m, n, k, outlier_columns=len(outliers), precision="float16"), tally)


def test_dual_grain_gemm_by_brute_force() -> None:
    m, n, k, group = 2, 3, 6, 3
    tally = Tally()
    for i, j, p in grid(m, n, k):
        tally.matrix("int8")
        tally.read("activations", "int8", i, p)
        tally.read("weights", "int4", j, p)
        tally.read("scales", "int8", "scale", j, p // group)
        tally.read("scales", "int8", "zero", j, p // group)
        tally.read("scales", "float16", "channel", j)
        tally.read("scales", "float32", "row", i)
        tally.write("activations", "float16", i, j)
    for _ in grid(m, n):
        tally.vector("float32", 2)
    assert_same(dual_grain_gemm_work(m, n, k, group), tally)


def test_ternary_gemm_by_brute_force() -> None:
    m, n, k = 2, 3, 5
    tally = Tally()
    tally.read("scales", "float32", "weights")
    for i, j, p in grid(m, n, k):
        tally.operations[RateKey("matrix", "int8", "int2", "int32")] += 2
        tally.read("activations", "int8", i, p)
        tally.read("weights", "int2", j, p)
        tally.read("scales", "float32", "row", i)
        tally.write("activations", "float16", i, j)
    for _ in grid(m, n):
        tally.vector("float32", 2)
    assert_same(ternary_gemm_work(m, n, k), tally)


@pytest.mark.parametrize(("activation_bits", "weight_bits"), [(1, 1), (3, 2)])
def test_bit_planes_by_brute_force(activation_bits: int, weight_bits: int) -> None:
    m, n, k = 2, 3, 5
    tally = Tally()
    for i, j, p, a, w in grid(m, n, k, activation_bits, weight_bits):
        tally.operations[RateKey("matrix", "int1", "int1", "int32")] += 2
        tally.read("activations", "int1", i, p, a)
        tally.read("weights", "int1", j, p, w)
        tally.write("activations", "int32", i, j)
    assert_same(bit_plane_gemm_work(m, n, k, activation_bits, weight_bits), tally)


def test_shift_gemm_by_brute_force() -> None:
    m, n, k = 2, 3, 5
    tally = Tally()
    for i, j, p in grid(m, n, k):
        tally.operations[RateKey("integer", "int8", "int8", "int32")] += 2  # shift, add
        tally.read("activations", "int8", i, p)
        for bit in range(5):
            tally.read("weights", "int1", j, p, bit)
        tally.write("activations", "int32", i, j)
    assert_same(shift_gemm_work(m, n, k), tally)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("group", [None, 2])
def test_quantisation_by_brute_force(group: int | None, centred: bool) -> None:
    rows, width = 3, 4
    tally = Tally()
    for r in range(rows):
        for i in range(width):
            tally.read("activations", "bfloat16", r, i)
            if centred:
                tally.vector("float32", 2)  # to the mean, minus the mean
            if i % (group or width):
                tally.vector("float32")  # the larger of two
            else:
                tally.special()
            tally.vector("float32", 2)  # times the reciprocal, rounded
            tally.write("activations", "int8", r, i)
            tally.write("scales", "float32", r, i // (group or width))
    assert_same(quantise_work(rows, width, "bfloat16", group=group, centred=centred), tally)


@settings(max_examples=30)
@given(m=sizes, n=sizes, k=sizes)
def test_without_outliers_int8_is_the_integer_gemm_and_its_scales(m: int, n: int, k: int) -> None:
    scaled, plain = int8_gemm_work(m, n, k, output="int32"), gemm_work(m, n, k, "int8")
    assert scaled.operations[fma_key("int8")] == plain.flop
    assert scaled.bytes - plain.bytes == 4 * (m + n)


@settings(max_examples=30)
@given(m=sizes, n=sizes, k=sizes)
def test_products_of_all_formats_are_what_torch_counts_for_the_dense_one(m: int, n: int, k: int) -> None:
    flop = 2 * m * n * k
    for work in (
        weight_only_gemm_work(m, n, k, "int4", 1, "float16"),
        lut_gemm_work(m, n, k, 4, "float16"),
        bit_plane_gemm_work(m, n, k, 1, 1),
        shift_gemm_work(m, n, k),
        structured_sparse_gemm_work(m, n, k, "float16"),
    ):
        assert work.flop == flop


def test_torch_counts_a_dense_product_so() -> None:
    """torch counts no integer, packed or sparse product: the dense one on the same shape is what they are held to."""
    assert counted_flop(lambda: shaped(5, 7) @ shaped(7, 3)) == 2 * 5 * 7 * 3


# Sparse weights


@pytest.mark.parametrize(("block_rows", "block_columns"), [(1, 1), (4, 1), (2, 2)])
@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
def test_block_sparse_gemm_by_brute_force(block_rows: int, block_columns: int, density: float) -> None:
    m, n, k = 2, 8, 6
    kept = np.random.default_rng(3).random((n // block_rows, k // block_columns)) < density
    tally = Tally()
    for start in range(n // block_rows + 1):
        tally.read("index", "int32", "start", start)
    for i, j in grid(m, n):
        tally.write("activations", "int32", i, j)
        for p in range(k):
            block = j // block_rows, p // block_columns
            if kept[block]:
                tally.matrix("int8")
                tally.read("activations", "int8", i, p)
                tally.read("weights", "int8", j, p)
                tally.read("index", "int32", *block)
    work = block_sparse_gemm_work(
        m, n, k, np.count_nonzero(kept), block_columns * np.count_nonzero(kept.any(axis=0)), "int8",
        block_rows=block_rows, block_columns=block_columns,
    )  # fmt: skip
    assert_same(work, tally)


@pytest.mark.parametrize(("kept", "of", "position_bits"), [(2, 4, 2), (1, 4, 2), (4, 8, 3), (2, 5, 3)])
def test_structured_sparsity_by_brute_force(kept: int, of: int, position_bits: int) -> None:
    m, n, k = 2, 3, 2 * of
    dense = fma_key("float16")
    key = RateKey("matrix", "float16", "float16", "float32", "2:4") if (kept, of) == (2, 4) else dense
    tally = Tally()
    for i, j, p in grid(m, n, k):
        tally.read("activations", "float16", i, p)
        tally.write("activations", "float16", i, j)
        if p % of < kept:
            tally.read("weights", "float16", j, p)
            for bit in range(position_bits):
                tally.read("index", "int1", j, p, bit)
            tally.operations[key] += 2
        elif key is not dense:
            tally.operations[key] += 2  # skipped, and counted as data sheets count it
    assert_same(structured_sparse_gemm_work(m, n, k, "float16", kept=kept, of=of), tally)


@settings(max_examples=30)
@given(m=sizes, n=sizes, k=sizes)
def test_all_blocks_kept_is_dense_with_an_index(m: int, n: int, k: int) -> None:
    sparse, dense = counts(block_sparse_gemm_work(m, n, k, n * k, k, "float32")), counts(gemm_work(m, n, k, "float32"))
    index = sparse.pop("read index")
    assert index == 4 * (n * k + n + 1)
    sparse["bytes"] -= index
    assert sparse == dense


# Gathered neurons


def test_gather_gemm_by_brute_force() -> None:
    m, k = 3, 4
    chosen = [{0, 2}, {2}, {5, 2}]
    tally = Tally()
    for i, rows in enumerate(chosen):
        for p in range(k):
            tally.read("activations", "float32", i, p)
        for row in rows:
            tally.read("index", "int32", row)
            tally.write("activations", "float32", i, row)
            for p in range(k):
                tally.matrix("float32")
                tally.read("weights", "int8", row, p)
    pairs, rows = sum(map(len, chosen)), len(set().union(*chosen))
    assert_same(gather_gemm_work(m, k, pairs, rows, "float32", weight="int8"), tally)


@pytest.mark.parametrize("selection", ["gate", "predicted"])
def test_gather_mlp_by_brute_force(selection: str) -> None:
    hidden, intermediate = 3, 6
    fires = [{0, 2}, {2, 5}]
    tally = Tally()
    for t, neurons in enumerate(fires):
        for f in range(intermediate):
            if selection == "predicted" and f not in neurons:
                continue
            for h in range(hidden):
                tally.matrix("float32")
                tally.read("activations", "float32", t, h)
                tally.read("weights", "float32", "gate", f, h)
            tally.special()
            tally.vector("float32")  # silu
            if selection == "gate":
                tally.vector("float32")  # fires?
            else:
                tally.read("index", "int32", f)
        for f in neurons:
            tally.vector("float32")  # gate times up
            for h in range(hidden):
                tally.matrix("float32", 4)
                tally.read("weights", "float32", "up", f, h)
                tally.read("weights", "float32", "down", f, h)
        for h in range(hidden):
            tally.write("activations", "float32", t, h)
    pairs, neurons = sum(map(len, fires)), len(set().union(*fires))
    assert_same(gather_mlp_work(2, hidden, intermediate, pairs, neurons, "float32", selection=selection), tally)


@settings(max_examples=30)
@given(tokens=sizes, hidden=sizes, intermediate=sizes)
def test_all_neurons_are_the_dense_mlp(tokens: int, hidden: int, intermediate: int) -> None:
    gathered = gather_mlp_work(
        tokens, hidden, intermediate, tokens * intermediate, intermediate, "float32", selection="predicted"
    )
    dense = fused_mlp_work(tokens, hidden, intermediate, "silu_and_mul", "float32")
    assert gathered.operations == dense.operations
    assert gathered.bytes - dense.bytes == 4 * intermediate


def test_unknown_selection_is_named() -> None:
    with pytest.raises(ValueError, match="unknown selection 'oracle': one of gate, predicted"):
        gather_mlp_work(1, 1, 1, 1, 1, "float32", selection="oracle")


# Two products in a row


@pytest.mark.parametrize("activation", ["gelu", "silu_and_mul"])
def test_fused_mlp_by_brute_force(activation: str) -> None:
    tokens, hidden, intermediate = 2, 3, 5
    gated = activation.endswith("_and_mul")
    tally = Tally()
    for t, f in grid(tokens, intermediate):
        for h in range(hidden):
            tally.read("activations", "bfloat16", t, h)
            for name in ("up", "gate", "down") if gated else ("up", "down"):
                tally.matrix("bfloat16")
                tally.read("weights", "int8", name, f, h)
            tally.write("activations", "bfloat16", t, h)
        tally.special()
        tally.vector("bfloat16", 2 if gated else 4)
    assert_same(fused_mlp_work(tokens, hidden, intermediate, activation, "bfloat16", weight="int8"), tally)


def test_fused_mlp_products_are_what_torch_counts() -> None:
    import torch

    x, up, gate, down = shaped(5, 6), shaped(6, 7), shaped(6, 7), shaped(7, 6)
    work = fused_mlp_work(5, 6, 7, "silu_and_mul", "float32")
    flop = counted_flop(lambda: (torch.nn.functional.silu(x @ gate) * (x @ up)) @ down)
    assert work.operations[fma_key("float32")] == flop  # torch counts no activation
    flop = counted_flop(lambda: (shaped(5, 6) @ shaped(6, 2)) @ shaped(2, 7))
    assert low_rank_gemm_work(5, 7, 6, 2, "float32").flop == flop


def test_low_rank_gemm_by_brute_force() -> None:
    m, n, k, rank = 2, 3, 5, 2
    tally = Tally()
    for i, r in grid(m, rank):
        for p in range(k):
            tally.matrix("float32")
            tally.read("activations", "float32", i, p)
            tally.read("weights", "float32", "u", p, r)
        for j in range(n):
            tally.matrix("float32")
            tally.read("weights", "float32", "v", r, j)
            tally.write("activations", "float32", i, j)
    assert_same(low_rank_gemm_work(m, n, k, rank, "float32"), tally)


# Look-ups and dispatch


@pytest.mark.parametrize("reduce", [False, True])
def test_embedding_bag_by_brute_force(reduce: bool) -> None:
    bags, width = [[4, 1, 4], [2, 1, 0]], 2
    tally = Tally()
    for b, bag in enumerate(bags):
        for position, row in enumerate(bag):
            tally.read("index", "int64", b, position)
            for i in range(width):
                tally.read("weights", "float32", row, i)
                tally.write("activations", "float32", b, None if reduce else position, i)
                if reduce and position:
                    tally.vector("float32")
    distinct = len({row for bag in bags for row in bag})
    assert_same(embedding_bag_work(2, 3, 9, width, "float32", reduce=reduce, distinct=distinct), tally)


@settings(max_examples=30)
@given(tokens=sizes, vocabulary=sizes, width=sizes)
def test_bags_of_one_are_look_ups(tokens: int, vocabulary: int, width: int) -> None:
    bag = embedding_bag_work(tokens, 1, vocabulary, width, "float32")
    assert bag.bytes == pytest.approx(embedding_work(tokens, vocabulary, width, "float32").bytes)
    assert bag.flop == 0


def test_problems_agree_with_their_formulas() -> None:
    ternary = IntegerGemm(m=2, n=3, k=4, weights="ternary", precision="float16")
    assert ternary.work() == ternary.expected_work() == ternary_gemm_work(2, 3, 4, output="float16")
    dense = SparseGemm(m=2, n=4, k=6, density=1.0).expected_work()
    assert dense.flop == 2 * 2 * 4 * 6
    assert dense.read_bytes["activations"] == 4 * 2 * 6
