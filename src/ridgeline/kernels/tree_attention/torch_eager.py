"""``tree_attention`` as separate torch operations with a dense mask: product, softmax, product."""

from __future__ import annotations

import math

import torch

from ridgeline.analytical.operators import TreeAttention
from ridgeline.kernels.registry import Context, Run, Tensors, implementation
from ridgeline.kernels.tree_attention.operator import hidden_keys


@implementation("tree_attention", "torch_eager", devices=("cpu", "cuda"), precisions=("float32", "bfloat16", "float16"))
def prepare(problem: TreeAttention, constants: Tensors, context: Context) -> Run:
    """The queries of one KV head are one matrix [group n, d], so that keys and values are not repeated."""
    hidden = hidden_keys(problem, constants["ancestors"])
    b, heads, n, d = problem.batch, problem.kv_heads, problem.nodes, problem.head_dim
    rows = problem.q_heads // heads * n
    dtype = getattr(torch, problem.precision)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        scores = torch.matmul(inputs["q"].view(b, heads, rows, d), inputs["k"].transpose(-1, -2))
        scores = scores.view(b, problem.q_heads, n, -1).float() * (1.0 / math.sqrt(d))
        weights = torch.softmax(scores.masked_fill(hidden, -math.inf), dim=-1).to(dtype)
        torch.matmul(weights.view(b, heads, rows, -1), inputs["v"], out=out.view(b, heads, rows, d))

    return run
