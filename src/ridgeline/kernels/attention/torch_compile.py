"""``attention`` by ``torch.compile``: what Inductor makes of the eager formulation."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import Attention
from ridgeline.kernels.attention.torch_eager import blind_queries, hidden_keys, weights
from ridgeline.kernels.inductor import compile_once
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


@implementation("attention", "torch_compile", devices=("cpu", "cuda"), precisions=("float32", "bfloat16", "float16"))
def prepare(problem: Attention, constants: Tensors, context: Context) -> Run:
    """Static shapes, one graph, compiled here; the graph writes ``out``."""
    hidden = hidden_keys(problem, context.device)
    b, heads, t, s, d = problem.batch, problem.kv_heads, problem.q_length, problem.kv_length, problem.head_dim
    group = problem.q_heads // heads
    blind = blind_queries(hidden)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor) -> None:
        scores = torch.matmul(q.view(b, heads, group * t, d), k.transpose(-1, -2)).view(b, heads, group, t, s)
        w = weights(scores, problem, hidden).view(b, heads, group * t, s)
        out.copy_(torch.matmul(w, v).view(b, heads * group, t, d))
        if blind:
            out[:, :, :blind] = 0

    def empty(heads: int, length: int) -> torch.Tensor:
        return torch.zeros(b, heads, length, d, dtype=getattr(torch, problem.precision), device=context.device)

    compiled = compile_once(
        attend, (empty(heads * group, t), empty(heads, s), empty(heads, s), empty(heads * group, t))
    )

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        compiled(inputs["q"], inputs["k"], inputs["v"], out)

    return run
