"""``block_sparse_attention`` in Triton: one program for each tile of queries, which walks the lists of its block.

The loop is FlashAttention's over listed tiles, as in S2-Attention (Lin et al. 2024, section 4) and MInference (Jiang et
al. 2024, section 3.3): first blocks, whose keys lie side by side, then single keys, whose rows are gathered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl

from ridgeline.analytical.operators import BlockSparseAttention
from ridgeline.kernels.attention.launch import LOG2_E
from ridgeline.kernels.attention.transforms import divided, online_softmax
from ridgeline.kernels.compiled import Compilation, local_architecture
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation


@triton.jit
def take_in(
    q,  # [BLOCK_M, BLOCK_D]
    k_ptr,  # of the KV head
    v_ptr,
    keys,  # [BLOCK_N]: which keys
    in_keys,  # [BLOCK_N]: which of them there are
    last_key,  # [BLOCK_M]: the last key that each query sees
    accumulator,
    maximum,
    total,
    scale,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MASKED: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
):
    """One tile. Without MASKED every query sees every key of it."""
    d = tl.arange(0, BLOCK_D)
    offset = keys.to(tl.int64)[:, None] * D + d[None, :]
    if MASKED:
        needed = in_keys[:, None] & (d < D)[None, :]
        k = tl.load(k_ptr + offset, mask=needed, other=0.0)
    elif D != BLOCK_D:
        needed = (d < D)[None, :] & (keys >= 0)[:, None]
        k = tl.load(k_ptr + offset, mask=needed, other=0.0)
    else:
        k = tl.load(k_ptr + offset)
    scores = tl.dot(q, tl.trans(k), input_precision=INPUT_PRECISION) * scale
    if MASKED:
        scores = tl.where(in_keys[None, :] & (keys[None, :] <= last_key[:, None]), scores, float("-inf"))
    weights, accumulator, maximum, total = online_softmax(scores, accumulator, maximum, total, 0.0)
    if MASKED or D != BLOCK_D:
        v = tl.load(v_ptr + offset, mask=needed, other=0.0)
    else:
        v = tl.load(v_ptr + offset)
    accumulator = tl.dot(weights.to(v.dtype), v, accumulator, input_precision=INPUT_PRECISION)
    return accumulator, maximum, total


@triton.jit
def block_sparse_kernel(
    q_ptr,  # [heads, T, D]
    k_ptr,  # [heads / GROUP, S, D]
    v_ptr,  # [heads / GROUP, S, D]
    row_starts_ptr,  # [heads, rows + 1]
    block_keys_ptr,
    column_starts_ptr,  # [heads, rows + 1]
    columns_ptr,
    out_ptr,  # [heads, T, D]
    T,
    S,
    rows,  # blocks of queries
    scale,  # of the scores, times log2(e)
    D: tl.constexpr,
    GROUP: tl.constexpr,  # query heads of one KV head
    BLOCK: tl.constexpr,  # keys, and queries, that share a list
    CAUSAL: tl.constexpr,
    COLUMNS: tl.constexpr,  # whether single keys are listed
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
):
    """BLOCK_M and BLOCK_N divide BLOCK: a block of queries is taken by BLOCK / BLOCK_M programs."""
    tiles: tl.constexpr = BLOCK // BLOCK_M
    parts: tl.constexpr = BLOCK // BLOCK_N
    head = (tl.program_id(0) // (rows * tiles)).to(tl.int64)
    # The last rows of a causal mask are the longest: start them first.
    tile = rows * tiles - 1 - tl.program_id(0) % (rows * tiles)
    row = tile // tiles
    query = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    d, n = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    in_tile = (query < T)[:, None] & (d < D)[None, :]
    q_offset = (head * T + query)[:, None] * D + d[None, :]
    q = tl.load(q_ptr + q_offset, mask=in_tile, other=0.0)
    k_head = k_ptr + head // GROUP * S * D
    v_head = v_ptr + head // GROUP * S * D
    last_key = tl.full((BLOCK_M,), S - 1, dtype=tl.int32)
    if CAUSAL:
        last_key = query + (S - T)

    accumulator = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    maximum = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    starts = row_starts_ptr + head * (rows + 1) + row
    begin, end = tl.load(starts), tl.load(starts + 1)
    # Blocks are disjoint and ascending: at most the last two reach beyond the first query, or beyond the last key.
    whole = tl.maximum(begin, end - 2)
    for i in range(begin * parts, whole * parts):
        keys = tl.load(block_keys_ptr + i // parts) + i % parts * BLOCK_N + n
        accumulator, maximum, total = take_in(
            q, k_head, v_head, keys, n >= 0, last_key, accumulator, maximum, total, scale,
            D, BLOCK_D, False, INPUT_PRECISION,
        )  # fmt: skip
    for i in range(whole * parts, end * parts):
        keys = tl.load(block_keys_ptr + i // parts) + i % parts * BLOCK_N + n
        accumulator, maximum, total = take_in(
            q, k_head, v_head, keys, keys < S, last_key, accumulator, maximum, total, scale,
            D, BLOCK_D, True, INPUT_PRECISION,
        )  # fmt: skip
    if COLUMNS:
        starts = column_starts_ptr + head * (rows + 1) + row
        begin, end = tl.load(starts), tl.load(starts + 1)
        for i in range(begin, end, BLOCK_N):
            there = i + n < end
            keys = tl.load(columns_ptr + i + n, mask=there, other=0)
            accumulator, maximum, total = take_in(
                q, k_head, v_head, keys, there, last_key, accumulator, maximum, total, scale,
                D, BLOCK_D, True, INPUT_PRECISION,
            )  # fmt: skip
    result = divided(accumulator, total)
    tl.store(out_ptr + q_offset, result.to(out_ptr.dtype.element_ty), mask=in_tile)


CONFIGS: Mapping[str, tuple[dict[str, int], ...]] = {
    "half": (
        {"block_m": 64, "block_n": 64, "num_warps": 4, "num_stages": 2},
        {"block_m": 64, "block_n": 64, "num_warps": 8, "num_stages": 2},
        {"block_m": 64, "block_n": 32, "num_warps": 4, "num_stages": 3},
        {"block_m": 64, "block_n": 64, "num_warps": 4, "num_stages": 3},
    ),
    # Without TF32, float32 products run on the vector lanes and hold their operands in registers.
    "float32": (
        {"block_m": 32, "block_n": 32, "num_warps": 4, "num_stages": 2},
        {"block_m": 32, "block_n": 16, "num_warps": 8, "num_stages": 2},
    ),
}
"""Tuning space by width of the operands; :func:`default_config` says which is whose. On an H200 the last of half, at S 64k
and d 128: 390 TFLOP/s on S2-Attention's blocks against 351 with the first, 269 against 218 on MInference's lines."""


def default_config(problem: BlockSparseAttention, architecture: str = "") -> dict[str, int]:
    """What was fastest on sm_90; elsewhere the largest tile that the architecture holds without spilling registers. Cut to the
    problem's block."""
    if problem.precision == "float32":
        config = CONFIGS["float32"][problem.head_dim > 64]
    else:
        # mma.sync of sm_8x and sm_12x keeps operands and accumulators in registers; wgmma and tcgen05 do not.
        wide, ampere, narrow, hopper = CONFIGS["half"]
        config = ampere if architecture.startswith("sm_8") else narrow if architecture.startswith("sm_12") else wide
        config = hopper if architecture == "sm_90" else config
        config = narrow if problem.head_dim > 128 else config
    return {**config, **{name: min(config[name], problem.block) for name in ("block_m", "block_n")}}


def meta(
    head_dim: int, group: int, block: int, causal: bool, columns: bool, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Compile-time parameters of the kernel."""
    return {
        "D": head_dim,
        "GROUP": group,
        "BLOCK": block,
        "CAUSAL": causal,
        "COLUMNS": columns,
        "BLOCK_M": config["block_m"],
        "BLOCK_N": config["block_n"],
        "BLOCK_D": max(16, triton.next_power_of_2(head_dim)),
        "INPUT_PRECISION": config.get("input_precision", "ieee"),
    }


@implementation(
    "block_sparse_attention",
    "triton",
    devices=("cuda",),
    precisions=("float32", "bfloat16", "float16"),
    papers=("s2-attention", "qwen25-1m"),
)
def prepare(problem: BlockSparseAttention, constants: Tensors, context: Context) -> Run:
    """Tiles from ``context.config`` (keys as in ``CONFIGS``); they must divide the problem's block."""
    block = problem.block
    if block < 16 or block & (block - 1):
        raise Unsupported(f"takes blocks of 16, 32, 64, ... keys, not {block}: its tiles are powers of two from 16")
    architecture = local_architecture() if context.device == "cuda" else ""
    config = {**default_config(problem, architecture), **context.config}
    if block % config["block_m"] or block % config["block_n"]:
        raise Unsupported(f"tiles of {config['block_m']}x{config['block_n']} do not divide blocks of {block}")
    heads, rows, columns = problem.batch * problem.q_heads, problem.block_rows, problem.pattern == "lines"
    grid = (heads * rows * (block // config["block_m"]),)
    scale = LOG2_E / math.sqrt(problem.head_dim)
    sizes = (problem.queries, problem.length, rows, scale)
    options = {
        **meta(problem.head_dim, problem.q_heads // problem.kv_heads, block, problem.causal, columns, config),
        "num_warps": config["num_warps"],
        "num_stages": config["num_stages"],
    }
    if context.device == "cuda":  # compile here, so that the time is prepare's
        dtype = getattr(torch, problem.precision)
        types = [dtype, dtype, dtype, *[torch.int32] * 4, dtype]
        block_sparse_kernel.warmup(*types, *sizes, grid=grid, **options)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        blocks = (inputs["row_starts"], inputs["block_keys"])
        # Without single keys the kernel does not look at their lists.
        singles = (inputs["column_starts"], inputs["columns"]) if columns else blocks
        block_sparse_kernel[grid](inputs["q"], inputs["k"], inputs["v"], *blocks, *singles, out, *sizes, **options)

    return run


WIDE = ("sm_100", "gfx942", "gfx950")
AMPERE = ("sm_80", "sm_89")
NARROW = ("sm_120",)
HOPPER = ("sm_90",)
"""Targets that each tile of half precision is for."""


def compilations() -> tuple[Compilation, ...]:
    """What is compiled ahead of time: blocks alone (S2-Attention), and blocks with single keys (MInference)."""
    halves = tuple(zip(CONFIGS["half"], (WIDE, AMPERE, NARROW, HOPPER), strict=True))
    return (
        *(_compilation("strided", "bf16", False, config, targets) for config, targets in halves),
        *(_compilation("lines", "bf16", True, config, targets) for config, targets in halves),
        _compilation("lines", "fp32", True, CONFIGS["float32"][1], ()),
    )


def _compilation(
    label: str, dtype: str, columns: bool, config: Mapping[str, int], targets: tuple[str, ...]
) -> Compilation:
    constexprs = meta(128, 4, 64, True, columns, config)
    tensors = ("q_ptr", "k_ptr", "v_ptr", "out_ptr")
    lists = ("row_starts_ptr", "block_keys_ptr", "column_starts_ptr", "columns_ptr")
    return Compilation(
        kernel=block_sparse_kernel,
        label=f"block_sparse_attention {label} {dtype} d{constexprs['D']} {config['block_m']}x{config['block_n']}",
        signature={
            **dict.fromkeys(tensors, f"*{dtype}"),
            **dict.fromkeys(lists, "*i32"),
            **dict.fromkeys(("T", "S", "rows"), "i32"),
            "scale": "fp32",
        },
        constexprs=constexprs,
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        aligned=(*tensors, *lists, "T", "S"),
        targets=targets,
    )
