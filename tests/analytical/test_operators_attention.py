"""Work of quantised, sparse, tree, split and continual attention, its selectors, and choices, against counts by loops."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from brute_force import Tally, assert_same, counted_flop, counts, grid, shaped
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.operators import (
    AttentionQuantiser,
    QuantisedAttention,
    accumulated_score_selector_work,
    attention_pairs,
    attention_work,
    centroid_selector_work,
    codebook_selector_work,
    continual_attention_work,
    hierarchical_centroid_selector_work,
    label_channel_selector_work,
    line_selector_work,
    paged_attention_work,
    quantised_attention_work,
    sampling_work,
    sparse_attention_work,
    speculative_verify_work,
    split_kv_combine_work,
    strided_blocks,
    top_k_work,
    tree_attention_work,
)
from ridgeline.analytical.operators.quantised_attention import KEY_GROUPING, QUERY_BLOCK, QUERY_GROUPING, Grouping
from ridgeline.analytical.work import SPECIAL, RateKey, fma_key

sizes = st.integers(1, 40)


# Paged


def test_paged_attention_by_brute_force() -> None:
    lengths, page, q_heads, head_dim = [5, 1, 8], 4, 4, 3
    tally = Tally()
    for b, length in enumerate(lengths):
        tally.read("index", "int32", "length", b)
        for h, s in grid(q_heads, length):
            tally.special()
            tally.read("index", "int32", b, s // page)
            for i in range(head_dim):
                tally.matrix("bfloat16", 4)
                tally.read("activations", "bfloat16", b, h, i)
                tally.read("kv", "int8", "k", b, h // 2, s, i)
                tally.read("kv", "int8", "v", b, h // 2, s, i)
                tally.write("activations", "bfloat16", b, h, i)
    work = paged_attention_work(
        3, q_heads, q_heads // 2, sum(lengths), 2 + 1 + 2, head_dim, "bfloat16", kv_precision="int8"
    )
    assert_same(work, tally)


@settings(max_examples=30)
@given(batch=sizes, heads=sizes, length=sizes, page=sizes)
def test_equal_lengths_in_pages_are_attention(batch: int, heads: int, length: int, page: int) -> None:
    held = -(-length // page)
    paged = paged_attention_work(batch, heads, heads, batch * length, batch * held, 64, "float16")
    plain = attention_work(batch, heads, heads, 1, length, 64, True, "float16", page=page)
    assert paged.operations == plain.operations
    assert paged.bytes - plain.bytes == 4 * batch  # the lengths


# Quantised


@pytest.mark.parametrize("values", ["float8_e4m3fn", "float16", "int8"])
@pytest.mark.parametrize(("causal", "granularity"), [(False, "thread"), (True, "warp"), (True, "token")])
def test_quantised_attention_by_brute_force(values: str, causal: bool, granularity: str) -> None:
    batch, q_heads, kv_heads, length, head_dim = 2, 2, 1, 64, 2
    tally = Tally()
    value_key = RateKey("matrix", values, values, "int32" if values == "int8" else "float32")
    for b, h, t, s in grid(batch, q_heads, length, length):
        if causal and s > t:
            continue
        tally.special()
        tally.read("scales", "float32", "q", b, h, QUERY_GROUPING[granularity].group(t))
        tally.read("scales", "float32", "k", b, KEY_GROUPING[granularity].group(s))
        for i in range(head_dim):
            tally.matrix("int8")
            tally.read("activations", "int8", b, h, t, i)
            tally.read("kv", "int8", "k", b, s, i)
            tally.operations[value_key] += 2
            tally.read("kv", values, "v", b, s, i)
            if values != "float16":
                tally.read("scales", "float32", "v", b, i)
            tally.write("activations", "bfloat16", b, h, t, i)
    work = quantised_attention_work(
        batch, q_heads, kv_heads, length, length, head_dim, causal, values=values, granularity=granularity
    )
    assert_same(work, tally)


@pytest.mark.parametrize(
    ("q_length", "kv_length", "causal"), [(130, 70, True), (130, 70, False), (3, 200, True), (257, 300, True)]
)
def test_smoothing_adds_a_correction_a_pair_and_a_mean_a_channel(q_length: int, kv_length: int, causal: bool) -> None:
    shape = {"batch": 1, "q_heads": 2, "kv_heads": 1, "q_length": q_length, "kv_length": kv_length, "head_dim": 4}
    tally = Tally()
    for h, t, s in grid(2, q_length, kv_length):
        if causal and s > t + kv_length - q_length:
            continue
        tally.vector("float32")
        tally.read("activations", "float32", h, t // QUERY_BLOCK, s)
    tally.vector("float32", 2 * q_length * 4)
    for i in range(4):
        tally.read("scales", "float32", i)
    smooth = QuantisedAttention(**shape, causal=causal, smooth_q=True, smooth_v=True)
    plain = QuantisedAttention(**shape, causal=causal)
    more, less = counts(smooth.work()), counts(plain.work())
    expected = {name: value for name, value in counts(tally.work()).items() if value}
    assert {n: v - less.get(n, 0) for n, v in more.items() if v != less.get(n, 0)} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("groupings", "granularity", "length"),
    [(g, name, n) for g in (QUERY_GROUPING, KEY_GROUPING) for name in g for n in (1, 63, 64, 200)],
)
def test_a_group_is_one_of_those_that_are_counted(
    groupings: Mapping[str, Grouping], granularity: str, length: int
) -> None:
    grouping = groupings[granularity]
    groups = grouping.group(np.arange(length))
    assert groups.min() >= 0
    assert groups.max() < grouping.groups(length)
    if length % 64 == 0:
        assert set(groups) == set(range(int(grouping.groups(length))))


def test_groups_of_a_thread_are_those_of_the_matrix_instruction() -> None:
    # mma.m16n8k32: a thread holds rows r and r + 8 of A, so 8 classes of rows, and two neighbouring columns of 8.
    queries, keys = QUERY_GROUPING["thread"].group(np.arange(64)), KEY_GROUPING["thread"].group(np.arange(128))
    assert list(np.flatnonzero(queries == 3)) == [3, 11, 19, 27]
    assert list(np.flatnonzero(queries == 8)) == [32, 40, 48, 56]
    assert list(np.flatnonzero(keys == 1)) == [8 * i + j for i in range(8) for j in (2, 3)]
    assert list(np.flatnonzero(keys == 4)) == [64 + 8 * i + j for i in range(8) for j in (0, 1)]


@settings(max_examples=20)
@given(role=st.sampled_from(["query", "key", "value"]), length=sizes, head_dim=sizes, smooth=st.booleans())
def test_quantising_reads_and_writes_every_value_once(role: str, length: int, head_dim: int, smooth: bool) -> None:
    problem = AttentionQuantiser(
        batch=2, heads=3, length=length, head_dim=head_dim, role=role, to="int8", smooth=smooth,
        granularity="channel" if role == "value" else "thread",
    )  # fmt: skip
    work, values = problem.work(), 6 * length * head_dim
    assert work.read_bytes["activations"] == 4 * values
    assert work.written_bytes == pytest.approx({"activations": values, "scales": 4 * 6 * problem.groups})


@settings(max_examples=30)
@given(batch=sizes, heads=sizes, length=sizes, head_dim=sizes)
def test_quantised_attention_does_the_products_of_attention(batch: int, heads: int, length: int, head_dim: int) -> None:
    shape = batch, heads, heads, length, length, head_dim
    quantised, plain = quantised_attention_work(*shape, True), attention_work(*shape, True, "float16")
    assert quantised.flop == plain.flop
    assert quantised.operations[SPECIAL] == plain.operations[SPECIAL]


# Sparse


def test_sparse_attention_by_brute_force() -> None:
    q_heads, kv_heads, length, head_dim, block = 2, 1, 6, 3, 2
    kept = {(0, 0, 0), (0, 1, 0), (0, 1, 1), (0, 2, 2), (1, 0, 0), (1, 1, 1), (1, 2, 0), (1, 2, 2)}
    tally, pairs, keys = Tally(), 0, set()
    for h, rows in grid(q_heads, length // block + 1):
        tally.read("index", "int32", "start", h, rows)
    for h, t, s in grid(q_heads, length, length):
        for i in range(head_dim):
            tally.read("activations", "float32", h, t, i)
            tally.write("activations", "float32", h, t, i)
        if (h, t // block, s // block) not in kept or s > t:
            continue
        pairs += 1
        keys.add((h // 2, s))
        tally.special()
        tally.read("index", "int32", "column", h, t // block, s // block)
        for i in range(head_dim):
            tally.matrix("float32", 4)
            tally.read("kv", "float32", "k", h // 2, s, i)
            tally.read("kv", "float32", "v", h // 2, s, i)
    entries = len(kept) + q_heads * (length // block + 1)
    assert kv_heads * len({s for _, s in keys}) == len(keys)
    assert_same(sparse_attention_work(q_heads * length, pairs, len(keys), entries, head_dim, "float32"), tally)


@settings(max_examples=30)
@given(batch=sizes, heads=sizes, q_length=sizes, kv_length=sizes, head_dim=sizes)
def test_keeping_everything_is_attention(batch: int, heads: int, q_length: int, kv_length: int, head_dim: int) -> None:
    pairs = batch * heads * attention_pairs(q_length, kv_length, True)
    keys, queries = batch * heads * kv_length, batch * heads * q_length
    sparse = counts(sparse_attention_work(queries, pairs, keys, 0, head_dim, "float16"))
    assert sparse.pop("read index") == 0
    assert sparse == counts(attention_work(batch, heads, heads, q_length, kv_length, head_dim, True, "float16"))


@pytest.mark.parametrize("stride", [1, 3, 4])
@pytest.mark.parametrize("local", [1, 2, 5])
def test_strided_patterns_by_brute_force(local: int, stride: int) -> None:
    for block_rows, shift in grid(9, 6):
        kept = {
            (row, column)
            for row, column in grid(block_rows, block_rows)
            if column <= row and (column > row - local or (column + shift) % stride == 0)
        }
        assert strided_blocks(block_rows, local, stride, shift) == len(kept), (block_rows, shift)
    rows = np.array([4, 7])
    assert list(strided_blocks(rows, local, stride, 1)) == [strided_blocks(int(r), local, stride, 1) for r in rows]


# Selectors

B, H, KV, S, D = 2, 4, 2, 6, 3
"""Sequences, query heads, KV heads, tokens, head dimension."""


def tally_top_k(tally: Tally, row: tuple[int, ...], width: int, listed: int, choice: str = "int32") -> None:
    tally.vector("float32", width - 1)
    for c in range(listed):
        tally.write("index", choice, *row, c)


@pytest.mark.parametrize("scaled", [False, True])
def test_label_channels_by_brute_force(scaled: bool) -> None:
    tally = Tally()
    for b, h in grid(B, H):
        for r in range(2) if scaled else ():
            tally.vector("float32", 1)
            tally.read("scales", "float32", h // 2, r)
        for s, r in grid(S, 2):
            tally.matrix("float16")
            tally.read("activations", "float16", b, h, r)
            tally.read("kv", "int8", b, h // 2, s, r)
        tally_top_k(tally, (b, h), S, 3)
    assert_same(label_channel_selector_work(B, H, KV, S, 2, 3, "float16", "int8", scaled=scaled), tally)


def test_centroids_by_brute_force() -> None:
    clusters = 2
    tally = Tally()
    for b, h in grid(B, H):
        for c in range(clusters):
            for i in range(D):
                tally.matrix("float16")
                tally.read("activations", "float16", b, h, i)
                tally.read("kv", "float16", b, h // 2, c, i)
            tally.special()
            tally.vector("float32", 3 if c == 0 else 4)  # times size, to the sum, times reciprocal, above threshold?
            tally.read("index", "int32", "size", b, h // 2, c)
        tally.special()
        for s in range(S):
            tally.read("index", "int32", "cluster", b, h // 2, s)
            tally.write("index", "bool", b, h, s)
    assert_same(centroid_selector_work(B, H, KV, S, clusters, D, "float16"), tally)


def test_hierarchical_centroids_by_brute_force() -> None:
    """Each head lets coarse cluster h mod coarse pass; fine cluster c belongs to the coarse one c mod coarse."""
    coarse, clusters = 2, 5
    tally, passed, scored, read = Tally(), 0, 0, set()
    for b, h in grid(B, H):
        passed += 1
        tally.vector("float32", 1)  # the coarse cluster that passed leaves the denominator
        looked_at = [("coarse", c) for c in range(coarse)]
        looked_at += [("fine", c) for c in range(clusters) if c % coarse == h % coarse]
        scored += len(looked_at) - coarse
        for number, (level, c) in enumerate(looked_at):
            if level == "fine":
                read.add((b, h // 2, c))
            for i in range(D):
                tally.matrix("float16")
                tally.read("activations", "float16", b, h, i)
                tally.read("kv", "float16", b, h // 2, level, c, i)
            tally.special()
            tally.vector("float32", 4 if number else 3)  # times size, to the sum, times reciprocal, above threshold?
        tally.special(2)
        for c in range(coarse):
            tally.read("index", "int32", "coarse size", b, h // 2, c)
        for c in range(clusters):
            tally.read("index", "int32", "size", b, h // 2, c)
            tally.read("index", "int32", "parent", b, h // 2, c)
        for s in range(S):
            tally.read("index", "int32", "cluster", b, h // 2, s)
            tally.write("index", "bool", b, h, s)
    work = hierarchical_centroid_selector_work(B, H, KV, S, coarse, clusters, passed, scored, len(read), D, "float16")
    assert_same(work, tally)


@pytest.mark.parametrize("always", [0, 2])
def test_codebook_by_brute_force(always: int) -> None:
    codes = 5
    tally = Tally()
    for b, h in grid(B, H):
        for c, i in grid(codes, D):
            tally.matrix("float16")
            tally.read("activations", "float16", b, h, i)
            tally.read("kv", "float16", h // 2, c, i)
        for s in range(S - always):
            tally.read("index", "int16", b, h // 2, s)
        tally_top_k(tally, (b, h), S - always, 3 + always)
    assert_same(codebook_selector_work(B, H, KV, S, codes, D, 3, "float16", always=always), tally)


def test_accumulated_scores_by_brute_force() -> None:
    tally = Tally()
    for b, h in grid(B, H):
        tally.write("index", "int32", b, h)
        for s in range(S):
            tally.vector("float32", 1 if s == 0 else 2)  # added; smaller than the smallest so far?
            tally.read("kv", "float32", b, h, s)
            tally.read("activations", "float32", b, h, s)
            tally.write("kv", "float32", b, h, s)
    assert_same(accumulated_score_selector_work(B, H, S), tally)


def test_lines_by_brute_force() -> None:
    last = 2
    tally = Tally()
    for b, h in grid(B, H):
        for t in range(last):
            for s, i in grid(S, D):
                tally.matrix("float16")
                tally.read("activations", "float16", b, h, t, i)
                tally.read("kv", "float16", b, h // 2, s, i)
            tally.vector("float32", (S - 1) + S + (S - 1) + S)  # softmax
            tally.special(S + 1)
            tally.vector("float32", 2 * S)  # to columns and diagonals
        tally.vector("float32", 2 * (S - 1))  # the largest of each
    assert_same(line_selector_work(B, H, KV, S, last, D, "float16"), tally)


def test_products_of_selectors_are_what_torch_counts() -> None:
    query, keys = shaped(B, H, 1, D), shaped(B, H, S, D)
    flop = counted_flop(lambda: query @ keys.transpose(-1, -2))
    matrix = fma_key("float16")
    assert label_channel_selector_work(B, H, KV, S, D, 3, "float16", "int8").operations[matrix] == flop
    assert centroid_selector_work(B, H, KV, 99, S, D, "float16").operations[matrix] == flop
    assert codebook_selector_work(B, H, KV, 99, S, D, 3, "float16").operations[matrix] == flop
    assert line_selector_work(B, H, KV, S, 1, D, "float16").operations[matrix] == flop


# Trees, splits, streams


@pytest.mark.parametrize("parents", [[-1], [-1, 0, 1], [-1, 0, 0, 1, 1, 4]])
def test_tree_attention_by_brute_force(parents: list[int]) -> None:
    context, head_dim = 4, 3
    ancestors: list[set[int]] = []
    for node, parent in enumerate(parents):
        ancestors.append({node} | (ancestors[parent] if parent >= 0 else set()))
    tally = Tally()
    for other, node in grid(len(parents), len(parents)):
        tally.read("index", "int1", node, other)
    for b, h, node in grid(B, H, len(parents)):
        seen = [("context", s) for s in range(context)] + [("node", a) for a in sorted(ancestors[node])]
        for key in seen:
            tally.special()
            for i in range(head_dim):
                tally.matrix("bfloat16", 4)
                tally.read("activations", "bfloat16", b, h, node, i)
                tally.read("kv", "bfloat16", "k", b, h // 2, key, i)
                tally.read("kv", "bfloat16", "v", b, h // 2, key, i)
                tally.write("activations", "bfloat16", b, h, node, i)
    pairs = sum(map(len, ancestors))
    assert_same(tree_attention_work(B, H, KV, context, len(parents), pairs, head_dim, "bfloat16"), tally)


@settings(max_examples=30)
@given(context=sizes, nodes=sizes)
def test_a_chain_is_causal_attention(context: int, nodes: int) -> None:
    chain = tree_attention_work(1, 4, 2, context, nodes, nodes * (nodes + 1) / 2, 64, "float16")
    assert chain.operations == attention_work(1, 4, 2, nodes, context + nodes, 64, True, "float16").operations


@pytest.mark.parametrize("splits", [1, 3])
def test_combining_splits_by_brute_force(splits: int) -> None:
    tally = Tally()
    for b, h, t in grid(B, H, 2):
        tally.vector("float32", splits - 1)  # the largest
        tally.special()  # reciprocal of the sum
        for s in range(splits):
            tally.vector("float32", 1)  # minus the largest
            tally.special()
            tally.vector("float32", 1 if s else 0)  # to the sum
            tally.vector("float32", 1)  # times the reciprocal
            for i in range(D):
                tally.vector("float32", 2 if s else 1)
                tally.write("scratch", "float32", b, h, t, s, i)
                tally.read("scratch", "float32", b, h, t, s, i)
            tally.write("scratch", "float32", b, h, t, s, "lse")
            tally.read("scratch", "float32", b, h, t, s, "lse")
    assert_same(split_kv_combine_work(B, H, 2, D, splits), tally)


def test_continual_attention_is_attention_recomputed() -> None:
    """The rows that stay, corrected for the key that leaves and the one that comes, are those of the new window."""
    n, d = 5, 3
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal((n + 1, d)) for _ in range(3))
    tally = Tally()
    weights = np.exp(q[:n] @ k[:n].T)
    sums, products = weights.sum(axis=1)[1:], (weights @ v[:n])[1:]  # kept from the last step
    for row in range(n - 1):
        for key, sign in ((0, -1.0), (n, 1.0)):
            weight = np.exp(q[row + 1] @ k[key])
            sums[row] += sign * weight
            products[row] += sign * weight * v[key]
            tally.matrix("float32", 4 * d)
            tally.special()
            tally.vector("float32")
    new = np.exp(k[1:] @ q[n])
    for key in range(n):
        tally.matrix("float32", 4 * d)
        tally.special()
        tally.vector("float32", 1 if key else 0)
    sums, products = np.append(sums, new.sum()), np.vstack([products, new @ v[1:]])
    out = products / sums[:, None]
    for row in range(n):
        tally.special()
        tally.vector("float32", d)
        for i in range(d):
            tally.read("activations", "float32", "q", row, i)
            tally.write("activations", "float32", row, i)
            tally.write("kv", "float32", "products", row, i)
            if row < n - 1:
                tally.read("kv", "float32", "products", row, i)
        tally.write("kv", "float32", "sum", row)
        if row < n - 1:
            tally.read("kv", "float32", "sum", row)
    for key, i in grid(n + 1, d):
        tally.read("kv", "float32", "k", key, i)
        tally.read("kv", "float32", "v", key, i)
    assert_same(continual_attention_work(1, 1, n, d, "float32"), tally)
    recomputed = np.exp(q[1:] @ k[1:].T)
    assert np.allclose(out, recomputed @ v[1:] / recomputed.sum(axis=1, keepdims=True))
    # A step's products cost about 12 n d, those of the window anew 4 n^2 d.
    step = continual_attention_work(1, 1, 1000, 64, "float32").operations[fma_key("float32")]
    assert step == pytest.approx(12 * 1000 * 64, rel=0.001)


# Choices


def test_top_k_by_brute_force() -> None:
    tally = Tally()
    for r in range(3):
        for i in range(S):
            tally.read("activations", "float32", r, i)
        tally_top_k(tally, (r,), S, 2, "int64")
        for c in range(2):
            tally.write("activations", "float32", r, c)
    assert_same(top_k_work(3, S, 2, "float32"), tally)


@pytest.mark.parametrize("greedy", [False, True])
def test_sampling_by_brute_force(greedy: bool) -> None:
    rows, vocabulary = 3, 7
    tally = Tally()
    for r in range(rows):
        tally.write("index", "int64", r)
        for i in range(vocabulary):
            tally.read("activations", "float32", r, i)
            tally.vector("float32", 1 if i else 0)  # the largest so far?
            if not greedy:
                tally.vector("float32", 2)  # times 1 / temperature, minus the largest
                tally.special()
                tally.vector("float32", 1 if i else 0)  # to the sum
                tally.vector("float32")  # beyond the random number?
    assert_same(sampling_work(rows, vocabulary, "float32", greedy=greedy), tally)


def test_verification_by_brute_force() -> None:
    batch, drafted, vocabulary = 2, 3, 5
    tally = Tally()
    for b in range(batch):
        for t in range(drafted):
            tally.read("index", "int64", b, t)
            tally.read("activations", "float32", "p of token", b, t)
            tally.read("activations", "float32", "q of token", b, t)
            tally.vector("float32", 2)  # u q, at most p?
            tally.write("index", "int64", b, t)
        for i in range(vocabulary):
            tally.read("activations", "float32", "p", b, i)
            tally.read("activations", "float32", "q", b, i)
            tally.vector("float32", 2)  # p - q, at least 0
            tally.vector("float32", 1 if i else 0)  # to the sum
            tally.vector("float32")  # beyond the random number?
        tally.write("index", "int64", b, "new")
    assert_same(speculative_verify_work(batch, drafted, vocabulary, "float32"), tally)
