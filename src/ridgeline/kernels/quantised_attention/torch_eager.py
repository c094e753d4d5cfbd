"""``quantised_attention`` as separate torch operations, tile by tile: what the paper's kernel computes, step by step."""

from __future__ import annotations

import math

import torch

from ridgeline.analytical.operators import QuantisedAttention
from ridgeline.analytical.operators.quantised_attention import KEY_GROUPING, QUERY_BLOCK, QUERY_GROUPING
from ridgeline.kernels.quantised_attention.quantise import LARGEST
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation

KEY_TILE = 64
"""Keys of a step: after each, the running maximum and the accumulator are brought up to date."""
EXACT_HEAD_DIM = (1 << 24) // (127 * 127)
"""Up to this head dimension, 1040, float32 holds every partial sum of int8 products exactly."""


@implementation("quantised_attention", "torch_eager", devices=("cpu", "cuda"), papers=("sageattention2",))
def prepare(problem: QuantisedAttention, constants: Tensors, context: Context) -> Run:
    """Q K^T of the stored values, exact in float32; scores in units of log2; P rounded as the matrix unit takes it.

    P is in the precision of V. For FP8 its scale is static: exponents are raised by log2(448), so that the row's
    maximum becomes the largest FP8 number (section 3.3); the row's sum, of the P before rounding, takes it out again.
    Products with V are summed up in float32, tile by tile.
    """
    if problem.values == "int8":
        raise Unsupported("P V in int8 is counted, not computed: the paper keeps P and V in FP8 or float16")
    if problem.head_dim > EXACT_HEAD_DIM:
        raise Unsupported(
            f"head_dim {problem.head_dim}: beyond {EXACT_HEAD_DIM}, float32 may round the integer products"
        )
    b, t, s, d = problem.batch, problem.q_length, problem.kv_length, problem.head_dim
    heads, group = problem.kv_heads, problem.q_heads // problem.kv_heads
    device = context.device
    values = getattr(torch, problem.values)
    q_group = QUERY_GROUPING[problem.granularity].group(torch.arange(t, device=device))
    k_group = KEY_GROUPING[problem.granularity].group(torch.arange(s, device=device))
    q_block = torch.arange(t, device=device) // QUERY_BLOCK
    last_key = torch.arange(t, device=device) + (s - t) if problem.causal else torch.full((t,), s - 1, device=device)
    raised = math.log2(LARGEST["float8_e4m3fn"]) if problem.values == "float8_e4m3fn" else 0.0

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        q = inputs["q"].float().view(b, heads, group, t, d)
        q_scale = inputs["q_scale"].view(b, heads, group, -1)[..., q_group, None] * (math.log2(math.e) / math.sqrt(d))
        k_scale = inputs["k_scale"][:, :, None, k_group]
        maximum = torch.full((b, heads, group, t, 1), -math.inf, device=device)
        total = torch.zeros_like(maximum)
        accumulator = torch.zeros(b, heads, group, t, d, device=device)
        for start in range(0, s, KEY_TILE):
            keys = slice(start, min(start + KEY_TILE, s))
            integers = q @ inputs["k"][:, :, None, keys].float().transpose(-1, -2)
            scores = integers * k_scale[..., None, keys] * q_scale
            if problem.smooth_q:
                correction = inputs["correction"][..., keys].view(b, heads, group, -1, keys.stop - start)
                scores += correction[..., q_block, :] * (math.log2(math.e) / math.sqrt(d))
            hidden = torch.arange(start, keys.stop, device=device) > last_key[:, None]
            scores.masked_fill_(hidden, -math.inf)
            grown = torch.maximum(maximum, scores.amax(-1, keepdim=True))
            # A row that has seen no key yet has the maximum -inf, and -inf - -inf is not a number.
            base = grown.masked_fill(grown == -math.inf, 0.0)
            p = torch.exp2(scores - base + raised)
            rescale = torch.exp2(maximum - base)
            total = total * rescale + p.sum(-1, keepdim=True)
            product = p.to(values).float() @ inputs["v"][:, :, None, keys].float()
            accumulator = accumulator * rescale + product
            maximum = grown
        result = accumulator / total.masked_fill(total == 0.0, 1.0)
        if "v_scale" in inputs:
            result *= inputs["v_scale"][:, :, None, None]
        if problem.smooth_v:
            result += inputs["v_mean"][:, :, None, None]
            result.masked_fill_(last_key[:, None] < 0, 0.0)
        out.copy_(result.view(out.shape))

    return run
