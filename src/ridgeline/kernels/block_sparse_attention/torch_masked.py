"""``block_sparse_attention`` as torch does it: dense attention under a mask, whose cost no sparsity lowers."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from ridgeline.analytical.operators import BlockSparseAttention
from ridgeline.kernels.block_sparse_attention.operator import expanded_mask
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


@implementation(
    "block_sparse_attention",
    "torch_masked",
    devices=("cpu", "cuda"),
    precisions=("float32", "bfloat16", "float16"),
)
def prepare(problem: BlockSparseAttention, constants: Tensors, context: Context) -> Run:
    """Expands the index to a bool mask in every call, a head at a time: of 8 heads of 8192 tokens it takes 0.5 GB at once."""
    group = problem.q_heads // problem.kv_heads

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        for head in range(problem.batch * problem.q_heads):
            b, h = divmod(head, problem.q_heads)
            mask = expanded_mask(problem, inputs, head)
            # Four dimensions: torch's flash kernel for the CPU takes no fewer.
            q = _one(inputs["q"], b, h)
            k, v = (_one(inputs[name], b, h // group) for name in "kv")
            out[b, h] = scaled_dot_product_attention(q, k, v, attn_mask=mask)[0, 0]

    return run


def _one(tensor: torch.Tensor, sequence: int, head: int) -> torch.Tensor:
    return tensor[sequence : sequence + 1, head : head + 1]
