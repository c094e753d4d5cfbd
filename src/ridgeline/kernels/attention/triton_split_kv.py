"""``attention`` in Triton with the keys split in parts (FlashDecoding, Dao et al. 2023): decode of few long sequences.

Softmax combines parts by their log-sum-exp in a second kernel; sigmoid adds them up atomically, without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ridgeline.analytical.operators import Attention
from ridgeline.kernels.attention import triton_flash
from ridgeline.kernels.attention.launch import ahead_of_time, combine_ahead_of_time, launcher
from ridgeline.kernels.attention.triton_flash import architecture_of, folded_config, model_shape, shape_of, shipped
from ridgeline.kernels.compiled import Compilation
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


@implementation("attention", "triton_split_kv", devices=("cuda",), precisions=("float32", "bfloat16", "float16"))
def prepare(problem: Attention, constants: Tensors, context: Context) -> Run:
    """All heads of a group in one tile. ``splits`` from ``context.config``, or as many as fill the GPU."""
    shape = shape_of(problem)
    config = {**folded_config(shape, architecture_of(context)), **context.config}
    splits = config.get("splits") or shape.parts(shape.group, config["block_m"])
    return launcher(
        shape, problem.transform, config, context.device, fold=shape.group, splits=splits, score_bias=problem.score_bias
    )  # fmt: skip


def configurations(problem: Attention) -> Sequence[Mapping[str, int]]:
    """Tuning space of a problem: the tiles that an unsplit kernel has, by parts of no fewer keys than a tile."""
    tiles = triton_flash.configurations(problem)
    return [{**tile, "splits": n} for tile in tiles for n in (4, 16, 64) if n * tile["block_n"] <= problem.kv_length]


def compilation(problem: Attention, config: Mapping[str, int]) -> Compilation:
    """One configuration of the space, as it would be compiled."""
    shape = shape_of(problem)
    return ahead_of_time("attention", shape, problem.transform, config, fold=shape.group, splits=config["splits"])


def compilations() -> tuple[Compilation, ...]:
    """Decode in 16 parts: of a softmax, which are combined, and of a sigmoid, which are added up."""
    shape = model_shape(1, "bfloat16")
    return (
        *shipped("attention split softmax", shape, "softmax", folded_config, fold=4, splits=16),
        *shipped("attention split sigmoid", shape, "sigmoid", folded_config, fold=4, splits=16),
        combine_ahead_of_time("attention combine softmax", "bfloat16", 128, 16, "softmax"),
    )
