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

    Keys are normal. A query is the sum of the keys that it is to attend to at its distances, of a direction that the
    planted columns have too, and of noise: no pair off the lines has anything to do with them, so that neither a column
    nor a diagonal stands out by chance.
    """
    length, d = problem.length, problem.head_dim
    groups = (problem.batch, problem.kv_heads)
    seen = length - problem.last_queries  # beyond, some of the last queries would not see the line

    def drawn(count: int, always: int) -> torch.Tensor:
        several = [torch.randperm(seen - always, generator=generator)[:count].sort().values for _ in range(math.prod(groups))]
        return (torch.stack(several) + always).view(*groups, count)

    columns = drawn(max(problem.columns - SINK_COLUMNS, 0), SINK_COLUMNS)
    distances = drawn(max(problem.diagonals - LOCAL_DIAGONALS, 0), LOCAL_DIAGONALS)
    k = torch.randn(*groups, length, d, generator=generator)
    direction = torch.nn.functional.normalize(torch.randn(*groups, 1, d, generator=generator), dim=-1)
    length_of_direction = math.sqrt(strength * math.sqrt(d))  # squared and over sqrt(d): the score
    at = columns[..., None].expand(*columns.shape, d)
    k.scatter_add_(2, at, (length_of_direction * direction).expand(*columns.shape, d))
    wanted = torch.zeros(*groups, length, d)
    for b in range(groups[0]):
        for h in range(groups[1]):
            for distance in distances[b, h].tolist():
                wanted[b, h, distance:] += k[b, h, : length - distance] * (strength / math.sqrt(d))
    q = 0.5 * torch.randn(problem.batch, problem.q_heads, length, d, generator=generator)
    q += (wanted + length_of_direction * direction).repeat_interleave(problem.q_heads // problem.kv_heads, dim=1)
    return Planted(q, k, columns, distances)


def isotropic(problem: LineSelector, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal ``q`` and ``k`` of the same shapes: every key is worth the same, so no choice can be better than chance."""
    q = torch.randn(problem.batch, problem.q_heads, problem.length, problem.head_dim, generator=generator)
    return q, torch.randn(problem.batch, problem.kv_heads, problem.length, problem.head_dim, generator=generator)
