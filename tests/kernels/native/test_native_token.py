"""Native token gather and selection: every path on odd shapes, extremes of lists, what is not a number, bad arguments."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from ridgeline.analytical.operators import TokenGatherAttention
from ridgeline.kernels.native.build import NativeCallError
from ridgeline.kernels.native.token_gather import token_gather_attention, token_gather_paths
from ridgeline.kernels.native.token_select import (
    token_compact,
    token_hierarchical_mask,
    token_mask,
    token_products,
    token_top_k,
)
from ridgeline.kernels.token_gather_attention.operator import TokenGatherAttentionOperator, gather_case
from ridgeline.kernels.token_gather_attention.pieces import PIECE, equal_pieces, equal_shares
from ridgeline.kernels.token_selector.centroids import (
    cluster_logits,
    hierarchical_log_scores,
    kept_tokens,
    log_scores,
)
from ridgeline.kernels.token_selector.lists import lists_of_mask, lists_of_top_k

PATHS = token_gather_paths()
OPERATOR = TokenGatherAttentionOperator()


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gathered(problem: TokenGatherAttention, threads: int, path: str | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = OPERATOR.make_inputs(problem, torch.Generator().manual_seed(1))
    out = torch.full_like(inputs["q"], math.nan)
    token_gather_attention(**inputs, out=out, threads=threads, path=path)
    return out, OPERATOR.reference(problem, {}, inputs, None)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "problem",
    [
        gather_case((1, 1, 1, 1, 1, 1)),
        gather_case((2, 3, 3, 50, 9, 17), 1.0),  # some lists are empty
        gather_case((1, 2, 1, 300, 150, 33), 0.9),
        gather_case((1, 1, 1, 257, 257, 128)),  # one list, cut by every thread
    ],
    ids=lambda p: p.label if isinstance(p, TokenGatherAttention) else None,
)
def test_every_path_gives_the_reference(problem: TokenGatherAttention, threads: int, path: str) -> None:
    out, expected = gathered(problem, threads, path)
    assert float((out - expected).norm() / expected.norm()) < 1e-5


def test_lists_that_are_all_empty_give_zeros() -> None:
    q, k = normal(1, 2, 8), normal(1, 1, 5, 8)
    out = torch.full_like(q, math.nan)
    empty = torch.zeros(3, dtype=torch.int32), torch.empty(0, dtype=torch.int32)
    token_gather_attention(q, k, k, *empty, out, 2)
    assert (out == 0).all()


def test_what_is_not_a_number_stays_with_its_head() -> None:
    problem = gather_case((1, 3, 3, 90, 70, 16))
    inputs = OPERATOR.make_inputs(problem, torch.Generator().manual_seed(1))
    token = int(inputs["tokens"][5])
    inputs["k"][0, 0, token] = math.nan
    inputs["k"][0, 1] = -math.inf * inputs["q"][0, 1].sign()  # every score of this head is -inf
    inputs["v"][0, 2, int(inputs["tokens"][145])] = math.inf
    out, expected = torch.empty_like(inputs["q"]), OPERATOR.reference(problem, {}, inputs, None)
    token_gather_attention(**inputs, out=out, threads=2)
    assert torch.equal(out.isnan(), expected.isnan())
    assert torch.equal(out.isinf(), expected.isinf())
    assert out[0, 0].isnan().all()
    assert out[0, 1].isnan().all()


def test_a_score_of_minus_infinity_has_no_weight() -> None:
    q = torch.ones(1, 1, 8)
    k, v = torch.zeros(1, 1, 70, 8), normal(1, 1, 70, 8)
    k[0, 0, :64] = -math.inf  # the first tiles hold nothing
    out = torch.empty(1, 1, 8)
    lists = torch.tensor([0, 70], dtype=torch.int32), torch.arange(70, dtype=torch.int32)
    token_gather_attention(q, k, v, *lists, out, 2)
    torch.testing.assert_close(out[0, 0], v[0, 0, 64:].mean(0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokens": lambda t: t.where(t != t.max(), 65)}, "tokens must be 0 to 64"),
        ({"tokens": lambda t: t.where(t != t.max(), -1)}, "tokens must be 0 to 64"),
        ({"row_starts": lambda t: t.flip(0)}, "row_starts must rise from 0"),
        ({"row_starts": lambda t: t * 2}, "row_starts must rise from 0"),
        ({"row_starts": lambda t: t.long()}, "row_starts must be a contiguous CPU tensor int32"),
        ({"q": lambda t: t.half()}, "q must be a contiguous CPU tensor float32"),
        ({"k": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2)}, "not one with strides"),
        ({"v": lambda t: t[..., :-1]}, "v must be"),
        ({"k": lambda t: t.repeat(1, 3, 1, 1)}, "divides 4"),
    ],
    ids=[
        "token-too-large",
        "token-negative",
        "starts-fall",
        "starts-beyond",
        "int64",
        "half",
        "strided",
        "narrow",
        "heads",
    ],
)
def test_bad_lists_and_tensors_are_refused(
    change: dict[str, Callable[[torch.Tensor], torch.Tensor]], said: str
) -> None:
    inputs = OPERATOR.make_inputs(gather_case((2, 4, 2, 65, 9, 64)), torch.Generator().manual_seed(1))
    for name, function in change.items():
        inputs[name] = function(inputs[name])
    with pytest.raises(NativeCallError, match=said) as caught:
        token_gather_attention(**inputs, out=torch.empty(2, 4, 64), threads=2)
    assert "\n" not in str(caught.value)


def test_shares_and_pieces_hold_every_token_once() -> None:
    starts = torch.tensor([0, 0, 700, 701, 1957], dtype=torch.int32)
    pieces = equal_pieces(starts)
    assert int(pieces.sum()) == int(equal_shares(starts, 3).sum()) == 1957
    assert int(pieces.max()) == PIECE
    assert equal_pieces(starts, 256).tolist() == [234, 234, 232, 1, *[252] * 4, 248]
    assert int(equal_shares(starts, 3).max() - equal_shares(starts, 3).min()) <= 1


# Selection


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("batch", "heads", "kv_heads", "n", "d"), [(1, 1, 1, 1, 1), (2, 6, 2, 133, 21), (1, 3, 3, 70, 40)]
)
def test_products(batch: int, heads: int, kv_heads: int, n: int, d: int, path: str) -> None:
    q, rows = normal(batch, heads, d), normal(batch, kv_heads, n, d, seed=1)
    out = torch.empty(batch, heads, n)
    token_products(q, rows, out, 2, path=path)
    wide = rows.repeat_interleave(heads // kv_heads, 1)
    torch.testing.assert_close(out, torch.einsum("bhd,bhnd->bhn", q, wide), rtol=1e-4, atol=1e-4)
    token_products(q, rows[0].contiguous(), out, 1, path=path)  # one set of rows for all sequences
    torch.testing.assert_close(out, torch.einsum("bhd,hnd->bhn", q, wide[0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", PATHS)
def test_products_of_chosen_channels_in_8_bits(path: str) -> None:
    q, scale = normal(2, 4, 32), torch.rand(2, 5)
    rows = torch.randint(-128, 128, (2, 2, 77, 5), dtype=torch.int8)
    channels = torch.tensor([[0, 31, 2, 4, 8], [5, 6, 7, 8, 9]], dtype=torch.int32)
    out = torch.empty(2, 4, 77)
    token_products(q, rows, out, 2, channels=channels, scales=scale, path=path)
    short = q.gather(-1, channels.long().repeat_interleave(2, 0).expand(2, 4, 5)) * scale.repeat_interleave(2, 0)
    torch.testing.assert_close(out, torch.einsum("bhr,bhnr->bhn", short, rows.float().repeat_interleave(2, 1)))
    with pytest.raises(NativeCallError, match="channels must be 0 to 31"):
        token_products(q, rows, out, 2, channels=channels + 1, path=path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("k", [0, 1, 7, 100, 203])
def test_top_k_with_ties_and_extremes(k: int, path: str) -> None:
    scores = normal(2, 3, 203).mul(4.0).round()  # many are equal
    scores[0, 0, :5] = torch.tensor([math.inf, -math.inf, math.nan, -0.0, 0.0])
    scores[1, 1] = 1.0
    scores[1, 2] = normal(203) * 1e-40  # beneath the normal numbers
    out = torch.full((2, 3, k), -1, dtype=torch.int32)
    token_top_k(scores, out, 2, path=path)
    expected = lists_of_top_k(scores, k)
    if k:
        expected[0, 0] = lists_of_top_k(scores[0, 0].nan_to_num(nan=9e9, posinf=8e9), k)  # above infinity
    assert torch.equal(out, expected)


@pytest.mark.parametrize("path", PATHS)
def test_top_k_by_code(path: str) -> None:
    scores = normal(2, 4, 9)
    codes = torch.randint(9, (2, 2, 131), generator=torch.Generator().manual_seed(3), dtype=torch.int16)
    out = torch.empty(2, 4, 3 + 20 + 10, dtype=torch.int32)
    token_top_k(scores, out, 2, codes=codes, sinks=3, window=10, path=path)
    by_token = scores.gather(-1, codes.long().repeat_interleave(2, 1))
    by_token[..., :3] = by_token[..., -10:] = math.inf
    assert torch.equal(out, lists_of_top_k(by_token, 33))
    with pytest.raises(NativeCallError, match="codes must be 0 to 8"):
        token_top_k(scores, out, 2, codes=codes + 1, sinks=3, window=10)
    with pytest.raises(NativeCallError, match="of 131 tokens must be possible"):
        token_top_k(scores, torch.empty(2, 4, 132, dtype=torch.int32), 2, codes=codes, sinks=3, window=10)


@pytest.mark.parametrize("path", PATHS)
def test_masks_of_one_and_two_levels(path: str) -> None:
    q, centroids, coarse = normal(2, 4, 24), normal(2, 2, 30, 24, seed=1), normal(2, 2, 7, 24, seed=2)
    draw = torch.Generator().manual_seed(4)
    sizes = torch.randint(0, 9, (2, 2, 30), generator=draw, dtype=torch.int32)
    coarse_sizes = torch.randint(1, 40, (2, 2, 7), generator=draw, dtype=torch.int32)
    parent = torch.randint(7, (2, 2, 30), generator=draw, dtype=torch.int32)
    assignment = torch.randint(30, (2, 2, 99), generator=draw, dtype=torch.int32)
    logits, coarse_logits = (cluster_logits(q[:, :, None], one)[:, :, 0] for one in (centroids, coarse))
    mask, scored = torch.empty(2, 4, 99, dtype=torch.int8), torch.empty(2, 4, dtype=torch.int64)

    flat = log_scores(logits[:, :, None], sizes)[:, :, 0]
    for threshold in (0.0, 0.004, 0.02, 2.0):
        token_mask(logits * math.sqrt(24), sizes, assignment, threshold, 24, mask, 2, path=path)
        assert torch.equal(mask, kept_tokens(flat, assignment, threshold)), threshold

    for first, second in ((0.0, 0.0), (0.0, 0.01), (0.005, 0.01), (2.0, 0.0)):
        token_hierarchical_mask(
            q, coarse_logits * math.sqrt(24), coarse_sizes, first, parent, centroids, sizes, assignment, second, mask,
            scored, 2, path=path,
        )  # fmt: skip
        scores = hierarchical_log_scores(
            coarse_logits[:, :, None], coarse_sizes, first, parent, logits[:, :, None], sizes
        )[:, :, 0]
        there = scores > -math.inf
        assert torch.equal(scored, there.sum(-1))
        kept = there & (scores > (math.log(second) if second else -math.inf))
        wanted = kept.to(torch.int8).gather(-1, assignment.long().repeat_interleave(2, 1))
        assert torch.equal(mask, wanted), (first, second)

    with pytest.raises(NativeCallError, match="assignment must be 0 to 29"):
        token_mask(logits, sizes, assignment + 1, 0.1, 24, mask, 2, path=path)
    with pytest.raises(NativeCallError, match="a threshold is a score"):
        token_mask(logits, sizes, assignment, -0.1, 24, mask, 2, path=path)


@pytest.mark.parametrize("n", [1, 8, 203])
def test_compaction(n: int) -> None:
    mask = (torch.rand(2, 3, n, generator=torch.Generator().manual_seed(5)) < 0.3).to(torch.int8)
    mask[0, 1] = 0
    mask[1, 2] = 1
    starts, room = torch.empty(7, dtype=torch.int32), torch.full((6 * n,), -1, dtype=torch.int32)
    tokens = token_compact(mask, starts, room, 2)
    expected = lists_of_mask(mask)
    assert torch.equal(starts, expected[0])
    assert torch.equal(tokens, expected[1])
    with pytest.raises(NativeCallError, match="must have room for all tokens kept"):
        token_compact(mask, starts, room[: len(tokens) - 1].contiguous(), 2)
