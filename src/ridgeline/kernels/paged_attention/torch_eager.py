"""``paged_attention`` as separate torch operations: pages copied into one padded tensor, then products and softmax."""

from __future__ import annotations

import math

import torch

from ridgeline.analytical.operators import PagedAttention
from ridgeline.kernels.paged_attention.operator import gathered, last_keys
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


@implementation(
    "paged_attention", "torch_eager", devices=("cpu", "cuda"), precisions=("float32", "bfloat16", "float16")
)
def prepare(problem: PagedAttention, constants: Tensors, context: Context) -> Run:
    """Every sequence is padded to the pages of the longest, and the queries of one KV head are one matrix."""
    b, heads, t, d = problem.batch, problem.kv_heads, problem.q_length, problem.head_dim
    group = problem.q_heads // heads
    dtype = getattr(torch, problem.precision)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        k, v = (gathered(inputs[name], inputs["block_table"]).to(dtype) for name in ("k", "v"))
        last = last_keys(problem, inputs["lengths"])[:, None, None, :, None]
        scores = torch.matmul(inputs["q"].view(b, heads, group * t, d), k.transpose(-1, -2))
        scores = scores.view(b, heads, group, t, -1).float() * (1.0 / math.sqrt(d))
        hidden = torch.arange(k.shape[2], device=k.device) > last
        # Finite, so that the softmax of a row without keys is a number; such rows are set to zero afterwards.
        weights = torch.softmax(scores.masked_fill(hidden, torch.finfo(torch.float32).min), dim=-1).to(dtype)
        torch.matmul(weights.view(b, heads, group * t, -1), v, out=out.view(b, heads, group * t, d))
        if t > 1:
            out.masked_fill_(last[:, 0] < 0, 0)

    return run
