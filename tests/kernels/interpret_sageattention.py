"""sageattention 1.0.6 beside ours in Triton's interpreter, on the same inputs: prints JSON.

Run with TRITON_INTERPRET=1 and ``python -O``: sageattention asserts that its tensors are on a GPU, and -O leaves asserts
out. By case: how its integers and scales differ from ours, and the relative error of each of our outputs against its own.
"""

from __future__ import annotations

import importlib
import json
import math

import torch
from sageattention import sageattn
from sageattention.quant_per_block import per_block_int8

from ridgeline.analytical.operators import QuantisedAttention
from ridgeline.kernels.quantised_attention.operator import exact_attention, make_floats
from ridgeline.kernels.quantised_attention.quantise import Floats, quantise, smooth_tokens
from ridgeline.kernels.registry import Context, get_implementation

CASES = (
    # q_heads, kv_heads, T, S, d, causal. Without a mask, S is a multiple of 64: version 1.0.6 takes the keys that a last
    # tile lacks for zeros and lets them count (with a causal mask it compares them away).
    (2, 1, 70, 128, 64, False),
    (1, 1, 150, 150, 64, True),
    (1, 1, 40, 64, 128, False),
)


def case(q_heads: int, kv_heads: int, t: int, s: int, d: int, causal: bool) -> dict[str, object]:
    problem = QuantisedAttention(
        batch=1, q_heads=q_heads, kv_heads=kv_heads, q_length=t, kv_length=s, head_dim=d, causal=causal,
        granularity="block", smooth_k=False, values="float16",
    )  # fmt: skip
    floats = make_floats(problem, torch.Generator().manual_seed(t), value_mean=0.0)  # a mean would hide errors
    # Smoothed before, so that both quantise the same numbers: sageattention rounds the mean to float16.
    q, k, v = floats.q.half(), smooth_tokens(floats.k)[0].half(), floats.v.half()
    theirs = sageattn(q, k, v, is_causal=causal, smooth_k=False).double()

    inputs = quantise(problem, Floats(q.float(), k.float(), v.float()))
    q_int8, q_scale, k_int8, k_scale = per_block_int8(q, k)
    integers = {"q": q_int8, "k": k_int8}
    scales = {"q_scale": q_scale[..., 0] * (math.sqrt(d) / math.log2(math.e)), "k_scale": k_scale[..., 0]}
    errors = {}
    for name in ("torch_eager", "triton", "native"):
        run = get_implementation("quantised_attention", name).prepare(problem, {}, Context("cpu", 1))
        out = torch.full(q.shape, math.nan)
        run(inputs, out)
        errors[name] = float((out.double() - theirs).norm() / theirs.norm())
    exact = exact_attention(Floats(q, k, v), causal)
    return {
        "case": problem.label,
        "integers_differing": sum(int((mine != inputs[name]).sum()) for name, mine in integers.items()),
        "largest_difference": max(int((mine.int() - inputs[name]).abs().max()) for name, mine in integers.items()),
        "integers": q.numel() + k.numel(),
        "scale_error": max(float((mine / inputs[name] - 1).abs().max()) for name, mine in scales.items()),
        "errors": errors,
        "their_cosine": float(torch.nn.functional.cosine_similarity(theirs.flatten(), exact.flatten(), 0)),
    }


if __name__ == "__main__":
    for name in ("torch_eager", "triton_quantised", "native"):  # loading every kernel takes longer than all of this
        importlib.import_module(f"ridgeline.kernels.quantised_attention.{name}")
    print(json.dumps([case(*shape) for shape in CASES]))
