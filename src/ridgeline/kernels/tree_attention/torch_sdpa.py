"""``tree_attention`` by ``scaled_dot_product_attention`` with a dense mask."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from ridgeline.analytical.operators import TreeAttention
from ridgeline.kernels.registry import Context, Run, Tensors, implementation
from ridgeline.kernels.tree_attention.operator import hidden_keys


@implementation("tree_attention", "torch_sdpa", devices=("cpu", "cuda"), precisions=("float32", "bfloat16", "float16"))
def prepare(problem: TreeAttention, constants: Tensors, context: Context) -> Run:
    """The mask is bool[nodes, context + nodes], the same for every sequence and head."""
    sees = ~hidden_keys(problem, constants["ancestors"])
    grouped = problem.q_heads != problem.kv_heads

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        out.copy_(
            scaled_dot_product_attention(inputs["q"], inputs["k"], inputs["v"], attn_mask=sees, enable_gqa=grouped)
        )

    return run
