"""``attention`` in Triton, one program for all keys of a tile of rows: prefill, and decode where rows fill the GPU.

Transforms and kernel are those of :mod:`ridgeline.kernels.attention.transforms` and
:mod:`ridgeline.kernels.attention.flash`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import triton

from ridgeline.analytical.operators import Attention
from ridgeline.kernels.attention.launch import Shape, compilation, launcher
from ridgeline.kernels.compiled import Compilation, local_architecture
from ridgeline.kernels.registry import Context, Run, Tensors, implementation

CONFIGS: Mapping[str, tuple[dict[str, int], ...]] = {
    "prefill": (
        {"block_m": 128, "block_n": 64, "num_warps": 8, "num_stages": 3},
        {"block_m": 128, "block_n": 32, "num_warps": 8, "num_stages": 3},
        {"block_m": 64, "block_n": 32, "num_warps": 8, "num_stages": 2},
        {"block_m": 64, "block_n": 64, "num_warps": 4, "num_stages": 3},
    ),
    "decode": (
        {"block_m": 16, "block_n": 64, "num_warps": 4, "num_stages": 3},
        {"block_m": 16, "block_n": 128, "num_warps": 4, "num_stages": 3},
    ),
    # Without TF32, float32 products run on the vector lanes and hold their operands in registers.
    "float32": (
        {"block_m": 32, "block_n": 32, "num_warps": 4, "num_stages": 2},
        {"block_m": 32, "block_n": 16, "num_warps": 8, "num_stages": 2},
        {"block_m": 16, "block_n": 16, "num_warps": 8, "num_stages": 1},
    ),
}
"""Tuning space by regime; ``default_config`` chooses prefill's by architecture and d, float32's by d (64, 128, 256).
On an H200, causal 4096 x 4096 of 32 heads with d = 128: 446 TFLOP/s with the last of prefill, 395 with its first (the
library's flash kernel: 495); decode from 8192 keys: 3.98 TB/s with the second, 3.85 with the first."""


def default_config(problem: Attention, architecture: str) -> dict[str, int]:
    """What was fastest on sm_90; elsewhere the largest tile that the architecture holds without spilling."""
    size = 0 if problem.head_dim <= 64 else 1 if problem.head_dim <= 128 else 2
    if problem.precision == "float32":
        return dict(CONFIGS["float32"][size])
    if problem.q_length == 1:
        group = problem.q_heads // problem.kv_heads
        tile = CONFIGS["decode"][architecture == "sm_90"]
        return {**tile, "block_m": max(16, triton.next_power_of_2(group))}
    if architecture == "sm_90" and size < 2:
        return dict(CONFIGS["prefill"][3])
    # mma.sync of sm_8x and sm_12x keeps operands and accumulators in registers; wgmma and tcgen05 do not.
    narrow = architecture.startswith(("sm_8", "sm_12"))
    return dict(CONFIGS["prefill"][2 if size == 2 else 1 if narrow else 0])


def shape_of(problem: Attention) -> Shape:
    """With one query aligned bottom-right, the causal mask hides nothing."""
    return Shape(
        batch=problem.batch,
        q_heads=problem.q_heads,
        kv_heads=problem.kv_heads,
        q_length=problem.q_length,
        kv_length=problem.kv_length,
        head_dim=problem.head_dim,
        precision=problem.precision,
        causal=problem.causal and problem.q_length > 1,
        window=problem.window or 0,
    )


@implementation(
    "attention",
    "triton",
    devices=("cuda",),
    precisions=("float32", "bfloat16", "float16"),
)
def prepare(problem: Attention, constants: Tensors, context: Context) -> Run:
    """Tiles from ``context.config`` (keys as in ``CONFIGS``, and ``fold``: 1 to put a KV head's queries in one tile).

    By default decode folds, so that each key and value is read once; prefill does not.
    """
    architecture = local_architecture() if context.device == "cuda" else ""
    config = {**default_config(problem, architecture), **context.config}
    shape = shape_of(problem)
    fold = shape.group if config.get("fold", problem.q_length == 1) else 1
    return launcher(
        shape, problem.transform, config, context.device, fold=fold, score_bias=problem.score_bias
    )  # fmt: skip


WIDE = ("sm_90", "sm_100", "gfx942", "gfx950")
NARROW = ("sm_80", "sm_89", "sm_120")
"""Targets that the first two prefill tiles are for."""


def model_shape(q_length: int, precision: str, **more: Any) -> Shape:
    """What is compiled ahead of time: 32 heads of 128 over 8 KV heads, as in Llama 3 8B."""
    return Shape(
        batch=1, q_heads=32, kv_heads=8, q_length=q_length, kv_length=4096, head_dim=128, precision=precision, **more
    )  # fmt: skip


def compilations() -> tuple[Compilation, ...]:
    """Causal prefill with either transform and in a window, and decode over 4 folded heads."""
    wide, narrow, _, hopper = CONFIGS["prefill"]
    decode, hopper_decode = CONFIGS["decode"]
    causal = model_shape(4096, "bfloat16", causal=True)
    window = model_shape(4096, "bfloat16", causal=True, window=1024)
    return (
        *(
            compilation(f"attention prefill {name}", shape, transform, config, fold=1, targets=targets)
            for config, targets in ((hopper, ("sm_90",)), (wide, WIDE), (narrow, NARROW))
            for name, shape, transform in (("softmax", causal, "softmax"), ("sigmoid", causal, "sigmoid"))
        ),
        compilation("attention prefill window", window, "softmax", hopper, fold=1),
        *(
            compilation("attention decode softmax", model_shape(1, "float16"), "softmax", config, fold=4, targets=targets)
            for config, targets in ((hopper_decode, ("sm_90",)), (decode, ()))
        ),
    )
