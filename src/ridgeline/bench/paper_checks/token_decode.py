"""What the checks of token selectors share: true choices, errors against dense attention, cold decode steps, peers.

Imports torch at the top: the check modules import this one inside their functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil
import torch

from ridgeline.analytical.operators import Attention
from ridgeline.bench.paper_checks.lab import Lab, Ratio, Side
from ridgeline.bench.quads import LEG_S
from ridgeline.kernels.native.token_gather import token_gather_attention
from ridgeline.kernels.registry import Unsupported
from ridgeline.kernels.token_selector.lists import lists_of_rows, lists_of_top_k

TOLERANCE = 1e-5
"""Relative L2 error in float32, as papers.md states for the rows of K3."""
COLD_FACTOR = 3.0
FEWEST_COPIES = 16
MEMORY_SHARE = 0.5
"""Of the memory that is free, what copies may take: the dense peer has its own, and a worker ends at three quarters."""


@dataclass(frozen=True)
class Step:
    """Keys, values and one query of a decode step."""

    q: torch.Tensor
    """float32 [B, H, d]."""
    k: torch.Tensor
    """float32 [B, H_kv, S, d]."""
    v: torch.Tensor


def exact_scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """q.k / sqrt(d) in float64: ``q`` [B, H, d], ``k`` [B, H_kv, S, d]; [B, H, S]."""
    b, heads, d = q.shape
    kv_heads = k.shape[1]
    grouped = q.double().view(b, kv_heads, heads // kv_heads, d) / math.sqrt(d)
    return torch.cat([(grouped[:, h] @ k[:, h].double().transpose(-1, -2)) for h in range(kv_heads)], 1)


def dense(step: Step) -> torch.Tensor:
    """Attention over all keys in float64, [B, H, d]."""
    group = step.q.shape[1] // step.k.shape[1]
    weights = exact_scores(step.q, step.k).softmax(-1)
    heads = [weights[:, h, None] @ step.v[:, h // group].double() for h in range(step.q.shape[1])]
    return torch.cat(heads, 1)


def attend(step: Step, starts: torch.Tensor, tokens: torch.Tensor, threads: int) -> torch.Tensor:
    """The native executor over lists."""
    out = torch.full_like(step.q, float("nan"))
    token_gather_attention(step.q, step.k, step.v, starts, tokens, out, threads)
    return out


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """||found - expected|| / ||expected||; infinite where something is not finite."""
    error = float((found.double() - expected).norm() / expected.norm())
    return error if math.isfinite(error) else math.inf


def recall(chosen: torch.Tensor, scores: torch.Tensor, k: int) -> float:
    """Share of the ``k`` tokens with the largest true ``scores`` [B, H, S] that are among ``chosen`` [B, H, >= k]."""
    true = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, lists_of_top_k(scores, k).long(), True)
    return float(true.gather(-1, chosen.long()).sum(-1).float().mean() / k)


def every_token(rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lists of all tokens."""
    return lists_of_rows(torch.arange(length, dtype=torch.int32).expand(rows, length).contiguous())


def worst_gather_error(lab: Lab, shapes: Iterable[tuple[int, int, float]]) -> tuple[float, str]:
    """Worst relative error of every executor on (S, kept, spread) with H 8, d 128; Triton's in its interpreter, small."""
    from ridgeline.analytical.operators import TokenGatherAttention
    from ridgeline.kernels.interpreted import interpreted_errors
    from ridgeline.kernels.registry import implementations

    problems = [
        TokenGatherAttention(batch=1, q_heads=8, kv_heads=8, kv_length=length, kept=kept, head_dim=128, spread=spread)
        for length, kept, spread in shapes
    ]
    small = [
        TokenGatherAttention(batch=1, q_heads=6, kv_heads=2, kv_length=150, kept=61, head_dim=40, spread=1.0),
        TokenGatherAttention(batch=2, q_heads=3, kv_heads=3, kv_length=300, kept=290, head_dim=64),
    ]
    errors: dict[str, float] = {}
    for found in implementations("token_gather_attention"):
        if lab.torch_device in found.devices:
            errors[found.name] = max(lab.worst_error("token_gather_attention", one, found.name) for one in problems)
        else:
            lab.sources.add(found.path)
            errors[found.name] = max(interpreted_errors("token_gather_attention", small, found.name))
    return max(errors.values()), ", ".join(f"{name} {error:.1e}" for name, error in errors.items())


@dataclass(frozen=True)
class Copies:
    """Steps on buffers of their own, taken by turns with a dense decode."""

    count: int
    touched_bytes: float
    """What a step reads of its buffers."""
    dense_bytes: float
    """What a launch of the dense side reads."""
    cache_bytes: float
    """Of the last-level cache."""

    def passed_bytes(self, steps_of_a_quad: int, dense_of_a_quad: int) -> float:
        """What passes through the cache, at least, before a copy is used again."""
        quads = self.count // steps_of_a_quad
        return self.count * self.touched_bytes + quads * dense_of_a_quad * self.dense_bytes


def copies(cache_bytes: float, touched_bytes: float, whole_bytes: float, dense_bytes: float) -> Copies:
    """As many as pass through three times the cache by themselves, or as memory holds, where the dense launches between them
    have to pass through the rest: :func:`against_dense` sees whether they did.

    Args:
        cache_bytes: of the last-level cache.
        touched_bytes: what a step reads.
        whole_bytes: what its buffers hold: keys and values that it does not choose as well.
        dense_bytes: what a launch of the dense side reads.

    Raises:
        Unsupported: where memory holds so few that dense launches between them do not help. Beside a cache of 480 MiB all
            of them took 12 to 20 GB.
    """
    wanted = max(2, math.ceil(COLD_FACTOR * cache_bytes / touched_bytes) + 1)
    there = MEMORY_SHARE * psutil.virtual_memory().available
    count = min(wanted, int(there / whole_bytes))
    if count < min(wanted, FEWEST_COPIES):
        raise Unsupported(
            f"a cold cache of {cache_bytes / 2**20:.0f} MiB takes {wanted} copies of {whole_bytes / 1e9:.2g} GB, or "
            f"{FEWEST_COPIES} beside a dense decode: {there / 1e9:.3g} GB are there for them"
        )
    return Copies(count, touched_bytes, dense_bytes, cache_bytes)


def strongest_dense(lab: Lab, heads: int, kv_heads: int, length: int, head_dim: int) -> Side:
    """The fastest dense decode among the registered implementations, but those that have to be compiled first."""
    from ridgeline.kernels.registry import implementations

    problem = Attention(batch=1, q_heads=heads, kv_heads=kv_heads, q_length=1, kv_length=length, head_dim=head_dim)
    sides = []
    for found in implementations("attention"):
        if found.name not in ("torch_compile", "torch_flex") and lab.torch_device in found.devices:
            try:
                sides.append(lab.implementation("attention", problem, found.name))
            except Unsupported:
                continue
    return lab.strongest(sides)


def against_dense(
    lab: Lab,
    dense_side: Side,
    steps: list[Callable[[], object]],
    label: str,
    cold: Copies,
    budget_s: float = 4.0,
) -> Ratio:
    """Time of dense decode over that of the selected, both cold.

    Raises:
        Unsupported: where less than three times the cache passed before a copy was used again.
    """
    ratio = lab.ratio(dense_side, lab.function(steps, label), cold=True, budget_s=budget_s)
    of_a_quad = [2 * (math.ceil(LEG_S / seconds) + 1) for seconds in (ratio.fast_s, ratio.slow_s)]
    passed = cold.passed_bytes(*of_a_quad)
    if passed < COLD_FACTOR * cold.cache_bytes:
        raise Unsupported(
            f"{cold.count} copies, as many as memory holds, came again after {passed / 2**20:.0f} MiB: a cold cache takes "
            f"{COLD_FACTOR * cold.cache_bytes / 2**20:.0f}"
        )
    return ratio


def share(
    lab: Lab, whole: list[Callable[[], object]], part: list[Callable[[], object]], budget_s: float = 2.0
) -> float:
    """Time of a part of a step over that of the step."""
    ratio = lab.ratio(lab.function(whole, "step"), lab.function(part, "part"), cold=True, budget_s=budget_s)
    return 1.0 / ratio.value


def index_cost(built_s: float, ratio: Ratio) -> str:
    """What the index took, and after how many steps of this kind it has paid for itself."""
    saved_s = ratio.slow_s - ratio.fast_s
    pays = f"pays after {built_s / saved_s:.0f} steps of a layer" if saved_s > 0.0 else "never pays at these times"
    return f"index built in {built_s:.2f} s, {pays}"
