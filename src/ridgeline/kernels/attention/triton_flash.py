"""``attention`` in Triton, one program for all keys of a tile of rows: prefill, and decode where rows fill the GPU.

Transforms and kernel are those of :mod:`ridgeline.kernels.attention.transforms` and
:mod:`ridgeline.kernels.attention.flash`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import triton

from ridgeline.analytical.operators import Attention
from ridgeline.kernels.attention.launch import Shape, ahead_of_time, launcher
from ridgeline.kernels.compiled import TARGETS, Compilation, local_architecture
from ridgeline.kernels.registry import Context, Run, Tensors, implementation

CONFIGS: Mapping[str, tuple[dict[str, int], ...]] = {
    "prefill": (
        {"block_m": 128, "block_n": 64, "num_warps": 8, "num_stages": 3},
        {"block_m": 128, "block_n": 32, "num_warps": 8, "num_stages": 3},
        {"block_m": 64, "block_n": 32, "num_warps": 8, "num_stages": 2},
        {"block_m": 64, "block_n": 64, "num_warps": 4, "num_stages": 3},
        {"block_m": 128, "block_n": 128, "num_warps": 8, "num_stages": 3},
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
On an H200, 8192 x 8192 of 16 heads in bfloat16, TFLOP/s with the fourth of prefill and with the last: d 64 426 and 353, d 128
415 and 478, d 128 causal 487 and 460; decode from 8192 keys: 3.98 TB/s with the second, 3.85 with the first."""


def default_config(shape: Shape, architecture: str) -> dict[str, int]:
    """What was fastest on sm_90; elsewhere the largest tile that the architecture holds without spilling."""
    size = 0 if shape.head_dim <= 64 else 1 if shape.head_dim <= 128 else 2
    if shape.precision == "float32":
        return dict(CONFIGS["float32"][size])
    if shape.q_length == 1:
        return decode_config(shape.group, architecture)
    if architecture == "sm_90" and size < 2:
        full = size == 1 and not (shape.causal or shape.window or shape.tree)
        return dict(CONFIGS["prefill"][4 if full and shape.q_length > 64 else 3])
    # mma.sync of sm_8x and sm_12x keeps operands and accumulators in registers; wgmma and tcgen05 do not. AMD's wide
    # tile spills under the mask of a window, and its narrow one under that of a tree; so does sm_120's under either. The
    # wide one takes 80 KiB of gfx942's 64.
    masked = shape.window > 0 or shape.tree
    narrow = architecture.startswith(("sm_8", "sm_12", "gfx942")) or (masked and architecture.startswith("gfx"))
    least = size == 2 or (narrow and (shape.tree or (masked and architecture.startswith("sm_12"))))
    return dict(CONFIGS["prefill"][2 if least else 1 if narrow else 0])


def decode_config(rows: int, architecture: str) -> dict[str, int]:
    """For one tile of few rows."""
    tile = CONFIGS["decode"][architecture == "sm_90"]
    return {**tile, "block_m": max(16, triton.next_power_of_2(rows))}


def folded_config(shape: Shape, architecture: str) -> dict[str, int]:
    """Where all heads of a group are in one tile: decode's up to 32 rows, beyond that prefill's."""
    rows = shape.q_length * shape.group
    if shape.precision != "float32" and rows <= 32:
        return decode_config(rows, architecture)
    return default_config(shape, architecture)


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
    shape = shape_of(problem)
    config = {**default_config(shape, architecture_of(context)), **context.config}
    fold = shape.group if config.get("fold", problem.q_length == 1) else 1
    return launcher(
        shape, problem.transform, config, context.device, fold=fold, score_bias=problem.score_bias
    )  # fmt: skip


def configurations(problem: Attention) -> Sequence[Mapping[str, int]]:
    """Tuning space of a problem: the tiles of its regime, decode's as high as a group."""
    if problem.precision == "float32":
        return CONFIGS["float32"]
    if problem.q_length > 1:
        return CONFIGS["prefill"]
    rows = max(16, triton.next_power_of_2(problem.q_heads // problem.kv_heads))
    return [{**tile, "block_m": rows} for tile in CONFIGS["decode"]]


def compilation(problem: Attention, config: Mapping[str, int]) -> Compilation:
    """One tile of the space, as it would be compiled."""
    shape = shape_of(problem)
    fold = shape.group if problem.q_length == 1 else 1
    return ahead_of_time("attention", shape, problem.transform, config, fold=fold)


def architecture_of(context: Context) -> str:
    """The GPU's architecture; empty in the interpreter."""
    return local_architecture() if context.device == "cuda" else ""


def model_shape(q_length: int, precision: str, **more: Any) -> Shape:
    """What is compiled ahead of time: 32 heads of 128 over 8 KV heads, as in Llama 3 8B."""
    return Shape(
        batch=1, q_heads=32, kv_heads=8, q_length=q_length, kv_length=4096, head_dim=128, precision=precision, **more
    )  # fmt: skip


def shipped(
    label: str, shape: Shape, transform: str, choose: Callable[[Shape, str], dict[str, int]], **options: Any
) -> list[Compilation]:
    """A compilation of each configuration that ``choose`` gives, for the targets that it gives it for."""
    chosen = {name: choose(shape, name) for name in TARGETS}
    configs = [config for index, config in enumerate(chosen.values()) if config not in list(chosen.values())[:index]]
    return [
        ahead_of_time(
            label, shape, transform, config, targets=tuple(t for t in chosen if chosen[t] == config), **options
        )
        for config in configs
    ]


def compilations() -> tuple[Compilation, ...]:
    """Causal prefill with either transform and in a window, and decode over 4 folded heads; on sm_90 also other tiles, and
    prefill without a mask."""
    causal = model_shape(4096, "bfloat16", causal=True)
    full = model_shape(4096, "bfloat16")
    window = model_shape(4096, "bfloat16", causal=True, window=1024)
    decode = model_shape(1, "float16")
    other = ("sm_90",)
    return (
        *shipped("attention prefill softmax", causal, "softmax", default_config, fold=1),
        *shipped("attention prefill sigmoid", causal, "sigmoid", default_config, fold=1),
        *shipped("attention prefill window", window, "softmax", default_config, fold=1),
        *shipped("attention decode softmax", decode, "softmax", default_config, fold=4),
        ahead_of_time("attention prefill softmax", causal, "softmax", CONFIGS["prefill"][0], fold=1, targets=other),
        ahead_of_time("attention prefill full softmax", full, "softmax", CONFIGS["prefill"][4], fold=1, targets=other),
        ahead_of_time("attention prefill full sigmoid", full, "sigmoid", CONFIGS["prefill"][4], fold=1, targets=other),
        ahead_of_time("attention prefill sigmoid", causal, "sigmoid", CONFIGS["prefill"][0], fold=1, targets=other),
        ahead_of_time("attention decode softmax", decode, "softmax", CONFIGS["decode"][0], fold=4, targets=other),
    )
