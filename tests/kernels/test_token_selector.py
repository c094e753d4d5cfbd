"""Indices of selectors and their choices: rules that hold for any data, and what planted structure must give."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.kernels.token_gather_attention.operator import (
    TokenGatherAttentionOperator,
    drawn_lists,
    gather_case,
)
from ridgeline.kernels.token_selector.centroids import (
    calibrated_threshold,
    cluster_clusters,
    cluster_keys,
    cluster_logits,
    hierarchical_log_scores,
    kept_tokens,
    log_scores,
)
from ridgeline.kernels.token_selector.codebook import build_codebook, query_factor
from ridgeline.kernels.token_selector.kmeans import kmeans, nearest, spread_seeds
from ridgeline.kernels.token_selector.label_channels import label_cache, label_channels
from ridgeline.kernels.token_selector.lists import lists_of_mask, lists_of_rows, lists_of_top_k
from ridgeline.kernels.token_selector.windowed_rope import rotate, windowed_keys, windowed_query


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


# Lists


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=20), data=st.data())
def test_top_k_takes_the_earlier_of_equals(values: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(values)))
    expected = sorted(sorted(range(len(values)), key=lambda i: (-values[i], i))[:k])
    assert lists_of_top_k(torch.tensor([values], dtype=torch.float32), k)[0].tolist() == expected


def test_top_k_takes_infinities_and_what_is_no_number() -> None:
    scores = torch.tensor([[1.0, math.inf, math.nan, -math.inf, 5.0]])
    assert lists_of_top_k(scores, 2).tolist() == [[1, 2]]
    assert lists_of_top_k(scores, 5).tolist() == [[0, 1, 2, 3, 4]]


def test_masks_and_rows_become_lists() -> None:
    starts, tokens = lists_of_mask(torch.tensor([[[0, 1, 1], [0, 0, 0]], [[1, 0, 0], [1, 1, 1]]], dtype=torch.int8))
    assert starts.tolist() == [0, 2, 2, 3, 6]
    assert tokens.tolist() == [1, 2, 0, 0, 1, 2]
    starts, tokens = lists_of_rows(torch.tensor([[[3, 4], [1, 9]]], dtype=torch.int32))
    assert starts.tolist() == [0, 2, 4]
    assert tokens.tolist() == [3, 4, 1, 9]


@pytest.mark.parametrize("spread", [0.0, 0.6])
def test_structure_of_lists_by_brute_force(spread: float) -> None:
    problem = gather_case((2, 6, 2, 40, 9, 8), spread)
    starts, tokens = drawn_lists(problem)
    kept, pairs = set(), 0
    for row in range(12):
        listed = tokens[starts[row] : starts[row + 1]].tolist()
        assert listed == sorted(set(listed))
        assert abs(len(listed) - 9) <= problem.widest
        pairs += len(listed)
        kept |= {(row // 3, token) for token in listed}
    operator = TokenGatherAttentionOperator()
    inputs = {"row_starts": starts, "tokens": tokens}
    structure = operator.structure(problem, {}, inputs)
    assert structure.figures == {"kept_keys": len(kept), "kept_pairs": pairs}
    assert problem.work(structure).flop == 4 * pairs * 8
    inputs["tokens"] = tokens.flip(0)
    assert operator.structure(problem, {}, inputs).digest != structure.digest


# k-means


def blobs(count: int, each: int, d: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    centres = 10.0 * normal(count, d, seed=1)
    return centres.repeat_interleave(each, 0) + 0.1 * normal(count * each, d, seed=2), centres


def test_kmeans_finds_planted_clusters() -> None:
    points, centres = blobs(12, 20)
    found, belongs = kmeans(points, 12, generator())
    assert float((found[nearest(centres, found)] - centres).norm(dim=1).max()) < 0.2
    # Points of one blob belong together, and no two blobs do.
    by_blob = belongs.view(12, 20)
    assert (by_blob == by_blob[:, :1]).all()
    assert len(set(by_blob[:, 0].tolist())) == 12


def test_centres_are_the_nearest_and_the_means() -> None:
    points = normal(200, 5, seed=3)
    centres, belongs = kmeans(points, 9, generator(), iterations=100)
    assert torch.equal(belongs, torch.cdist(points.double(), centres.double()).argmin(1))
    for one in range(9):
        torch.testing.assert_close(centres[one], points[belongs == one].mean(0), rtol=1e-5, atol=1e-5)


def test_seeds_are_different_points_even_among_equal_ones() -> None:
    points = torch.cat([torch.zeros(30, 3), torch.ones(1, 3)])
    seeds = spread_seeds(points, 5, generator())
    assert (seeds == 1.0).all(1).any()  # the one that is far
    assert len(seeds) == 5
    with pytest.raises(ValueError, match="6 clusters of 5 points"):
        kmeans(points[:5], 6, generator())


# Label channels


def test_label_channels_are_those_with_the_largest_products() -> None:
    k, q = normal(2, 2, 50, 8, seed=1), normal(2, 4, 30, 8, seed=2)
    k[:, 0, :, 5] *= 20.0
    k[:, 1, :, 1] *= 20.0
    q[:, :2, :, 2] *= 20.0  # the first KV head's group
    found = label_channels(q, k, 2)
    assert found.tolist()[0] == [2, 5]
    assert 1 in found.tolist()[1]
    # E|q_c k_c| over all pairs, written out.
    products = torch.einsum("bhtc,bhsc->hc", q.abs(), k.abs().repeat_interleave(2, 1)).view(2, 2, 8).sum(1)
    assert torch.equal(found, products.topk(2).indices.sort(-1).values.int())


def test_int8_labels_are_within_half_a_step_and_a_quarter_of_the_bytes() -> None:
    k = normal(2, 3, 400, 16, seed=4)
    channels = torch.tensor([[0, 3, 15], [1, 2, 4], [7, 8, 9]], dtype=torch.int32)
    whole, small = label_cache(k, channels), label_cache(k, channels, "int8")
    assert small.scale is not None
    assert small.zero is not None
    restored = (small.labels.float() - small.zero[None, :, None]) * small.scale[None, :, None]
    assert ((restored - whole.labels).abs() <= 0.5001 * small.scale[None, :, None]).all()
    assert torch.equal(whole.labels[1, 2, :, 1], k[1, 2, :, 8])
    assert small.bytes == whole.bytes / 4 + 4 * 9
    assert label_cache(k, channels, "float16").bytes == whole.bytes / 2


# Clusters and thresholds


def planted() -> tuple[torch.Tensor, torch.Tensor]:
    centres = normal(1, 2, 10, 16, seed=5)
    return (centres.repeat_interleave(12, 2) + 0.05 * normal(1, 2, 120, 16, seed=6)), normal(1, 4, 64, 16, seed=7)


def test_clusters_are_means_of_raw_keys() -> None:
    k, _ = planted()
    found = cluster_keys(k, 10, generator())
    assert int(found.sizes.sum()) == 240
    for head in range(2):
        for c in range(10):
            members = k[0, head][found.assignment[0, head] == c]
            assert len(members) == int(found.sizes[0, head, c])
            torch.testing.assert_close(found.centroids[0, head, c], members.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kept", [0.1, 0.5])
def test_threshold_keeps_its_share_of_the_calibration(kept: float) -> None:
    k, q = planted()
    clusters = cluster_keys(k, 20, generator())
    scores = log_scores(cluster_logits(q, clusters.centroids), clusters.sizes)
    threshold = calibrated_threshold(scores, clusters.sizes, kept)
    share = torch.stack([kept_tokens(scores[:, :, t], clusters.assignment, threshold) for t in range(64)]).float()
    assert float(share.mean()) == pytest.approx(kept, abs=0.01)
    everything = kept_tokens(scores[:, :, 0], clusters.assignment, calibrated_threshold(scores, clusters.sizes, 1.0))
    assert everything.all()


def test_scores_are_the_softmax_weights_of_a_clusters_keys() -> None:
    """With every key its own cluster a score is a weight of attention."""
    q, k = normal(1, 2, 1, 16), normal(1, 1, 30, 16, seed=1)
    scores = log_scores(cluster_logits(q, k), torch.ones(1, 1, 30, dtype=torch.int32)).exp()
    torch.testing.assert_close(scores, torch.softmax(q @ k.transpose(-1, -2) / 4.0, -1))


def test_a_hierarchy_with_a_threshold_of_zero_is_one_level() -> None:
    k, q = planted()
    fine = cluster_keys(k, 20, generator())
    coarse = cluster_clusters(fine, 5, generator())
    assert int(coarse.sizes.sum()) == 240
    levels = (cluster_logits(q, coarse.centroids), coarse.sizes)
    logits = cluster_logits(q, fine.centroids)
    flat = log_scores(logits, fine.sizes)
    open_ = hierarchical_log_scores(*levels, 0.0, coarse.assignment, logits, fine.sizes)
    torch.testing.assert_close(open_, flat)
    shut = hierarchical_log_scores(*levels, 0.02, coarse.assignment, logits, fine.sizes)
    scored = shut > -math.inf
    assert scored.any()
    assert not scored.all()
    # A coarse cluster weighs no more than its fine ones (Jensen), so scores rise, and by little: little was passed over.
    rise = shut[scored] - flat[scored]
    assert float(rise.min()) > -1e-4
    assert float(rise.mean()) < 0.2


# Codebooks


def test_query_factor_squares_to_the_queries_second_moment() -> None:
    q = normal(2, 4, 500, 6, seed=8) * torch.tensor([3.0, 1.0, 1.0, 0.5, 2.0, 1.0])
    factor = query_factor(q, 2)
    assert torch.equal(factor, factor.tril())
    grouped = q.view(2, 2, 2, 500, 6).transpose(0, 1).reshape(2, -1, 6)
    second = grouped.transpose(1, 2) @ grouped
    for found, moment in zip(factor @ factor.transpose(1, 2), second, strict=True):
        torch.testing.assert_close(found / found.trace(), moment / moment.trace(), rtol=1e-3, atol=1e-3)


def test_a_codebook_of_all_keys_is_exact_and_an_aware_one_is_better() -> None:
    k, spread = normal(1, 2, 300, 12, seed=9), torch.logspace(0, -2, 12)
    q, test = normal(1, 2, 400, 12, seed=10) * spread, normal(1, 2, 50, 12, seed=11) * spread
    errors = []
    for calibration in (q, None):
        book = build_codebook(k, 40, generator(), q=calibration)
        stand_in = book.words[torch.arange(2)[:, None], book.assign(k)[0].long()][None]
        errors.append(float((test @ (k - stand_in).transpose(-1, -2)).square().mean()))
    assert errors[0] < 0.5 * errors[1]
    whole = build_codebook(k, 300, generator(), q=q)
    torch.testing.assert_close(whole.words[0][whole.assign(k)[0, 0].long()], k[0, 0], rtol=1e-2, atol=1e-2)


# Windowed RoPE


def test_rotation_depends_on_the_difference_of_positions() -> None:
    q, k = normal(1, 8).double(), normal(1, 8, seed=1).double()
    products = [rotate(q, torch.tensor([p])) @ rotate(k, torch.tensor([p - 7])).T for p in (7, 100, 2048)]
    for other in products[1:]:
        torch.testing.assert_close(products[0], other)
    torch.testing.assert_close(rotate(q, torch.tensor([5])).norm(), q.norm())


@pytest.mark.parametrize(("length", "window"), [(30, 6), (4, 6), (9, 9)])
def test_windowed_products_are_rope_inside_and_constant_outside(length: int, window: int) -> None:
    q, k = normal(2, 8).double(), normal(2, length, 8, seed=1).double()
    found = (windowed_query(q, far=50)[:, None] @ windowed_keys(k, window, far=50).transpose(-1, -2))[:, 0]
    for s in range(length):
        delta = length - 1 - s
        position = delta if delta < window else 50
        expected = (rotate(q[:, None], torch.tensor([position]))[:, 0] * k[:, s]).sum(-1)
        torch.testing.assert_close(found[:, s], expected)
