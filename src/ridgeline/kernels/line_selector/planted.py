"""Queries and keys whose attention lies on known lines, and such whose attention lies on none: the negative control."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ridgeline.analytical.operators import LineSelector
from ridgeline.analytical.operators.block_sparse_attention import LOCAL_DIAGONALS, SINK_COLUMNS

STRENGTH = 10.0
"""Score of a planted pair above that of others, whose scores have a deviation of 1 to 2: of 8192 keys on 5 distances and 34
columns they take more than nine tenths of the weight."""


@dataclass(frozen=True)
class Planted:
    """``q`` [batch, q_heads, length, d] and ``k`` [batch, kv_heads, length, d], float32, with what is planted in them."""

    q: torch.Tensor
    k: torch.Tensor
    columns: torch.Tensor
    """int64[batch, kv_heads, columns - 30], ascending: keys that every query attends to."""
    distances: torch.Tensor
    """int64[batch, kv_heads, diagonals - 100], ascending: how far back every query attends."""


def planted_lines(problem: LineSelector, generator: torch.Generator, strength: float = STRENGTH) -> Planted:
    """Lines beyond those always chosen, so many that with these the problem's numbers are reached; all heads of a KV head
    share theirs.

    Keys are normal. A query is the combination of the keys at its distances that scores ``strength`` with each of them,
    a direction that only the planted columns have too, and noise. No other pair has anything to do with the lines, so that
    hardly a column or a diagonal stands out by chance.
    """
    length, d = problem.length, problem.head_dim
    groups = (problem.batch, problem.kv_heads)
    seen = length - problem.last_queries  # beyond, some of the last queries would not see the line

    def drawn(count: int, always: int) -> torch.Tensor:
        several = [
            torch.randperm(seen - always, generator=generator)[:count].sort().values for _ in range(math.prod(groups))
        ]
        return (torch.stack(several) + always).view(*groups, count)

    columns = drawn(max(problem.columns - SINK_COLUMNS, 0), SINK_COLUMNS)
    distances = drawn(max(problem.diagonals - LOCAL_DIAGONALS, 0), LOCAL_DIAGONALS)
    k = torch.randn(*groups, length, d, generator=generator)
    direction = torch.nn.functional.normalize(torch.randn(*groups, 1, d, generator=generator), dim=-1)
    k -= (k * direction).sum(-1, keepdim=True) * direction  # only planted columns go along it
    wanted = torch.stack(
        [_aimed(k[b, h], distances[b, h], strength) for b in range(groups[0]) for h in range(groups[1])]
    )
    wanted = wanted.view(*groups, length, d)
    marked = math.sqrt(strength * math.sqrt(d)) * direction  # with itself, over sqrt(d): the score
    # Little else is left of a planted column's key: where chance adds to its score, it would take all of one query.
    at = columns[..., None].expand(*columns.shape, d)
    k.scatter_(2, at, 0.2 * k.gather(2, at) + marked)
    q = 0.5 * torch.randn(problem.batch, problem.q_heads, length, d, generator=generator)
    q += (wanted + marked).repeat_interleave(problem.q_heads // problem.kv_heads, dim=1)
    return Planted(q, k, columns, distances)


def _aimed(k: torch.Tensor, distances: torch.Tensor, strength: float) -> torch.Tensor:
    """[length, d]: for each position the shortest vector that scores ``strength`` with the keys at these distances.

    Args:
        k: [length, d].
        distances: int64[n]; of a position that is not so far from the beginning, those that reach a key.
    """
    length, d = k.shape
    at = torch.arange(length)[:, None] - distances[None, :]
    there = at >= 0
    keys = k[at.clamp(min=0)] * there[..., None]
    gram = keys @ keys.mT + torch.diag_embed((~there).to(k.dtype))
    wanted = strength * math.sqrt(d) * there.to(k.dtype)
    return (keys.mT @ torch.linalg.solve(gram, wanted[..., None]))[..., 0]


def isotropic(problem: LineSelector, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal ``q`` and ``k`` of the same shapes: every key is worth the same, so no choice can be better than chance."""
    q = torch.randn(problem.batch, problem.q_heads, problem.length, problem.head_dim, generator=generator)
    return q, torch.randn(problem.batch, problem.kv_heads, problem.length, problem.head_dim, generator=generator)
