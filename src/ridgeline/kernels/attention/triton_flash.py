"""``attention`` in Triton: one tile loop over the keys, with the score transform as a plug-in.

Softmax is the online softmax of FlashAttention-2 (Dao 2023, section 3.1: unscaled accumulator, one division at the
end); sigmoid is FlashSigmoid (Ramapuram et al. 2024, section 4), which needs neither row maximum nor row sum. A new
transform is one ``(weights, accumulator, maximum, total)`` function and one ``finish`` function.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl

from ridgeline.analytical.operators import Attention
from ridgeline.kernels.compiled import Compilation, local_architecture
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation

LOG2_E = math.log2(math.e)
"""Scores are kept in units of log2, because the hardware's exponential is 2^x."""


@triton.jit
def online_softmax(scores, accumulator, maximum, total, bias):
    """Weights 2^(scores - running maximum); what was accumulated under an older maximum is rescaled."""
    new_maximum = tl.maximum(maximum, tl.max(scores, axis=1))
    # A row that has seen no key yet has the maximum -inf, and -inf - -inf is not a number.
    reference = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
    weights = tl.exp2(scores - reference[:, None])
    rescale = tl.exp2(maximum - reference)
    return weights, accumulator * rescale[:, None], new_maximum, total * rescale + tl.sum(weights, axis=1)


@triton.jit
def finish_softmax(accumulator, total):
    """Divide by the row sum; a row that saw no key gives zeros."""
    return accumulator / tl.where(total == 0.0, 1.0, total)[:, None]


@triton.jit
def sigmoid(scores, accumulator, maximum, total, bias):
    """Weights 256 / (1 + 2^-(scores + bias)); a masked score of -inf gives 256 / inf = 0.

    A weight is about 1 / kv_length, which float16 holds only as a subnormal beyond 16384 keys: hence the factor.
    """
    return 256.0 / (1.0 + tl.exp2(-(scores + bias))), accumulator, maximum, total


@triton.jit
def finish_sigmoid(accumulator, total):
    """Take the factor out again."""
    return accumulator * (1.0 / 256.0)


@triton.jit
def load(pointers, mask, NEEDED: tl.constexpr):
    """A tile, with zeros where the mask is false; without looking at the mask where it is not needed."""
    if NEEDED:
        tile = tl.load(pointers, mask=mask, other=0.0)
    else:
        tile = tl.load(pointers)
    return tile


@triton.jit
def attend(
    q,  # [BLOCK_M, BLOCK_D]
    k,  # pointers to K[key 0 .. BLOCK_N - 1] transposed, [BLOCK_D, BLOCK_N]
    v,  # pointers to V[key 0 .. BLOCK_N - 1], [BLOCK_N, BLOCK_D]
    last_key,  # [BLOCK_M]: the last key that each row sees; negative for none
    in_head,  # [BLOCK_D]
    accumulator,
    maximum,
    total,
    begin,
    end,
    scale,
    bias,
    D: tl.constexpr,
    TRANSFORM: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
):
    """Take in keys [begin, end). With MASKED, each row sees keys up to its last one; without, all of them."""
    key = tl.arange(0, BLOCK_N)
    NEEDED: tl.constexpr = MASKED or q.shape[1] != D  # q is padded to a power of two
    for start in range(begin, end, BLOCK_N):
        offset = tl.cast(start, tl.int64) * D
        in_keys = key < end - start
        k_tile = load(k + offset, in_head[:, None] & in_keys[None, :], NEEDED)
        scores = tl.dot(q, k_tile, input_precision=INPUT_PRECISION) * scale
        if MASKED:
            scores = tl.where(start + key[None, :] <= last_key[:, None], scores, float("-inf"))
        weights, accumulator, maximum, total = TRANSFORM(scores, accumulator, maximum, total, bias)
        v_tile = load(v + offset, in_keys[:, None] & in_head[None, :], NEEDED)
        accumulator = tl.dot(weights.to(v_tile.dtype), v_tile, accumulator, input_precision=INPUT_PRECISION)
    return accumulator, maximum, total


@triton.jit
def flash_kernel(
    q_ptr,  # [batch, q_heads, T, D]
    k_ptr,  # [batch, q_heads / GROUP, S, D]
    v_ptr,  # [batch, q_heads / GROUP, S, D]
    out_ptr,  # [batch, q_heads, T, D]
    T,
    S,
    scale,  # of the scores, times log2(e)
    bias,  # in units of log2
    D: tl.constexpr,
    GROUP: tl.constexpr,  # query heads of one KV head
    FOLD: tl.constexpr,  # query heads in one M tile: 1 or GROUP
    CAUSAL: tl.constexpr,
    TRANSFORM: tl.constexpr,
    FINISH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
):
    """Row r of the tiles of one program column is query r // FOLD of head r % FOLD: folded heads share the KV reads."""
    rows = T * FOLD
    tiles = tl.cdiv(rows, BLOCK_M)
    heads = (tl.program_id(0) // tiles).to(tl.int64)  # which FOLD heads, over the batch
    # The last tiles of a causal mask are the longest: start them first.
    tile = tiles - 1 - tl.program_id(0) % tiles
    row = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    query = row // FOLD
    d = tl.arange(0, BLOCK_D)
    in_row, in_head = row < rows, d < D
    q_offset = ((heads * FOLD + row % FOLD) * T + query)[:, None] * D + d[None, :]
    kv_base = (heads * FOLD // GROUP) * S * D
    q = tl.load(q_ptr + q_offset, mask=in_row[:, None] & in_head[None, :], other=0.0)
    k = k_ptr + kv_base + tl.arange(0, BLOCK_N)[None, :] * D + d[:, None]
    v = v_ptr + kv_base + tl.arange(0, BLOCK_N)[:, None] * D + d[None, :]

    last_key = tl.full((BLOCK_M,), S - 1, dtype=tl.int32)
    whole = S // BLOCK_N * BLOCK_N  # keys of tiles without a mask
    end = S
    if CAUSAL:  # aligned bottom-right: query t sees key s where s <= t + S - T
        last_key = query + (S - T)
        first_query = tile * BLOCK_M // FOLD
        last_query = tl.minimum(tile * BLOCK_M + BLOCK_M - 1, rows - 1) // FOLD
        whole = tl.maximum(first_query + S - T + 1, 0) // BLOCK_N * BLOCK_N
        end = tl.maximum(last_query + S - T + 1, 0)

    accumulator = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    maximum = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    accumulator, maximum, total = attend(
        q, k, v, last_key, in_head, accumulator, maximum, total, 0, whole, scale, bias,
        D, TRANSFORM, False, BLOCK_N, INPUT_PRECISION,
    )  # fmt: skip
    accumulator, maximum, total = attend(
        q, k, v, last_key, in_head, accumulator, maximum, total, whole, end, scale, bias,
        D, TRANSFORM, True, BLOCK_N, INPUT_PRECISION,
    )  # fmt: skip
    result = FINISH(accumulator, total)
    tl.store(out_ptr + q_offset, result.to(out_ptr.dtype.element_ty), mask=in_row[:, None] & in_head[None, :])


TRANSFORMS: Mapping[str, tuple[Any, Any]] = {
    "softmax": (online_softmax, finish_softmax),
    "sigmoid": (sigmoid, finish_sigmoid),
    "sigmoid_without_bias": (sigmoid, finish_sigmoid),
}
"""Plug-ins by the problem's ``transform``: what turns scores into weights, and what ends a row."""

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


def meta(
    head_dim: int, group: int, fold: int, causal: bool, transform: str, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Compile-time parameters of the kernel."""
    update, finish = TRANSFORMS[transform]
    return {
        "D": head_dim,
        "GROUP": group,
        "FOLD": fold,
        "CAUSAL": causal,
        "TRANSFORM": update,
        "FINISH": finish,
        "BLOCK_M": config["block_m"],
        "BLOCK_N": config["block_n"],
        "BLOCK_D": max(16, triton.next_power_of_2(head_dim)),
        "INPUT_PRECISION": config.get("input_precision", "ieee"),
    }


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
    if problem.window is not None:
        raise Unsupported("has no sliding window")
    architecture = local_architecture() if context.device == "cuda" else ""
    config = {**default_config(problem, architecture), **context.config}
    t, s = problem.q_length, problem.kv_length
    group = problem.q_heads // problem.kv_heads
    fold = group if config.get("fold", t == 1) else 1
    grid = (triton.cdiv(t * fold, config["block_m"]) * (problem.batch * problem.q_heads // fold),)
    scale = LOG2_E / math.sqrt(problem.head_dim)
    bias = problem.score_bias * LOG2_E
    # With one query aligned bottom-right, the causal mask hides nothing.
    causal = problem.causal and t > 1
    options = {
        **meta(problem.head_dim, group, fold, causal, problem.transform, config),
        "num_warps": config["num_warps"],
        "num_stages": config["num_stages"],
    }
    if context.device == "cuda":  # compile here, so that the time is prepare's
        types = [getattr(torch, problem.precision)] * 4
        flash_kernel.warmup(*types, t, s, scale, bias, grid=grid, **options)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        flash_kernel[grid](inputs["q"], inputs["k"], inputs["v"], out, t, s, scale, bias, **options)

    return run


WIDE = ("sm_90", "sm_100", "gfx942", "gfx950")
NARROW = ("sm_80", "sm_89", "sm_120")
"""Targets that the first two prefill tiles are for."""


def compilations() -> tuple[Compilation, ...]:
    """What is compiled ahead of time: causal prefill with either transform, and decode over 4 folded heads."""
    wide, narrow, _, hopper = CONFIGS["prefill"]
    decode, hopper_decode = CONFIGS["decode"]
    return (
        _compilation("prefill softmax", "bf16", meta(128, 4, 1, True, "softmax", hopper), hopper, ("sm_90",)),
        _compilation("prefill sigmoid", "bf16", meta(128, 4, 1, True, "sigmoid", hopper), hopper, ("sm_90",)),
        _compilation(
            "decode softmax", "fp16", meta(128, 4, 4, False, "softmax", hopper_decode), hopper_decode, ("sm_90",)
        ),
        _compilation("prefill softmax", "bf16", meta(128, 4, 1, True, "softmax", wide), wide, WIDE),
        _compilation("prefill softmax", "bf16", meta(128, 4, 1, True, "softmax", narrow), narrow, NARROW),
        _compilation("prefill sigmoid", "bf16", meta(128, 4, 1, True, "sigmoid", wide), wide, WIDE),
        _compilation("prefill sigmoid", "bf16", meta(128, 4, 1, True, "sigmoid", narrow), narrow, NARROW),
        _compilation("decode softmax", "fp16", meta(128, 4, 4, False, "softmax", decode), decode, ()),
    )


def _compilation(
    label: str, dtype: str, constexprs: dict[str, Any], config: Mapping[str, int], targets: tuple[str, ...]
) -> Compilation:
    pointers = ("q_ptr", "k_ptr", "v_ptr", "out_ptr")
    return Compilation(
        kernel=flash_kernel,
        label=f"attention {label} {dtype} d{constexprs['D']} {config['block_m']}x{config['block_n']}",
        signature={
            **dict.fromkeys(pointers, f"*{dtype}"),
            "T": "i32",
            "S": "i32",
            "scale": "fp32",
            "bias": "fp32",
        },
        constexprs=constexprs,
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        # Decode has a query length of 1, not a multiple of 16; the launcher makes it a constant.
        aligned=(*pointers, "S") if constexprs["FOLD"] > 1 else (*pointers, "T", "S"),
        targets=targets,
    )
