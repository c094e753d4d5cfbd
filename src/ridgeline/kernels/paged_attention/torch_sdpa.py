"""``paged_attention`` by ``scaled_dot_product_attention``: pages copied into one padded tensor, and a mask."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from ridgeline.analytical.operators import PagedAttention
from ridgeline.kernels.paged_attention.operator import gathered, last_keys
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


@implementation("paged_attention", "torch_sdpa", devices=("cpu", "cuda"), precisions=("float32", "bfloat16", "float16"))
def prepare(problem: PagedAttention, constants: Tensors, context: Context) -> Run:
    """Every sequence is padded to the pages of the longest, because torch's function knows no lengths."""
    grouped = problem.q_heads != problem.kv_heads
    dtype = getattr(torch, problem.precision)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        k, v = (gathered(inputs[name], inputs["block_table"]).to(dtype) for name in ("k", "v"))
        last = last_keys(problem, inputs["lengths"])[:, None, :, None]
        # What a row without keys gives depends on torch's backend: such a row looks at key 0, and is then zero.
        sees = torch.arange(k.shape[2], device=k.device) <= last.clamp(min=0)
        out.copy_(scaled_dot_product_attention(inputs["q"], k, v, attn_mask=sees, enable_gqa=grouped))
        if problem.q_length > 1:
            out.masked_fill_(last < 0, 0)

    return run
