"""Index of A2ATS (He et al. 2025): query-aware vector quantisation of keys."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ridgeline.kernels.token_selector.kmeans import kmeans, nearest

DAMPING = 1e-4
"""Share of the mean diagonal that is added to it, so that few calibration queries still give a positive matrix."""


@dataclass(frozen=True)
class Codebook:
    """Codewords of each KV head, and the space in which keys are assigned to them."""

    words: torch.Tensor
    """float32 [H_kv, C, d], in the space of keys: scores are products of query and word."""
    factor: torch.Tensor
    """float32 [H_kv, d, d], lower triangular L with L L^T = E[q q^T]; the identity of a plain codebook."""

    def assign(self, k: torch.Tensor) -> torch.Tensor:
        """Codes, int16 [B, H_kv, S], of keys ``k`` [B, H_kv, S, d]: argmin over words c of |(k - c) L|."""
        b, heads = k.shape[:2]
        codes = [
            torch.stack(
                [nearest(k[i, h].float() @ self.factor[h], self.words[h] @ self.factor[h]) for h in range(heads)]
            )
            for i in range(b)
        ]
        return torch.stack(codes).to(torch.int16)


def query_factor(q: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """L, float32 [H_kv, d, d], with L L^T = E[q q^T] over the queries ``q`` [B, H, T, d] of each KV head's group.

    The mean square of its elements is 1: a factor changes no assignment. (k - c) E[q q^T] (k - c)^T is the mean square
    error of the score q.k when c stands for k, so distances in the space of k L are what matters (section 4.2).
    """
    b, heads, t, d = q.shape
    grouped = q.double().view(b, kv_heads, heads // kv_heads, t, d).transpose(0, 1).reshape(kv_heads, -1, d)
    second = grouped.transpose(1, 2) @ grouped / grouped.shape[1]
    diagonal = second.diagonal(dim1=1, dim2=2).mean(1)
    second = second + DAMPING * diagonal[:, None, None] * torch.eye(d, dtype=torch.float64)
    factor = torch.linalg.cholesky(second)
    return (factor / factor.square().mean((1, 2), keepdim=True).sqrt()).float()


def build_codebook(
    k: torch.Tensor, count: int, generator: torch.Generator, *, q: torch.Tensor | None = None, iterations: int = 8
) -> Codebook:
    """``count`` codewords for each KV head from calibration keys ``k`` [B, H_kv, S, d], of which S B >= count.

    With calibration queries ``q`` [B, H, T, d], k-means runs on k L and words are c L^-1; without, on the keys as they
    are (plain vector quantisation).
    """
    heads, d = k.shape[1], k.shape[3]
    factor = torch.eye(d).expand(heads, d, d).contiguous() if q is None else query_factor(q, heads)
    words = []
    for keys, one in zip(k.float().transpose(0, 1).flatten(1, 2), factor, strict=True):
        centres, _ = kmeans(keys @ one, count, generator, iterations)
        words.append(torch.linalg.solve_triangular(one, centres, upper=False, left=False))
    return Codebook(torch.stack(words).contiguous(), factor)
