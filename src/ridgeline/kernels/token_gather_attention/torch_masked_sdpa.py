"""``token_gather_attention`` by dense SDPA: every key is read, and a mask hides those that are not listed."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from ridgeline.analytical.operators import TokenGatherAttention
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


@implementation(
    "token_gather_attention",
    "torch_masked_sdpa",
    devices=("cpu", "cuda"),
    precisions=("float32", "bfloat16", "float16"),
)
def prepare(problem: TokenGatherAttention, constants: Tensors, context: Context) -> Run:
    """The mask is made from the lists in every call: lists change from step to step."""
    b, heads, s, d = problem.batch, problem.q_heads, problem.kv_length, problem.head_dim
    rows = torch.arange(b * heads, device=context.device)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        lengths = inputs["row_starts"].diff()
        mask = torch.zeros(b * heads, s, dtype=torch.bool, device=context.device)
        mask[rows.repeat_interleave(lengths), inputs["tokens"]] = True
        answer = scaled_dot_product_attention(
            inputs["q"].view(b, heads, 1, d),
            inputs["k"],
            inputs["v"],
            attn_mask=mask.view(b, heads, 1, s),
            enable_gqa=heads != problem.kv_heads,
        )
        if problem.widest:  # a list may be empty
            answer = torch.where((lengths > 0).view(b, heads, 1, 1), answer, 0.0)
        out.copy_(answer.view(out.shape))

    return run
