"""``quantised_attention`` in Triton: Q K^T on the integer matrix unit, P V on that of float16, bfloat16 or FP8.

SageAttention2 (Zhang et al. 2024, sections 3.1 to 3.3): scales are applied to the integer scores, with the correction of
smoothed Q added; for FP8, P is raised to the format's largest number by the exponent, and each tile's product with V is
added to a float32 accumulator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl

from ridgeline.analytical.operators import QuantisedAttention
from ridgeline.analytical.operators.quantised_attention import KEY_GROUPING, QUERY_BLOCK, QUERY_GROUPING
from ridgeline.kernels.attention.flash import load
from ridgeline.kernels.compiled import Compilation, has_float8, local_architecture
from ridgeline.kernels.quantised_attention.quantise import LARGEST
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation

LOG2_E = math.log2(math.e)


@triton.jit
def attend_quantised(
    q,  # [BLOCK_M, BLOCK_D], integers
    q_scale,  # [BLOCK_M], times log2(e) / sqrt(D)
    k,  # pointers to K[key 0 .. BLOCK_N - 1] transposed, [BLOCK_D, BLOCK_N]
    k_scale,  # pointer to the scales of the head's groups
    v,  # pointers to V[key 0 .. BLOCK_N - 1], [BLOCK_N, BLOCK_D]
    correction,  # pointer to the correction of this tile's queries and key 0
    correction_scale,
    last_key,  # [BLOCK_M]: the last key that each row sees; negative for none
    in_head,  # [BLOCK_D]
    accumulator,
    maximum,
    total,
    begin,
    end,
    D: tl.constexpr,
    K_ROWS: tl.constexpr,
    K_CLASSES: tl.constexpr,
    K_RUN: tl.constexpr,
    CORRECTED: tl.constexpr,
    RAISED: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Take in keys [begin, end) by online softmax. With MASKED, each row sees keys up to its last one; without, all.

    Of FP8 products the matrix unit of sm_90 keeps about 14 bits of a sum: a tile's go into the float32 accumulator by an
    addition of their own. Without that, outputs over 8192 keys were off by 2.6 % on an H200.
    """
    key = tl.arange(0, BLOCK_N)
    IMPRECISE: tl.constexpr = (
        BLOCK_N if RAISED > 0.0 else 0
    )  # terms that the unit sums up by itself; Triton's 0 for halves
    NEEDED: tl.constexpr = MASKED or q.shape[1] != D  # D is padded to a power of two
    for start in range(begin, end, BLOCK_N):
        offset = tl.cast(start, tl.int64) * D
        in_keys = key < end - start
        k_tile = load(k + offset, in_head[:, None] & in_keys[None, :], NEEDED)
        token = start + key
        group = token // K_ROWS * K_CLASSES + token // K_RUN % K_CLASSES
        scale = load(k_scale + group, in_keys, MASKED)
        scores = tl.dot(q, k_tile, out_dtype=tl.int32).to(tl.float32) * q_scale[:, None] * scale[None, :]
        if CORRECTED:
            scores += load(correction + token, in_keys, MASKED)[None, :] * correction_scale
        if MASKED:
            scores = tl.where(token[None, :] <= last_key[:, None], scores, float("-inf"))
        grown = tl.maximum(maximum, tl.max(scores, axis=1))
        # A row that has seen no key yet has the maximum -inf, and -inf - -inf is not a number.
        base = tl.where(grown == float("-inf"), 0.0, grown)
        weights = tl.exp2(scores - (base - RAISED)[:, None])
        rescale = tl.exp2(maximum - base)
        total = total * rescale + tl.sum(weights, axis=1)
        maximum = grown
        v_tile = load(v + offset, in_keys[:, None] & in_head[None, :], NEEDED)
        accumulator = tl.dot(
            weights.to(v_tile.dtype), v_tile, accumulator * rescale[:, None], max_num_imprecise_acc=IMPRECISE
        )
    return accumulator, maximum, total


@triton.jit
def quantised_kernel(
    q_ptr,  # [batch, q_heads, T, D], integers
    k_ptr,  # [batch, q_heads / GROUP, S, D], integers
    v_ptr,  # [batch, q_heads / GROUP, S, D]
    q_scale_ptr,  # [batch, q_heads, q_groups]
    k_scale_ptr,  # [batch, q_heads / GROUP, k_groups]
    v_scale_ptr,  # [batch, q_heads / GROUP, D] if SCALED
    v_mean_ptr,  # [batch, q_heads / GROUP, D] if MEAN
    correction_ptr,  # [batch, q_heads, blocks of QUERY_BLOCK, S] if CORRECTED
    out_ptr,  # [batch, q_heads, T, D]
    T,
    S,
    q_groups,
    k_groups,
    scale,  # log2(e) / sqrt(D)
    D: tl.constexpr,
    GROUP: tl.constexpr,  # query heads of one KV head
    CAUSAL: tl.constexpr,
    Q_ROWS: tl.constexpr,
    Q_CLASSES: tl.constexpr,
    Q_RUN: tl.constexpr,
    K_ROWS: tl.constexpr,
    K_CLASSES: tl.constexpr,
    K_RUN: tl.constexpr,
    SCALED: tl.constexpr,
    MEAN: tl.constexpr,
    CORRECTED: tl.constexpr,
    RAISED: tl.constexpr,  # exponent that the weights are raised by
    BLOCK_M: tl.constexpr,  # divides QUERY_BLOCK
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    QUERY_BLOCK: tl.constexpr,
):
    """One tile of BLOCK_M queries of a head over all keys that they see."""
    tiles = tl.cdiv(T, BLOCK_M)
    head = (tl.program_id(0) // tiles).to(tl.int64)  # over the batch
    kv_head = head // GROUP
    # The last tiles of a causal mask are the longest: start them first.
    tile = tiles - 1 - tl.program_id(0) % tiles
    query = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    in_rows, in_head = query < T, d < D
    q_offset = (head * T + query)[:, None] * D + d[None, :]
    q = tl.load(q_ptr + q_offset, mask=in_rows[:, None] & in_head[None, :], other=0)
    q_group = query // Q_ROWS * Q_CLASSES + query // Q_RUN % Q_CLASSES
    q_scale = tl.load(q_scale_ptr + head * q_groups + q_group, mask=in_rows, other=0.0) * scale
    k = k_ptr + kv_head * S * D + tl.arange(0, BLOCK_N)[None, :] * D + d[:, None]
    v = v_ptr + kv_head * S * D + tl.arange(0, BLOCK_N)[:, None] * D + d[None, :]
    k_scale = k_scale_ptr + kv_head * k_groups
    correction = correction_ptr
    if CORRECTED:
        correction += (head * tl.cdiv(T, QUERY_BLOCK) + tile * BLOCK_M // QUERY_BLOCK) * S

    last_key = tl.full((BLOCK_M,), S - 1, dtype=tl.int32)
    whole = S // BLOCK_N * BLOCK_N  # keys of tiles without a mask
    end = S
    if CAUSAL:  # aligned bottom-right: query t sees key s where s <= t + S - T
        last_key = query + (S - T)
        whole = tl.maximum(tile * BLOCK_M + S - T + 1, 0) // BLOCK_N * BLOCK_N
        end = tl.maximum(tl.minimum(tile * BLOCK_M + BLOCK_M, T) + S - T, 0)

    accumulator = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    maximum = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    accumulator, maximum, total = attend_quantised(
        q, q_scale, k, k_scale, v, correction, scale, last_key, in_head, accumulator, maximum, total, 0, whole,
        D, K_ROWS, K_CLASSES, K_RUN, CORRECTED, RAISED, False, BLOCK_N,
    )  # fmt: skip
    accumulator, maximum, total = attend_quantised(
        q, q_scale, k, k_scale, v, correction, scale, last_key, in_head, accumulator, maximum, total, whole, end,
        D, K_ROWS, K_CLASSES, K_RUN, CORRECTED, RAISED, True, BLOCK_N,
    )  # fmt: skip
    seeing = total != 0.0
    result = accumulator / tl.where(seeing, total, 1.0)[:, None]
    if SCALED:
        result *= tl.load(v_scale_ptr + kv_head * D + d, mask=in_head, other=0.0)[None, :]
    if MEAN:
        mean = tl.load(v_mean_ptr + kv_head * D + d, mask=in_head, other=0.0)
        result += tl.where(seeing[:, None], mean[None, :], 0.0)
    tl.store(out_ptr + q_offset, result.to(out_ptr.dtype.element_ty), mask=in_rows[:, None] & in_head[None, :])


CONFIGS: Mapping[str, tuple[dict[str, int], ...]] = {
    "prefill": (
        {"block_m": 128, "block_n": 64, "num_warps": 8, "num_stages": 3},
        {"block_m": 128, "block_n": 32, "num_warps": 8, "num_stages": 3},
        {"block_m": 64, "block_n": 64, "num_warps": 4, "num_stages": 3},
        {"block_m": 128, "block_n": 32, "num_warps": 8, "num_stages": 2},
        {"block_m": 128, "block_n": 128, "num_warps": 8, "num_stages": 3},
        {"block_m": 128, "block_n": 64, "num_warps": 4, "num_stages": 3},
    ),
    "decode": ({"block_m": 16, "block_n": 64, "num_warps": 4, "num_stages": 3},),
}
"""Tuning space by regime. Prefill: for sm_100, whose matrix unit reads its operands from shared and tensor memory, for
those that keep them in registers, for sm_90, for AMD, where the first spills, and for sm_90 with V in FP8. On an H200, 8192 x
8192 of 16 heads, TOP/s with the third and the fifth: V in float16 368 and 305 at d 64, 458 and 460 at d 128; in FP8 214 and 229,
167 and 244. The last is for tuning alone: 533 at d 128 with V in float16, although it spills 208 bytes."""

VALUES = {"float16": "fp16", "bfloat16": "bf16", "float8_e4m3fn": "fp8e4nv"}
"""Triton's names of what V may be in."""


def default_config(problem: QuantisedAttention, architecture: str) -> dict[str, int]:
    """The tile for a target; 64 queries where there are few of them."""
    if problem.q_length <= 16:
        return dict(CONFIGS["decode"][0])
    wide, narrow, hopper, amd, eight_bits, _tall = CONFIGS["prefill"]
    if architecture.startswith("gfx"):
        return dict(amd)
    if architecture == "sm_90" and problem.values == "float8_e4m3fn" and problem.q_length > 64:
        return dict(eight_bits)
    if architecture == "sm_90" or problem.q_length <= 64:
        return dict(hopper)
    return dict(narrow if architecture.startswith(("sm_8", "sm_12")) else wide)


def meta(problem: QuantisedAttention, config: Mapping[str, Any]) -> dict[str, Any]:
    """Compile-time parameters of the kernel."""
    q_grouping, k_grouping = QUERY_GROUPING[problem.granularity], KEY_GROUPING[problem.granularity]
    eight_bits = problem.values == "float8_e4m3fn"
    return {
        "D": problem.head_dim,
        "GROUP": problem.q_heads // problem.kv_heads,
        "CAUSAL": problem.causal and problem.q_length > 1,  # one query aligned bottom-right sees all keys
        "Q_ROWS": q_grouping.rows,
        "Q_CLASSES": q_grouping.classes,
        "Q_RUN": q_grouping.run,
        "K_ROWS": k_grouping.rows,
        "K_CLASSES": k_grouping.classes,
        "K_RUN": k_grouping.run,
        "SCALED": eight_bits,
        "MEAN": problem.smooth_v,
        "CORRECTED": problem.smooth_q,
        "RAISED": math.log2(LARGEST["float8_e4m3fn"]) if eight_bits else 0.0,
        "BLOCK_M": config["block_m"],
        "BLOCK_N": config["block_n"],
        "BLOCK_D": max(32, triton.next_power_of_2(problem.head_dim)),  # an integer product is 32 deep
        "QUERY_BLOCK": QUERY_BLOCK,
    }


@implementation("quantised_attention", "triton", devices=("cuda",), papers=("sageattention2",))
def prepare(problem: QuantisedAttention, constants: Tensors, context: Context) -> Run:
    """Tiles from ``context.config``, keys as in ``CONFIGS``."""
    if problem.scores != "int8":
        name = "INT4" if problem.scores == "int4" else "FP8"
        raise Unsupported(
            f"scores of {name}: Triton's integer product is of int8; the speed of {name} is only modelled"
        )
    if problem.values not in VALUES:
        raise Unsupported(f"V in {problem.values}: the kernel takes {', '.join(VALUES)}")
    on_gpu = context.device == "cuda"
    architecture = local_architecture() if on_gpu else ""
    if problem.values == "float8_e4m3fn" and on_gpu and not has_float8(architecture):
        raise Unsupported(f"{architecture} has no float8_e4m3fn matrix unit: sm_89 and later, gfx950")
    config = {**default_config(problem, architecture), **context.config}
    if QUERY_BLOCK % config["block_m"]:
        raise Unsupported(f"block_m {config['block_m']}: must divide the {QUERY_BLOCK} queries of a smoothed block")
    t, s = problem.q_length, problem.kv_length
    q_groups = int(QUERY_GROUPING[problem.granularity].groups(t))
    k_groups = int(KEY_GROUPING[problem.granularity].groups(s))
    scale = LOG2_E / math.sqrt(problem.head_dim)
    grid = (triton.cdiv(t, config["block_m"]) * problem.batch * problem.q_heads,)
    options = {**meta(problem, config), "num_warps": config["num_warps"], "num_stages": config["num_stages"]}
    if on_gpu:  # compile here, so that the time is prepare's
        values, floats = getattr(torch, problem.values), [torch.float32] * 5
        types = [torch.int8, torch.int8, values, *floats, getattr(torch, problem.precision)]
        quantised_kernel.warmup(*types, t, s, q_groups, k_groups, scale, grid=grid, **options)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        unused = inputs["q_scale"]  # an address for what this problem does not have
        quantised_kernel[grid](
            inputs["q"], inputs["k"], inputs["v"], inputs["q_scale"], inputs["k_scale"],
            inputs.get("v_scale", unused), inputs.get("v_mean", unused), inputs.get("correction", unused), out,
            t, s, q_groups, k_groups, scale, **options,
        )  # fmt: skip

    return run


TARGETS = (("sm_100",), ("sm_80", "sm_89", "sm_120"), ("sm_90",), ("gfx942", "gfx950"))
"""Targets of each prefill tile; for V in FP8, those of them that have it."""


def compilations() -> tuple[Compilation, ...]:
    """What is compiled ahead of time: causal prefill with V in float16, and with V in FP8 and all that smoothing adds;
    decode with V in float16."""
    half = {"values": "float16", "precision": "float16"}
    eight = {"values": "float8_e4m3fn", "precision": "float16", "smooth_q": True, "smooth_v": True}
    prefills = (
        _compilation("prefill", 64, options, CONFIGS["prefill"][tile], targets)
        for options, tiles in ((half, (0, 1, 2, 3)), (eight, (0, 1, 4, 3)))
        for tile, targets in zip(tiles, TARGETS, strict=True)
    )
    return (*prefills, _compilation("decode", 1, half, CONFIGS["decode"][0], ()))


def _compilation(
    regime: str, q_length: int, options: Mapping[str, Any], config: Mapping[str, int], targets: tuple[str, ...]
) -> Compilation:
    problem = QuantisedAttention(
        batch=1, q_heads=4, kv_heads=1, q_length=q_length, kv_length=64, head_dim=128, causal=True, **options
    )
    values = problem.values
    integers, floats = ("q_ptr", "k_ptr"), ("q_scale_ptr", "k_scale_ptr", "v_scale_ptr", "v_mean_ptr", "correction_ptr")
    pointers = (*integers, "v_ptr", *floats, "out_ptr")
    return Compilation(
        kernel=quantised_kernel,
        label=f"quantised_attention {regime} int8/{values} d{problem.head_dim} {config['block_m']}x{config['block_n']}",
        signature={
            **dict.fromkeys(integers, "*i8"),
            "v_ptr": f"*{VALUES[values]}",
            **dict.fromkeys(floats, "*fp32"),
            "out_ptr": "*fp16",
            **dict.fromkeys(("T", "S", "q_groups", "k_groups"), "i32"),
            "scale": "fp32",
        },
        constexprs=meta(problem, config),
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        # One query is not a multiple of 16; the launcher makes it a constant.
        aligned=(*pointers, "S") if q_length == 1 else (*pointers, "T", "S"),
        targets=tuple(name for name in targets if values != "float8_e4m3fn" or has_float8(name)),
    )
