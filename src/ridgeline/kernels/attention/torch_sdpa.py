"""``attention`` by ``torch.nn.functional.scaled_dot_product_attention``: the fused kernels torch comes with."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from ridgeline.analytical.operators import Attention
from ridgeline.kernels.attention.torch_eager import blind_queries, hidden_keys
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation


@implementation("attention", "torch_sdpa", devices=("cpu", "cuda"), precisions=("float32", "bfloat16", "float16"))
def prepare(problem: Attention, constants: Tensors, context: Context) -> Run:
    """torch aligns ``is_causal`` top-left and leaves rows without keys to the backend; both are avoided here.

    With more queries than keys, the leading ones see no key and are zeros, and the rest is a square where both
    alignments agree. With fewer, the mask is a bias object on CUDA, which selects FlashAttention's bottom-right
    kernel, and a bool[T, S] tensor on the CPU, where that object would be turned into one in every call. torch knows
    no window: its mask is such a tensor everywhere.
    """
    if problem.transform != "softmax":
        raise Unsupported(f"scaled_dot_product_attention computes softmax, not {problem.transform}")
    t, s = problem.q_length, problem.kv_length
    grouped = problem.q_heads != problem.kv_heads
    square = problem.causal and t >= s and problem.window is None
    mask: torch.Tensor | None = None
    if problem.window is None:
        blind = max(0, t - s) if problem.causal else 0
    else:
        hidden = hidden_keys(problem, context.device)
        blind = blind_queries(hidden)
        mask = None if hidden is None else ~hidden[blind:]
    # One query aligned bottom-right sees every key.
    if problem.window is None and problem.causal and 1 < t < s:
        # Imported here: it loads all of torch._dynamo, two seconds of every worker's start.
        from torch.nn.attention.bias import causal_lower_right

        bias = causal_lower_right(t, s)
        mask = bias._materialize() if context.device == "cpu" else bias

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        q = inputs["q"][:, :, blind:]
        answer = scaled_dot_product_attention(
            q, inputs["k"], inputs["v"], attn_mask=mask, is_causal=square, enable_gqa=grouped
        )
        out[:, :, blind:] = answer
        if blind:
            out[:, :, :blind] = 0

    return run
