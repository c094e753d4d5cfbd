"""``attention`` in Triton with the keys split in parts (FlashDecoding, Dao et al. 2023): decode of few long sequences.

Softmax combines parts by their log-sum-exp in a second kernel; sigmoid adds them up atomically, without one.
"""

from __future__ import annotations

from ridgeline.analytical.operators import Attention
from ridgeline.kernels.attention.launch import combine_compilation, compilation, launcher
from ridgeline.kernels.attention.triton_flash import CONFIGS, default_config, model_shape, shape_of
from ridgeline.kernels.compiled import Compilation, local_architecture
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


@implementation("attention", "triton_split_kv", devices=("cuda",), precisions=("float32", "bfloat16", "float16"))
def prepare(problem: Attention, constants: Tensors, context: Context) -> Run:
    """All heads of a group in one tile. ``splits`` from ``context.config``, or as many as fill the GPU."""
    architecture = local_architecture() if context.device == "cuda" else ""
    config = {**default_config(problem, architecture), **context.config}
    shape = shape_of(problem)
    splits = config.get("splits") or shape.parts(shape.group, config["block_m"])
    return launcher(
        shape, problem.transform, config, context.device, fold=shape.group, splits=splits, score_bias=problem.score_bias
    )  # fmt: skip


def compilations() -> tuple[Compilation, ...]:
    """Decode in 16 parts: of a softmax, which are combined, and of a sigmoid, which are added up."""
    config = CONFIGS["decode"][1]
    shape = model_shape(1, "bfloat16")
    return (
        compilation("attention split softmax", shape, "softmax", config, fold=4, splits=16),
        compilation("attention split sigmoid", shape, "sigmoid", config, fold=4, splits=16),
        combine_compilation("attention combine softmax", "bfloat16", 128, 16, "softmax"),
    )
