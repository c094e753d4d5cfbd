"""``attention`` in C++: AVX-512, AVX2 or portable, chosen at run time, on a pool of pinned threads."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import Attention
from ridgeline.analytical.operators.attention import SIGMOIDS
from ridgeline.kernels.native.attention import NativeAttention
from ridgeline.kernels.native.attention_tiles import Shape, default_tiles, tiles_from
from ridgeline.kernels.native.build import NativeBuildError, NativeCallError
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation


def native_attention(problem: Attention, context: Context, transform: str) -> NativeAttention:
    """The kernel for a problem. ``context.config`` may hold ``rows``, ``outer``, ``inner``, ``splits``, ``mask``,
    ``phi`` and ``path``, as :class:`NativeAttention` takes them.

    Raises:
        Unsupported: with the reason, where there is no compiler or no such kernel.
    """
    shape = Shape(
        problem.batch, problem.q_heads, problem.kv_heads, problem.q_length, problem.kv_length, problem.head_dim
    )
    config = context.config
    try:
        return NativeAttention(
            shape,
            transform=transform,
            causal=problem.causal,
            window=problem.window,
            bias=problem.score_bias,
            phi=config.get("phi", 0.0),
            mask=config.get("mask", "compare"),
            tiles=tiles_from(config, default_tiles(shape, context.threads)),
            splits=config.get("splits"),
            threads=context.threads,
            path=config.get("path"),
        )
    except (NativeBuildError, NativeCallError) as error:
        raise Unsupported(str(error)) from None


def _run(kernel: NativeAttention) -> Run:
    def run(inputs: Tensors, out: torch.Tensor) -> None:
        kernel(inputs["q"], inputs["k"], inputs["v"], out)

    return run


@implementation("attention", "native", precisions=("float32",), papers=("flashsigmoid", "fastattention"))
def prepare(problem: Attention, constants: Tensors, context: Context) -> Run:
    """Online softmax, or sigmoid, in the same tiled loop."""
    return _run(native_attention(problem, context, "sigmoid" if problem.transform in SIGMOIDS else "online_softmax"))


@implementation("attention", "native_unified_max", precisions=("float32",), papers=("flashdecoding-pp",))
def prepare_unified_max(problem: Attention, constants: Tensors, context: Context) -> Run:
    """Softmax with one maximum for all rows, no running maximum and no rescaling (FlashDecoding++, Hong et al. 2023,
    section 3); rows whose sum leaves float32's range are computed again with their own maximum.

    ``phi`` is 0 by default: scores of the operator's inputs are within 10 of it, and its range reaches to 55.
    """
    if problem.transform in SIGMOIDS:
        raise Unsupported("a sigmoid has no maximum")
    return _run(native_attention(problem, context, "unified_softmax"))
