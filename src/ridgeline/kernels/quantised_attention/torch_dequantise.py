"""``quantised_attention`` as dequantising and torch's ``scaled_dot_product_attention``: what eight bits are held against."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from ridgeline.analytical.operators import QuantisedAttention
from ridgeline.analytical.operators.quantised_attention import QUERY_BLOCK
from ridgeline.kernels.quantised_attention.operator import dequantise
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


@implementation("quantised_attention", "torch_dequantise", devices=("cpu", "cuda"))
def prepare(problem: QuantisedAttention, constants: Tensors, context: Context) -> Run:
    """Q, K and V are expanded to the precision of O in every call; a correction becomes a bias of the scores.

    torch aligns ``is_causal`` top-left: the leading queries, which see no key where there are more queries than keys,
    are left out, so that a square is left; where there are fewer, a mask takes its place.
    """
    t, s, d = problem.q_length, problem.kv_length, problem.head_dim
    dtype = getattr(torch, problem.precision)
    grouped = problem.q_heads != problem.kv_heads
    blind = max(0, t - s) if problem.causal else 0
    hidden = None
    if problem.causal and (problem.smooth_q or t < s):
        first = s - t + blind
        hidden = torch.arange(s) > torch.arange(t - blind)[:, None] + first
        hidden = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf")).to(context.device)
    square = problem.causal and hidden is None

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        floats = dequantise(problem, inputs, dtype)
        mask = hidden
        if problem.smooth_q:
            bias = inputs["correction"].to(dtype).mul(d**-0.5).repeat_interleave(QUERY_BLOCK, 2)[:, :, blind:t]
            mask = bias if hidden is None else bias + hidden
        answer = scaled_dot_product_attention(
            floats.q[:, :, blind:], floats.k, floats.v, attn_mask=mask, is_causal=square, enable_gqa=grouped
        )
        if problem.smooth_v:
            mean = inputs["v_mean"].to(dtype).repeat_interleave(problem.q_heads // problem.kv_heads, 1)
            answer = answer + mean[:, :, None]
        out[:, :, blind:] = answer
        if blind:
            out[:, :, :blind] = 0

    return run
