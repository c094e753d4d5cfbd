"""``attention`` in Triton with a softmax over a fixed maximum (FlashDecoding++, Hong et al. 2024): no rescaling.

Weights are 2^(score - phi) with one phi for all rows, so numerators and denominators of parts are plain sums. A row whose
sum leaves the range in which that is exact is flagged, and a second launch computes the flagged rows, and those alone,
with the online softmax. The paper's criterion is a range of the scores; here it is that of the sum, which bounds every
weight and costs nothing in the loop. ``tl.dot`` takes at least 16 rows: a decode tile is padded to 16, not to the
paper's 8.
"""

from __future__ import annotations

from ridgeline.analytical.operators import Attention
from ridgeline.kernels.attention.launch import combine_compilation, compilation, launcher
from ridgeline.kernels.attention.triton_flash import CONFIGS, default_config, model_shape, shape_of
from ridgeline.kernels.compiled import Compilation, local_architecture
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
    architecture = local_architecture() if context.device == "cuda" else ""
    config = {**default_config(problem, architecture), **context.config}
    shape = shape_of(problem)
    fold = shape.group if problem.q_length == 1 else 1
    splits = config.get("splits") or (shape.parts(fold, config["block_m"]) if problem.q_length == 1 else 1)
    return launcher(shape, "unified_max", config, context.device, fold=fold, splits=splits)


def compilations() -> tuple[Compilation, ...]:
    """Decode in 16 parts with their combination, causal prefill, and prefill of the flagged rows."""
    decode, prefill = CONFIGS["decode"][1], CONFIGS["prefill"][3]
    causal = model_shape(4096, "bfloat16", causal=True)
    return (
        compilation(
            "attention split unified_max", model_shape(1, "float16"), "unified_max", decode, fold=4, splits=16
        ),
        combine_compilation("attention combine unified_max", "float16", 128, 16, "unified_max"),
        compilation("attention prefill unified_max", causal, "unified_max", prefill, fold=1, flags="write"),
        compilation("attention prefill flagged", causal, "softmax", prefill, fold=1, flags="read"),
    )
