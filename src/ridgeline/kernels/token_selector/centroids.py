"""Index of Squeezed Attention (Hooper et al. 2024): clusters of a fixed context's keys, and thresholds for their scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ridgeline.kernels.token_selector.kmeans import kmeans


@dataclass(frozen=True)
class Clusters:
    """Clusters of the keys of each KV head."""

    centroids: torch.Tensor
    """float32 [B, H_kv, C, d]: means of the raw keys."""
    sizes: torch.Tensor
    """int32 [B, H_kv, C]."""
    assignment: torch.Tensor
    """int32 [B, H_kv, S]: the cluster of each key; of coarse clusters: of each cluster below, [B, H_kv, C below]."""


def _means(values: torch.Tensor, weights: torch.Tensor, belongs: torch.Tensor, count: int) -> torch.Tensor:
    sums = torch.zeros(count, values.shape[1]).index_add_(0, belongs, values * weights[:, None])
    totals = torch.zeros(count).index_add_(0, belongs, weights)
    return sums / totals.clamp_min(1.0)[:, None]


def cluster_keys(k: torch.Tensor, count: int, generator: torch.Generator, iterations: int = 8) -> Clusters:
    """k-means on the L2-normalised keys ``k`` [B, H_kv, S, d]; a centroid is the mean of its raw keys."""
    heads = k.float().flatten(0, 1)
    found = []
    for keys in heads:
        _, belongs = kmeans(torch.nn.functional.normalize(keys, dim=1), count, generator, iterations)
        found.append((_means(keys, torch.ones(len(keys)), belongs, count), belongs))
    return _clusters(found, k.shape[:2], count, [torch.ones(k.shape[2])] * len(heads))


def cluster_clusters(fine: Clusters, count: int, generator: torch.Generator, iterations: int = 8) -> Clusters:
    """The coarse level of the hierarchy: k-means on the normalised centroids; sizes count keys."""
    found, weights = [], []
    for centroids, sizes in zip(fine.centroids.flatten(0, 1), fine.sizes.flatten(0, 1), strict=True):
        _, belongs = kmeans(torch.nn.functional.normalize(centroids, dim=1), count, generator, iterations)
        weights.append(sizes.float())
        found.append((_means(centroids, weights[-1], belongs, count), belongs))
    return _clusters(found, fine.sizes.shape[:2], count, weights)


def _clusters(
    found: list[tuple[torch.Tensor, torch.Tensor]], shape: torch.Size, count: int, weights: list[torch.Tensor]
) -> Clusters:
    sizes = [
        torch.zeros(count).index_add_(0, belongs, weight) for (_, belongs), weight in zip(found, weights, strict=True)
    ]
    return Clusters(
        torch.stack([centroids for centroids, _ in found]).unflatten(0, shape),
        torch.stack(sizes).to(torch.int32).unflatten(0, shape),
        torch.stack([belongs for _, belongs in found]).to(torch.int32).unflatten(0, shape),
    )


def cluster_logits(q: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """q . c / sqrt(d) of ``q`` [B, H, T, d] and ``centroids`` [B, H_kv, C, d]: [B, H, T, C]."""
    b, heads, t, d = q.shape
    kv_heads = centroids.shape[1]
    grouped = q.reshape(b, kv_heads, heads // kv_heads * t, d)
    return (grouped @ centroids.transpose(-1, -2) / math.sqrt(d)).view(b, heads, t, -1)


def log_scores(logits: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """ln of exp(l_c) / sum over c' of N_c' exp(l_c'): ``logits`` [B, H, T, C], ``sizes`` [B, H_kv, C]."""
    group = logits.shape[1] // sizes.shape[1]
    weights = sizes.to(logits.dtype).log().repeat_interleave(group, 1)[:, :, None]
    return logits - (logits + weights).logsumexp(-1, keepdim=True)


def calibrated_threshold(scores: torch.Tensor, sizes: torch.Tensor, kept: float) -> float:
    """The score above which ``kept`` of the tokens lie, over all heads and queries together (a global threshold).

    ``scores`` [B, H, T, C] in logarithms, of calibration queries; ``sizes`` [B, H_kv, C]. 0 keeps every token.
    """
    if kept >= 1.0:
        return 0.0
    group = scores.shape[1] // sizes.shape[1]
    tokens = sizes.repeat_interleave(group, 1)[:, :, None].expand_as(scores).flatten().double()
    order = scores.flatten().argsort(descending=True)
    covered = tokens[order].cumsum(0)
    # The first cluster that exceeds the share is left out: the threshold is its score, and scores must be above it.
    place = int(torch.searchsorted(covered, kept * covered[-1]))
    return math.exp(float(scores.flatten()[order[min(place, len(order) - 1)]]))


def kept_tokens(scores: torch.Tensor, assignment: torch.Tensor, threshold: float) -> torch.Tensor:
    """int8 [B, H, S]: 1 where the score of a token's cluster is above ``threshold``; ``scores`` [B, H, C] in logarithms."""
    group = scores.shape[1] // assignment.shape[1]
    kept = scores > math.log(threshold) if threshold > 0.0 else torch.ones_like(scores, dtype=torch.bool)
    return kept.to(torch.int8).gather(-1, assignment.long().repeat_interleave(group, 1))


def hierarchical_log_scores(
    coarse_logits: torch.Tensor,
    coarse_sizes: torch.Tensor,
    coarse_threshold: float,
    parent: torch.Tensor,
    logits: torch.Tensor,
    sizes: torch.Tensor,
) -> torch.Tensor:
    """ln of the scores of fine clusters whose coarse cluster is above ``coarse_threshold``; -inf of the others.

    The denominator counts a coarse cluster that was passed over as one: its size times its exponential stands for its
    fine clusters, so that with a threshold of 0 the scores are those of one level. Shapes [B, H, T, C1] and
    [B, H, T, C] of logits, [B, H_kv, C1] and [B, H_kv, C] of sizes, [B, H_kv, C] of ``parent``.
    """
    group = logits.shape[1] // sizes.shape[1]

    def weighted(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        return values + counts.to(values.dtype).log().repeat_interleave(group, 1)[:, :, None]

    passed = log_scores(coarse_logits, coarse_sizes) > (math.log(coarse_threshold) if coarse_threshold else -math.inf)
    belongs = parent.long().repeat_interleave(group, 1)[:, :, None].expand_as(logits)
    scored = passed.gather(-1, belongs)
    out_of_it = torch.cat(
        [
            weighted(coarse_logits, coarse_sizes).masked_fill(passed, -math.inf),
            weighted(logits, sizes).masked_fill(~scored, -math.inf),
        ],
        -1,
    )
    return (logits - out_of_it.logsumexp(-1, keepdim=True)).masked_fill(~scored, -math.inf)
