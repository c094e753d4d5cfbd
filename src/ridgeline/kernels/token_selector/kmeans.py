"""k-means in torch, for indices over keys: seeds spread by squared distance, then Lloyd's iterations."""

from __future__ import annotations

import torch

CHUNK_ELEMENTS = 1 << 24
"""Distances held at once: 64 MB of float32."""
ROUNDS = 16


def nearest(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """The nearest centre of each point, int64 [n]. ``points`` [n, d], ``centres`` [c, d], float32."""
    half = centres.square().sum(1) / 2.0
    chunk = max(1, CHUNK_ELEMENTS // len(centres))
    return torch.cat([(part @ centres.T - half).argmax(1) for part in points.split(chunk)])


def spread_seeds(points: torch.Tensor, count: int, generator: torch.Generator, rounds: int = ROUNDS) -> torch.Tensor:
    """``count`` of the points, drawn with a chance that rises with the squared distance to those drawn before.

    k-means++ (Arthur and Vassilvitskii 2007) draws one after the other; here a share of them is drawn in each of
    ``rounds`` rounds, as in k-means|| (Bahmani et al. 2012), because thousands of codes would take thousands of passes.
    """
    n = len(points)
    squares = points.square().sum(1)
    drawn = torch.randint(n, (1,), generator=generator)
    distance = torch.full((n,), float("inf"))
    new = drawn
    share = -(-(count - 1) // rounds)
    while len(drawn) < count:
        centres = points[new]
        to_new = squares[:, None] + squares[new] - 2.0 * (points @ centres.T)
        distance = torch.minimum(distance, to_new.amin(1).clamp_min_(0.0))
        distance[drawn] = 0.0
        chances = distance + distance.sum() * 1e-9 / n + torch.finfo(torch.float32).tiny
        chances[drawn] = 0.0
        new = torch.multinomial(chances, min(share, count - len(drawn)), generator=generator)
        drawn = torch.cat([drawn, new])
    return points[drawn]


def kmeans(
    points: torch.Tensor, count: int, generator: torch.Generator, iterations: int = 8
) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres, float32 [count, d], and the number of each point's centre, int64 [n].

    ``points`` float32 [n, d] on the CPU. A centre that loses all its points stays where it is. Stops early where no
    point changes its centre.

    Raises:
        ValueError: for more centres than points.
    """
    if not 1 <= count <= len(points):
        raise ValueError(f"{count} clusters of {len(points)} points cannot be")
    centres = spread_seeds(points, count, generator)
    belongs = nearest(points, centres)
    for _ in range(iterations):
        sizes = torch.bincount(belongs, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, belongs, points)
        centres = torch.where(sizes[:, None] > 0, sums / sizes.clamp_min(1)[:, None], centres)
        before, belongs = belongs, nearest(points, centres)
        if torch.equal(before, belongs):
            break
    return centres, belongs
