"""``paged_attention`` in Triton: each key's page is looked up in the block table as its tile is read.

Lengths are read on the device, and every sequence is split in the same number of parts, whatever its length; the kernel
is that of :mod:`ridgeline.kernels.attention.flash`. A page may have any number of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import triton

from ridgeline.analytical.operators import PagedAttention
from ridgeline.kernels.attention.launch import Shape, compilation, launcher
from ridgeline.kernels.attention.triton_flash import CONFIGS, model_shape
from ridgeline.kernels.compiled import Compilation, has_float8, local_architecture
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation

KV_PRECISIONS = ("float32", "bfloat16", "float16", "float8_e4m3fn")


def default_config(shape: Shape) -> dict[str, int]:
    """Tiles of decode, as high as a group and its few queries need, up to 64 rows."""
    size = 0 if shape.head_dim <= 64 else 1 if shape.head_dim <= 128 else 2
    if shape.precision == "float32":
        return dict(CONFIGS["float32"][size])
    rows = shape.group * shape.q_length
    return {**CONFIGS["decode"][0], "block_m": min(64, max(16, triton.next_power_of_2(rows)))}


def shape_of(problem: PagedAttention) -> Shape:
    """With one query, the causal mask hides nothing."""
    return Shape(
        batch=problem.batch,
        q_heads=problem.q_heads,
        kv_heads=problem.kv_heads,
        q_length=problem.q_length,
        kv_length=problem.kv_length,
        head_dim=problem.head_dim,
        precision=problem.precision,
        kv_precision=problem.kv_precision,
        causal=problem.q_length > 1,
        page=problem.page,
    )


@implementation(
    "paged_attention", "triton", devices=("cuda",), precisions=("float32", "bfloat16", "float16")
)
def prepare(problem: PagedAttention, constants: Tensors, context: Context) -> Run:
    """All heads of a group in one tile; tiles and ``splits`` from ``context.config``, or as many as fill the GPU."""
    stored = problem.kv_precision or problem.precision
    if stored not in KV_PRECISIONS:
        raise Unsupported(f"takes keys in {', '.join(KV_PRECISIONS)}, not in {stored}")
    if stored == "float8_e4m3fn" and context.device == "cuda" and not has_float8(local_architecture()):
        raise Unsupported(f"{local_architecture()} does not convert float8_e4m3fn")
    shape = shape_of(problem)
    config: Mapping[str, Any] = {**default_config(shape), **context.config}
    splits = config.get("splits") or shape.parts(shape.group, config["block_m"])
    return launcher(shape, "softmax", config, context.device, fold=shape.group, splits=splits)


def compilations() -> tuple[Compilation, ...]:
    """Decode over 4 folded heads in 16 parts from pages of 16 tokens, as vLLM has them."""
    shape = replace(model_shape(1, "bfloat16"), page=16)
    return (compilation("paged_attention", shape, "softmax", default_config(shape), fold=4, splits=16),)
