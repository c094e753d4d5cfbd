"""``token_gather_attention`` in Triton: pieces of the lists with a log-sum-exp reduction (flash decoding, ragged).

Each list is cut into as many equal pieces as it takes for none to be longer than ``piece``, so that programs of all
lists do alike amounts of work. Which list a program works on follows from where the lists start, on the device: nothing
waits for the host. A second kernel puts the pieces of a list together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl

from ridgeline.analytical.operators import TokenGatherAttention
from ridgeline.kernels.compiled import Compilation
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation
from ridgeline.kernels.token_gather_attention.pieces import PIECE

LOG2_E = math.log2(math.e)
MOST_ROWS = 4096
"""Lists that every program looks through for its own."""


@triton.jit
def piece_counts(starts_ptr, rows, PIECE: tl.constexpr, BLOCK_ROWS: tl.constexpr):
    """Where each list starts and ends, in how many pieces it is cut, and the pieces up to and with it."""
    row = tl.arange(0, BLOCK_ROWS)
    begin = tl.load(starts_ptr + row, mask=row < rows, other=0)
    end = tl.load(starts_ptr + row + 1, mask=row < rows, other=0)
    pieces = (end - begin + PIECE - 1) // PIECE
    return row, begin, end, pieces, tl.cumsum(pieces, axis=0)


@triton.jit
def gather_kernel(
    q_ptr,  # [rows, D]
    k_ptr,  # [rows / GROUP, S, D]
    v_ptr,
    starts_ptr,  # [rows + 1]
    tokens_ptr,
    sums_ptr,  # float32 [pieces, D]
    maxima_ptr,  # float32 [pieces], in units of log2
    totals_ptr,  # float32 [pieces]
    rows,
    S,
    scale,  # of the scores, times log2(e)
    D: tl.constexpr,
    GROUP: tl.constexpr,
    PIECE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KV: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One piece of one list; programs beyond the last piece do nothing."""
    piece = tl.program_id(0)
    every, begins, ends, pieces, up_to = piece_counts(starts_ptr, rows, PIECE, BLOCK_ROWS)
    row = tl.sum((up_to <= piece).to(tl.int32), axis=0)
    if row < rows:
        mine = every == row
        list_begin = tl.sum(tl.where(mine, begins, 0), axis=0)
        length = tl.sum(tl.where(mine, ends, 0), axis=0) - list_begin
        count = tl.sum(tl.where(mine, pieces, 0), axis=0)
        number = piece - (tl.sum(tl.where(mine, up_to, 0), axis=0) - count)
        each = (length + count - 1) // count
        begin = list_begin + number * each
        end = tl.minimum(begin + each, list_begin + length)

        d = tl.arange(0, BLOCK_D)
        in_head = d < D
        place = tl.arange(0, BLOCK_KV)
        q = tl.load(q_ptr + row.to(tl.int64) * D + d, mask=in_head, other=0.0).to(tl.float32) * scale
        base = (row // GROUP).to(tl.int64) * S * D
        sums = tl.zeros((BLOCK_D,), dtype=tl.float32)
        maximum = tl.full((1,), float("-inf"), dtype=tl.float32)
        total = tl.zeros((1,), dtype=tl.float32)
        for start in range(begin, end, BLOCK_KV):
            listed = start + place < end
            token = tl.load(tokens_ptr + start + place, mask=listed, other=0).to(tl.int64)
            at = base + token[:, None] * D + d[None, :]
            needed = listed[:, None] & in_head[None, :]
            keys = tl.load(k_ptr + at, mask=needed, other=0.0).to(tl.float32)
            values = tl.load(v_ptr + at, mask=needed, other=0.0).to(tl.float32)
            scores = tl.where(listed, tl.sum(keys * q[None, :], axis=1), float("-inf"))
            new_maximum = tl.maximum(maximum, tl.max(scores, axis=0))
            # All scores so far may be -inf, and -inf - -inf is not a number.
            reference = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
            weights = tl.exp2(scores - reference)
            rescale = tl.exp2(maximum - reference)
            sums = sums * rescale + tl.sum(weights[:, None] * values, axis=0)
            total = total * rescale + tl.sum(weights, axis=0)
            maximum = new_maximum
        one = tl.arange(0, 1)
        tl.store(sums_ptr + piece.to(tl.int64) * D + d, sums, mask=in_head)
        tl.store(maxima_ptr + piece + one, maximum)
        tl.store(totals_ptr + piece + one, total)


@triton.jit
def reduce_kernel(
    starts_ptr,
    sums_ptr,
    maxima_ptr,
    totals_ptr,
    out_ptr,  # [rows, D]
    rows,
    D: tl.constexpr,
    PIECE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_PIECES: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The pieces of one list, ``BLOCK_PIECES`` at a time; a list without tokens gives zeros."""
    row = tl.program_id(0)
    every, _begins, _ends, pieces, up_to = piece_counts(starts_ptr, rows, PIECE, BLOCK_ROWS)
    last = tl.sum(tl.where(every == row, up_to, 0), axis=0)
    first = last - tl.sum(tl.where(every == row, pieces, 0), axis=0)
    d = tl.arange(0, BLOCK_D)
    place = tl.arange(0, BLOCK_PIECES)
    sums = tl.zeros((BLOCK_D,), dtype=tl.float32)
    maximum = tl.full((1,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((1,), dtype=tl.float32)
    for start in range(first, last, BLOCK_PIECES):
        there = start + place < last
        maxima = tl.load(maxima_ptr + start + place, mask=there, other=float("-inf"))
        totals = tl.load(totals_ptr + start + place, mask=there, other=0.0)
        at = (start + place).to(tl.int64)[:, None] * D + d[None, :]
        parts = tl.load(sums_ptr + at, mask=there[:, None] & (d < D)[None, :], other=0.0)
        new_maximum = tl.maximum(maximum, tl.max(maxima, axis=0))
        reference = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
        weights = tl.exp2(maxima - reference)
        rescale = tl.exp2(maximum - reference)
        sums = sums * rescale + tl.sum(weights[:, None] * parts, axis=0)
        total = total * rescale + tl.sum(weights * totals, axis=0)
        maximum = new_maximum
    result = sums / total
    if first == last:
        result = tl.zeros((BLOCK_D,), dtype=tl.float32)
    tl.store(out_ptr + row.to(tl.int64) * D + d, result.to(out_ptr.dtype.element_ty), mask=d < D)


CONFIGS: tuple[dict[str, int], ...] = (
    {"piece": PIECE, "block_kv": 16, "num_warps": 2, "num_stages": 2},
    {"piece": 128, "block_kv": 16, "num_warps": 1, "num_stages": 2},
    {"piece": 128, "block_kv": 16, "num_warps": 4, "num_stages": 3},
)
"""Tuning space; the last is float32's. On an H200 in float16 at d 128, cold, in us: B8 H32, 1024 of 16384 tokens, 63.8 with the
first, 62.2 with the second, 77 with pieces of 256, steps of 32 and 4 warps; B1 H32, 3277 of 32768, 40.4, 55.5, 57.4. Small
steps leave few registers a program, so many rows are asked for at a time: what counts where each lies elsewhere."""
BLOCK_PIECES = 16


@implementation(
    "token_gather_attention",
    "triton",
    devices=("cuda",),
    precisions=("float32", "bfloat16", "float16"),
    papers=("double-sparsity", "squeezed-attention"),
)
def prepare(problem: TokenGatherAttention, constants: Tensors, context: Context) -> Run:
    """``context.config`` as in ``CONFIGS``. Lists of other lengths than the problem's are taken too."""
    config = {**CONFIGS[2 if problem.precision == "float32" else 0], **context.config}
    rows, group, d = problem.batch * problem.q_heads, problem.q_heads // problem.kv_heads, problem.head_dim
    if rows > MOST_ROWS:
        raise Unsupported(f"every program looks through all lists: up to {MOST_ROWS} query heads, not {rows}")
    scale = LOG2_E / math.sqrt(d)
    meta = {
        "D": d,
        "PIECE": config["piece"],
        "BLOCK_ROWS": triton.next_power_of_2(rows),
        "BLOCK_D": triton.next_power_of_2(d),
    }
    options = {"num_warps": config["num_warps"], "num_stages": config["num_stages"]}
    # Pieces of all lists: no list has more than one that is not full.
    most = triton.cdiv(rows * (problem.kept + problem.widest), config["piece"]) + rows
    scratch = {
        name: torch.empty(shape, dtype=torch.float32, device=context.device)
        for name, shape in (("sums", (most, d)), ("maxima", (most,)), ("totals", (most,)))
    }

    if context.device == "cuda":  # compile here, so that the time is prepare's
        kind, partials = getattr(torch, problem.precision), (torch.float32,) * 3
        gather_kernel.warmup(
            kind, kind, kind, torch.int32, torch.int32, *partials, rows, problem.kv_length, scale, GROUP=group,
            BLOCK_KV=config["block_kv"], grid=(1,), **meta, **options,
        )  # fmt: skip
        reduce_kernel.warmup(
            torch.int32, *partials, kind, rows, BLOCK_PIECES=BLOCK_PIECES, num_warps=4, grid=(1,), **meta
        )

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        tokens = inputs["tokens"]
        grid = (triton.cdiv(len(tokens), config["piece"]) + rows,)
        partial = (scratch["sums"], scratch["maxima"], scratch["totals"])
        gather_kernel[grid](
            inputs["q"], inputs["k"], inputs["v"], inputs["row_starts"], tokens, *partial, rows, problem.kv_length,
            scale, GROUP=group, BLOCK_KV=config["block_kv"], **meta, **options,
        )  # fmt: skip
        reduce_kernel[(rows,)](
            inputs["row_starts"], *partial, out, rows, BLOCK_PIECES=BLOCK_PIECES, num_warps=4, **meta
        )

    return run


def compilations() -> tuple[Compilation, ...]:
    """The gather in bfloat16, and in float32; the reduction. Float32's tile spills 8 bytes in bfloat16 on sm_89."""
    return (
        *(_gather("bf16", config) for config in CONFIGS[:2]),
        _gather("fp32", CONFIGS[2]),
        Compilation(
            kernel=reduce_kernel,
            label="token_gather_attention reduce bf16 d128",
            signature={
                "starts_ptr": "*i32",
                **dict.fromkeys(("sums_ptr", "maxima_ptr", "totals_ptr"), "*fp32"),
                "out_ptr": "*bf16",
                "rows": "i32",
            },
            constexprs={"D": 128, "PIECE": PIECE, "BLOCK_ROWS": 256, "BLOCK_PIECES": BLOCK_PIECES, "BLOCK_D": 128},
            aligned=("starts_ptr", "sums_ptr", "maxima_ptr", "totals_ptr", "out_ptr"),
        ),
    )


def _gather(dtype: str, config: Mapping[str, Any]) -> Compilation:
    pointers = ("q_ptr", "k_ptr", "v_ptr")
    partial = ("sums_ptr", "maxima_ptr", "totals_ptr")
    return Compilation(
        kernel=gather_kernel,
        label=f"token_gather_attention gather {dtype} d128 {config['piece']}/{config['block_kv']}",
        signature={
            **dict.fromkeys(pointers, f"*{dtype}"),
            **dict.fromkeys(("starts_ptr", "tokens_ptr"), "*i32"),
            **dict.fromkeys(partial, "*fp32"),
            "rows": "i32",
            "S": "i32",
            "scale": "fp32",
        },
        constexprs={
            "D": 128,
            "GROUP": 4,
            "PIECE": config["piece"],
            "BLOCK_ROWS": 256,
            "BLOCK_KV": config["block_kv"],
            "BLOCK_D": 128,
        },
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        aligned=(*pointers, "starts_ptr", "tokens_ptr", *partial, "S"),
    )
