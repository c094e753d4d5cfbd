"""``tree_attention`` by ``torch.nn.attention.flex_attention``: the ancestors are a table that its mask looks up."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import TreeAttention
from ridgeline.kernels.attention.flex_attention import compiled_flex
from ridgeline.kernels.registry import Context, Run, Tensors, implementation
from ridgeline.kernels.tree_attention.operator import hidden_keys


@implementation("tree_attention", "torch_flex", devices=("cpu", "cuda"), precisions=("float32", "bfloat16", "float16"))
def prepare(problem: TreeAttention, constants: Tensors, context: Context) -> Run:
    """Compiled for this tree's sizes; the tree itself is data."""
    table = ~hidden_keys(problem, constants["ancestors"])

    def sees(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return table[query, key]

    def empty(heads: int, length: int) -> torch.Tensor:
        shape = (problem.batch, heads, length, problem.head_dim)
        return torch.zeros(shape, dtype=getattr(torch, problem.precision), device=context.device)

    kv = empty(problem.kv_heads, problem.context + problem.nodes)
    flex = compiled_flex(sees, empty(problem.q_heads, problem.nodes), kv, kv.clone())

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        out.copy_(flex(inputs["q"], inputs["k"], inputs["v"]))

    return run
