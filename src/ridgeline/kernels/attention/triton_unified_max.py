"""``attention`` in Triton with a softmax over a fixed maximum (FlashDecoding++, Hong et al. 2024): no rescaling.

Weights are 2^(score - phi) with one phi for all rows, so numerators and denominators of parts are plain sums. A row whose
sum leaves the range in which that is exact is flagged, and a second launch computes the flagged rows, and those alone,
with the online softmax. The paper's criterion is a range of the scores; here it is that of the sum, which bounds every
weight and costs nothing in the loop. ``tl.dot`` takes at least 16 rows: a decode tile is padded to 16, not to the
paper's 8.
"""

from __future__ import annotations

from ridgeline.analytical.operators import Attention
from ridgeline.kernels.attention.launch import combine_ahead_of_time, launcher
from ridgeline.kernels.attention.triton_flash import architecture_of, default_config, model_shape, shape_of, shipped
from ridgeline.kernels.compiled import Compilation
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation


@implementation(
    "attention",
    "triton_unified_max",
    devices=("cuda",),
    precisions=("float32", "bfloat16", "float16"),
    papers=("flashdecoding-pp",),
)
def prepare(problem: Attention, constants: Tensors, context: Context) -> Run:
    """Decode in parts, prefill in one; ``splits`` and ``phi`` (in units of the scores, default 0) from the config."""
    if problem.transform != "softmax":
        raise Unsupported(f"a unified maximum is of softmax; {problem.transform} has no maximum")
    shape = shape_of(problem)
    config = {**default_config(shape, architecture_of(context)), **context.config}
    fold = shape.group if problem.q_length == 1 else 1
    splits = config.get("splits") or (shape.parts(fold, config["block_m"]) if problem.q_length == 1 else 1)
    return launcher(shape, "unified_max", config, context.device, fold=fold, splits=splits)


def compilations() -> tuple[Compilation, ...]:
    """Decode in 16 parts with their combination, causal prefill, and prefill of the flagged rows."""
    decode, causal = model_shape(1, "float16"), model_shape(4096, "bfloat16", causal=True)
    return (
        *shipped("attention split unified_max", decode, "unified_max", default_config, fold=4, splits=16),
        combine_ahead_of_time("attention combine unified_max", "float16", 128, 16, "unified_max"),
        *shipped("attention prefill unified_max", causal, "unified_max", default_config, fold=1, flags="write"),
        *shipped("attention prefill flagged", causal, "softmax", default_config, fold=1, flags="read"),
    )
