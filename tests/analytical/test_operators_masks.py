"""Work of attention under masks, windows, pages and prefixes, and of latent attention: loops, torch, limits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from brute_force import Tally, assert_same, counted_flop, counts, shaped
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.operators import (
    attended_keys,
    attention_pairs,
    attention_work,
    mla_projection_work,
    mla_work,
    paged_kv_bytes,
    pages,
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


@settings(max_examples=30)
@given(attention_sizes, st.booleans())
def test_a_window_of_everything_is_no_window(shape: dict[str, int], causal: bool) -> None:
    whole = attention_work(**shape, causal=causal, precision="float16")
    wide = shape["q_length"] + shape["kv_length"]
    assert counts(attention_work(**shape, causal=causal, precision="float16", window=wide)) == counts(whole)
    assert counts(attention_work(**shape, causal=causal, precision="float16", shared_prefix=0)) == counts(whole)


@settings(max_examples=30)
@given(attention_sizes, st.booleans(), st.integers(1, 50), st.integers(1, 50))
def test_wider_windows_are_more_work(shape: dict[str, int], causal: bool, window: int, wider: int) -> None:
    narrow = counts(attention_work(**shape, causal=causal, precision="float16", window=window))
    wide = counts(attention_work(**shape, causal=causal, precision="float16", window=window + wider))
    assert all(wide[name] >= value for name, value in narrow.items())


@settings(max_examples=30)
@given(attention_sizes, st.integers(1, 30))
def test_sharing_a_prefix_saves_its_bytes_for_all_but_one(shape: dict[str, int], prefix: int) -> None:
    prefix = min(prefix, shape["kv_length"])
    apart = attention_work(**shape, causal=True, precision="float16")
    shared = attention_work(**shape, causal=True, precision="float16", shared_prefix=prefix)
    saved = 2 * (shape["batch"] - 1) * prefix * shape["kv_heads"] * (shape["head_dim"] + shape["value_dim"])
    assert apart.read_bytes["kv"] - shared.read_bytes["kv"] == saved
    assert shared.operations == apart.operations


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(1, 64))
def test_pages_hold_the_tokens_and_waste_less_than_one(length: int, page: int) -> None:
    assert 0 <= pages(length, page) * page - length < page


@settings(max_examples=30)
@given(attention_sizes, st.integers(1, 16), st.integers(1, 50))
def test_whole_pages_are_no_less_than_is_compulsory(shape: dict[str, int], page: int, window: int) -> None:
    paged = {name: size for name, size in shape.items() if name != "q_heads"}
    compulsory = attention_work(**shape, causal=True, precision="float16", window=window, page=page)
    moved = paged_kv_bytes(**paged, precision="float16", page=page, window=window)
    a_page = 2 * shape["batch"] * shape["kv_heads"] * page * (shape["head_dim"] + shape["value_dim"])
    assert 0 <= moved - compulsory.read_bytes["kv"] < 2 * a_page
    assert paged_kv_bytes(**paged, precision="float16", page=1, window=window) == compulsory.read_bytes["kv"]


def test_ragged_sequences_add_up_to_one_launch() -> None:
    lengths = np.array([3, 1, 5])
    batch = attention_work(1, 4, 2, lengths, lengths, 8, True, "float16").total()
    alone = [attention_work(1, 4, 2, length, length, 8, True, "float16") for length in lengths]
    assert counts(batch) == counts(alone[0] + alone[1] + alone[2])
    assert batch.launches == 1


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


def test_mla_of_deepseek_v3_is_576_and_512() -> None:
    """A decode step reads 576 values a token whatever the heads, and a pair takes 2 (576 + 512) operations."""
    work = mla_work(1, 128, 1, 1000, 512, 64, 128, 128, True, "bfloat16", absorbed=True)
    assert work.read_bytes["kv"] == 1000 * 576 * 2
    assert work.operations == {fma_key("bfloat16"): 128 * 1000 * 2 * 1088, SPECIAL: 128 * 1000}
