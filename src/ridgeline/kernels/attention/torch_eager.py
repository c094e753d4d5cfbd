"""``attention`` as separate torch operations: product, transform, product; the scores go through memory."""

from __future__ import annotations

import math

import torch

from ridgeline.analytical.operators import Attention
from ridgeline.analytical.operators.attention import SIGMOIDS
from ridgeline.kernels.attention.operator import seen_keys
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


def hidden_keys(problem: Attention, device: str) -> torch.Tensor | None:
    """bool[T, S], true where a query does not see a key; ``None`` where every query sees all keys."""
    seen = seen_keys(problem, torch.arange(problem.q_length, device=device))
    return None if bool(seen.all()) else ~seen


def blind_queries(hidden: torch.Tensor | None) -> int:
    """Leading queries that see no key."""
    return 0 if hidden is None else int(hidden.all(dim=1).sum())


def weights(scores: torch.Tensor, problem: Attention, hidden: torch.Tensor | None) -> torch.Tensor:
    """Weights [B, Hkv, group, T, S] of raw scores of that shape; the transform is computed in float32."""
    scores = scores.float() * (1.0 / math.sqrt(problem.head_dim))
    if problem.score_bias:
        scores = scores + problem.score_bias
    if hidden is not None:
        # Finite, so that the softmax of a row without keys is a number; such rows are set to zero afterwards.
        scores = scores.masked_fill(hidden, torch.finfo(torch.float32).min)
    result = torch.sigmoid(scores) if problem.transform in SIGMOIDS else torch.softmax(scores, dim=-1)
    return result.to(getattr(torch, problem.precision))


@implementation("attention", "torch_eager", devices=("cpu", "cuda"), precisions=("float32", "bfloat16", "float16"))
def prepare(problem: Attention, constants: Tensors, context: Context) -> Run:
    """The queries of one KV head are one matrix [group T, d], so that keys and values are not repeated."""
    hidden = hidden_keys(problem, context.device)
    b, heads, t, s, d = problem.batch, problem.kv_heads, problem.q_length, problem.kv_length, problem.head_dim
    group = problem.q_heads // heads
    blind = blind_queries(hidden)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        q = inputs["q"].view(b, heads, group * t, d)
        scores = torch.matmul(q, inputs["k"].transpose(-1, -2)).view(b, heads, group, t, s)
        w = weights(scores, problem, hidden)
        torch.matmul(w.view(b, heads, group * t, s), inputs["v"], out=out.view(b, heads, group * t, d))
        if blind:
            out[:, :, :blind] = 0

    return run
