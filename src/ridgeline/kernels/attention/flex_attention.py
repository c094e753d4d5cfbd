"""``attention`` by ``torch.nn.attention.flex_attention``: torch's fused kernel with the mask as a function, compiled."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ridgeline.analytical.operators import Attention
from ridgeline.kernels.inductor import compile_once
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation

MaskMod = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(batch, head, query, key), all numbers, to whether that query sees that key."""


def compiled_flex(
    mask: MaskMod | None, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """flex_attention compiled for tensors like these, with the blocks that ``mask`` empties left out.

    Raises:
        Unsupported: where torch has no such kernel (a CPU without AVX2), or no C++ compiler.
    """
    # Imported here: it loads all of torch._dynamo, two seconds of every worker's start.
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    grouped = q.shape[1] != k.shape[1]
    blocks = None
    if mask is not None:
        blocks = create_block_mask(mask, None, None, q.shape[2], k.shape[2], device=str(q.device))

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        answer = flex_attention(q, k, v, block_mask=blocks, enable_gqa=grouped)
        assert isinstance(answer, torch.Tensor)  # no auxiliary outputs were asked for
        return answer

    try:
        return compile_once(attend, (q, k, v))
    except Exception as error:
        if "not supported for CPU" in str(error):
            raise Unsupported("torch's FlexAttention needs an x86 CPU with AVX2") from None
        raise


@implementation("attention", "torch_flex", devices=("cpu", "cuda"), precisions=("float32", "bfloat16", "float16"))
def prepare(problem: Attention, constants: Tensors, context: Context) -> Run:
    """Masks are aligned bottom-right; rows that see no key, which come first, are not computed."""
    if problem.transform != "softmax":
        raise Unsupported(f"flex_attention changes scores before its softmax, it cannot leave it out: {problem.transform}")
    t, s = problem.q_length, problem.kv_length
    before = s + t if problem.window is None else problem.window - 1  # keys seen before a query's position, and after it
    after = 0 if problem.causal else before
    blind = max(0, t - s - after)
    shift = s - t + blind

    def sees(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= query + (shift + after)) & (key >= query + (shift - before))

    def empty(heads: int, length: int) -> torch.Tensor:
        shape = (problem.batch, heads, length, problem.head_dim)
        return torch.zeros(shape, dtype=getattr(torch, problem.precision), device=context.device)

    q, kv = empty(problem.q_heads, t - blind), empty(problem.kv_heads, s)
    # One query aligned bottom-right sees every key, unless there is a window.
    masked = (problem.causal and t > 1) or problem.window is not None
    flex = compiled_flex(sees if masked else None, q, kv, kv.clone())

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        out[:, :, blind:] = flex(inputs["q"][:, :, blind:], inputs["k"], inputs["v"])
        if blind:
            out[:, :, :blind] = 0

    return run
