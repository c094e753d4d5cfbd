"""``tree_attention`` in Triton: the ancestors of a node are bits, looked at in the tiles of the tree alone.

The keys of the context take the loop without a mask. All heads of a group are one tile, and the keys are split in parts,
because a tree has few rows: the kernel is that of :mod:`ridgeline.kernels.attention.flash`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ridgeline.analytical.operators import TreeAttention
from ridgeline.kernels.attention.launch import Shape, ancestor_bits, compilation, launcher
from ridgeline.kernels.attention.triton_flash import CONFIGS, model_shape
from ridgeline.kernels.compiled import Compilation
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


def default_config(head_dim: int, precision: str) -> dict[str, int]:
    """Tiles of prefill: a tree over a group of heads has rows enough for 64."""
    size = 0 if head_dim <= 64 else 1 if head_dim <= 128 else 2
    return dict(CONFIGS["float32"][size] if precision == "float32" else CONFIGS["prefill"][2 if size == 2 else 3])


def shape_of(problem: TreeAttention) -> Shape:
    """The tree's nodes are the queries and the last keys."""
    return Shape(
        batch=problem.batch,
        q_heads=problem.q_heads,
        kv_heads=problem.kv_heads,
        q_length=problem.nodes,
        kv_length=problem.context + problem.nodes,
        head_dim=problem.head_dim,
        precision=problem.precision,
        tree=True,
    )


@implementation(
    "tree_attention",
    "triton",
    devices=("cuda",),
    precisions=("float32", "bfloat16", "float16"),
    papers=("medusa",),
)
def prepare(problem: TreeAttention, constants: Tensors, context: Context) -> Run:
    """Packs the ancestors. Tiles and ``splits`` from ``context.config``; by default as many parts as fill the GPU."""
    shape = shape_of(problem)
    config: Mapping[str, Any] = {**default_config(problem.head_dim, problem.precision), **context.config}
    splits = config.get("splits") or shape.parts(shape.group, config["block_m"])
    words = ancestor_bits(constants["ancestors"])
    return launcher(shape, "softmax", config, context.device, fold=shape.group, splits=splits, ancestors=words)


def compilations() -> tuple[Compilation, ...]:
    """A tree over 4 folded heads, in one part."""
    shape = replace(model_shape(64, "bfloat16"), tree=True)
    return (compilation("tree_attention", shape, "softmax", default_config(128, "bfloat16"), fold=4),)
