"""``token_gather_attention`` in torch: the listed keys and values are copied together, then attended to."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import scaled_dot_product_attention

from ridgeline.analytical.operators import TokenGatherAttention
from ridgeline.kernels.registry import Context, Run, Tensors, implementation

PRECISIONS = ("float32", "bfloat16", "float16")


@implementation("token_gather_attention", "torch_gather", devices=("cpu", "cuda"), precisions=PRECISIONS)
def prepare(problem: TokenGatherAttention, constants: Tensors, context: Context) -> Run:
    """Lists of one length: one index_select each of K and V, and SDPA. Ragged lists: padded, the rest masked.

    How the lists are laid out is found out from ``row_starts`` in every call, as it is in use.
    """
    b, heads, s, d = problem.batch, problem.q_heads, problem.kv_length, problem.head_dim
    rows, group = b * heads, heads // problem.kv_heads
    first_key = (torch.arange(rows, device=context.device) // group * s)[:, None]
    longest = problem.kept + problem.widest
    places = torch.arange(longest, device=context.device)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        starts, tokens = inputs["row_starts"].long(), inputs["tokens"].long()
        mask = None
        if problem.widest:
            within = places < starts.diff()[:, None]
            at = (starts[:-1, None] + places).clamp_(max=len(tokens) - 1)
            index = torch.where(within, tokens[at], 0) + first_key
            mask = within[:, None, None, :]
        else:
            index = tokens.view(rows, longest) + first_key
        k, v = (
            inputs[name].view(-1, d).index_select(0, index.view(-1)).view(rows, 1, longest, d) for name in ("k", "v")
        )
        answer = scaled_dot_product_attention(inputs["q"].view(rows, 1, 1, d), k, v, attn_mask=mask)
        if mask is not None:
            # A list without tokens: what a backend makes of a row that sees nothing differs.
            answer = torch.where(mask.any(-1, keepdim=True), answer, 0.0)
        out.copy_(answer.view(out.shape))

    return run


@implementation("token_gather_attention", "torch_eager", precisions=PRECISIONS)
def prepare_eager(problem: TokenGatherAttention, constants: Tensors, context: Context) -> Run:
    """One query head at a time, in separate operations; scores and softmax in float32."""
    group, d = problem.q_heads // problem.kv_heads, problem.head_dim
    scale = 1.0 / math.sqrt(d)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        q, answers = inputs["q"].view(-1, d), out.view(-1, d)
        keys, values = (inputs[name].view(-1, problem.kv_length, d) for name in ("k", "v"))
        starts, tokens = inputs["row_starts"].tolist(), inputs["tokens"]
        for row in range(len(q)):
            listed = tokens[starts[row] : starts[row + 1]]
            scores = keys[row // group].index_select(0, listed) @ q[row]
            weights = torch.softmax(scores.float() * scale, 0).to(q.dtype)
            answers[row] = weights @ values[row // group].index_select(0, listed)

    return run
