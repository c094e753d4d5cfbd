"""``attention`` in Triton with tiles of K and V that the memory system copies by descriptor (TMA on sm_90 and later).

Pointers make every thread compute addresses and issue copies of 16 bytes, which pass the load/store pipe that also feeds
the matrix unit its operands from shared memory; a descriptor is one instruction a tile. From the machine code, at bf16 and
d = 128, that pipe then no longer bounds the main loop: at most 98 % of the matrix roof instead of 60 % on sm_100 (where
the exponentials of the softmax come next), 100 % instead of 73 % or 90 % on sm_90, if all pipes overlap perfectly. On an
H200 it is 1.18 times as fast as pointers with the same tile at d = 128 without a mask, and as fast under a causal one. On
architectures without such copies Triton turns a descriptor back into pointers.

Without any overlap the bounds are 28 % and 38 %. What kernels of the class of FlashAttention-3 (Shah et al. 2024) do beyond
this, and this one does not, is about overlap: warps that only copy (warp specialisation), two groups of warps that take
turns so that one computes a softmax while the other multiplies (ping-pong), the softmax of a block beside the product of
the next within a group; and FlashAttention-4 emulates a part of the exponentials on the FMA pipe, for sm_100.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ridgeline.analytical.operators import Attention
from ridgeline.kernels.attention.launch import Shape, ahead_of_time, launcher
from ridgeline.kernels.attention.triton_flash import architecture_of, model_shape, shape_of
from ridgeline.kernels.compiled import Compilation
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation

CONFIGS: tuple[dict[str, int], ...] = (
    {"block_m": 128, "block_n": 128, "num_warps": 8, "num_stages": 2, "bulk": 1},
    {"block_m": 128, "block_n": 64, "num_warps": 8, "num_stages": 3, "bulk": 1},
    {"block_m": 128, "block_n": 64, "num_warps": 8, "num_stages": 2, "bulk": 1},
    {"block_m": 64, "block_n": 128, "num_warps": 4, "num_stages": 2, "bulk": 1},
    {"block_m": 64, "block_n": 64, "num_warps": 4, "num_stages": 3, "bulk": 1},
)
"""Tuning space: the first for softmax with d up to 128; the second for sigmoid, whose first spills on sm_100; the third
for larger d, where shared memory holds no more; the last two for sm_90 with d up to 64 and up to 128. On an H200, 8192 x 8192
of 16 heads in bfloat16, TFLOP/s with the first and with these: d 64 296 and 448, causal 252 and 389; d 128 450 and 491, causal
382 and 472."""


def default_config(shape: Shape, transform: str, architecture: str) -> dict[str, int]:
    """What was fastest on sm_90; elsewhere by head dimension and transform."""
    if architecture == "sm_90" and shape.head_dim <= 128:
        return dict(CONFIGS[3 if shape.head_dim <= 64 else 4])
    return dict(CONFIGS[2 if shape.head_dim > 128 else 0 if transform == "softmax" else 1])


@implementation("attention", "triton_bulk", devices=("cuda",), precisions=("bfloat16", "float16"))
def prepare(problem: Attention, constants: Tensors, context: Context) -> Run:
    """Prefill: one program for all keys of a tile of one head's queries. Tiles from ``context.config`` as in CONFIGS."""
    if problem.head_dim % 8:
        raise Unsupported(
            f"a descriptor wants rows of a multiple of 16 bytes: {problem.head_dim} values of 2 bytes are none"
        )
    shape = shape_of(problem)
    config = {**default_config(shape, problem.transform, architecture_of(context)), **context.config}
    return launcher(shape, problem.transform, config, context.device, fold=1, score_bias=problem.score_bias)


def configurations(problem: Attention) -> Sequence[Mapping[str, int]]:
    """Tuning space of a problem: every tile."""
    return CONFIGS


def compilation(problem: Attention, config: Mapping[str, int]) -> Compilation:
    """One tile of the space, as it would be compiled."""
    return ahead_of_time("attention", shape_of(problem), problem.transform, config, fold=1)


TARGETS = ("sm_90", "sm_100")
"""Those whose copies take descriptors and whose matrix unit reads shared memory. sm_120's reads registers."""


def compilations() -> tuple[Compilation, ...]:
    """Causal prefill with either transform."""
    causal = model_shape(4096, "bfloat16", causal=True)
    return tuple(
        ahead_of_time(f"attention prefill bulk {transform}", causal, transform, config, fold=1, targets=TARGETS)
        for transform, config in (("softmax", CONFIGS[0]), ("softmax", CONFIGS[1]), ("sigmoid", CONFIGS[1]))
    ) + tuple(
        ahead_of_time(f"attention prefill bulk {transform}", causal, transform, CONFIGS[4], fold=1, targets=("sm_90",))
        for transform in ("softmax", "sigmoid")
    )
