"""``centroid_selector`` in Triton: scores of clusters, the look-up of each token, and a mask into lists."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from ridgeline.analytical.operators import CentroidSelector
from ridgeline.kernels.compiled import Compilation
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


@triton.jit
def centroid_logits_kernel(
    q_ptr,  # [B, H, D]
    centroids_ptr,  # [B, H_kv, C, D]
    logits_ptr,  # float32 [B, H, C], in units of log2
    C,
    scale,  # of the products, times log2(e)
    D: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """A block of clusters of one KV head: they are read once for all query heads of the group."""
    head = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = c < C
    d = tl.arange(0, BLOCK_D)
    in_head = d < D
    at = (head * C + c)[:, None] * D + d[None, :]
    tile = tl.load(centroids_ptr + at, mask=there[:, None] & in_head[None, :], other=0.0).to(tl.float32)
    for h in range(GROUP):
        row = head * GROUP + h
        q = tl.load(q_ptr + row * D + d, mask=in_head, other=0.0).to(tl.float32) * scale
        tl.store(logits_ptr + row * C + c, tl.sum(tile * q[None, :], axis=1), mask=there)


@triton.jit
def centroid_denominators_kernel(
    logits_ptr,
    sizes_ptr,  # int32 [B, H_kv, C]
    denominators_ptr,  # float32 [B, H]: log2 of the sum of sizes times exponentials
    C,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The denominator of one query head's scores."""
    row = tl.program_id(0).to(tl.int64)
    maximum = tl.full((1,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((1,), dtype=tl.float32)
    for start in range(0, C, BLOCK):
        c = start + tl.arange(0, BLOCK)
        there = c < C
        logits = tl.load(logits_ptr + row * C + c, mask=there, other=float("-inf"))
        sizes = tl.load(sizes_ptr + row // GROUP * C + c, mask=there, other=0).to(tl.float32)
        new_maximum = tl.maximum(maximum, tl.max(logits, axis=0))
        reference = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
        total = total * tl.exp2(maximum - reference) + tl.sum(sizes * tl.exp2(logits - reference), axis=0)
        maximum = new_maximum
    tl.store(denominators_ptr + row + tl.arange(0, 1), maximum + tl.log2(total))


@triton.jit
def centroid_mask_kernel(
    logits_ptr,
    denominators_ptr,
    assignment_ptr,  # int32 [B, H_kv, S]
    mask_ptr,  # int8 [B, H, S]
    S,
    C,
    threshold,  # log2 of the score
    GROUP: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """A block of tokens of one query head: is the score of each one's cluster above the threshold?"""
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * BLOCK_S + tl.arange(0, BLOCK_S)
    there = token < S
    cluster = tl.load(assignment_ptr + row // GROUP * S + token, mask=there, other=0)
    logit = tl.load(logits_ptr + row * C + cluster, mask=there, other=0.0)
    kept = logit - tl.load(denominators_ptr + row) > threshold
    tl.store(mask_ptr + row * S + token, kept.to(tl.int8), mask=there)


@triton.jit
def count_kernel(mask_ptr, counts_ptr, S, blocks, BLOCK_S: tl.constexpr):
    """Tokens that one block of a row's mask keeps: counts [rows, blocks]."""
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token = block * BLOCK_S + tl.arange(0, BLOCK_S)
    kept = tl.load(mask_ptr + row * S + token, mask=token < S, other=0).to(tl.int32)
    tl.store(counts_ptr + row * blocks + block, tl.sum(kept, axis=0))


@triton.jit
def compact_kernel(
    mask_ptr,  # int8 [rows, S]
    counts_ptr,  # int32 [rows, blocks]
    starts_ptr,  # int32 [rows + 1], filled
    tokens_ptr,
    S,
    blocks,
    BLOCK_S: tl.constexpr,
    BLOCK_COUNTS: tl.constexpr,  # at least as many as there are counts
):
    """Write the token ids of one block where its list has them: behind those of all blocks before it, of all rows."""
    row, block = tl.program_id(0), tl.program_id(1)
    number = row * blocks + block
    every = tl.arange(0, BLOCK_COUNTS)
    counts = tl.load(counts_ptr + every, mask=every < number, other=0)
    before = tl.sum(counts, axis=0)
    token = block * BLOCK_S + tl.arange(0, BLOCK_S)
    kept = tl.load(mask_ptr + row.to(tl.int64) * S + token, mask=token < S, other=0).to(tl.int32)
    place = before + tl.cumsum(kept, axis=0) - 1
    tl.store(tokens_ptr + place, token, mask=kept != 0)
    one = tl.arange(0, 1)
    tl.store(starts_ptr + row + one, before + one, mask=(one + block) == 0)
    rows = tl.num_programs(0)
    last = (one + number) == rows * blocks - 1
    tl.store(starts_ptr + rows + one, before + tl.sum(kept, axis=0) + one, mask=last)


CONFIG = {"block_c": 32, "block_s": 1024}
MOST_BLOCKS = 4096
"""Blocks whose counts every program adds up."""
DENOMINATOR_BLOCK = 1024
"""Clusters of a step of the denominator."""


def compact(mask: torch.Tensor, tokens: torch.Tensor, block: int = CONFIG["block_s"]) -> torch.Tensor:
    """Lists of the tokens whose mask is 1, in order; row starts, int32 [rows + 1], are returned.

    Blocks are counted first, and every block adds up what is before it: unlike an atomic offset for each block, lists come
    out in order, the same in every run, and nothing but two kernels is launched.

    Args:
        mask: int8 [..., S] of 0 and 1, rows over its leading dimensions; up to :data:`MOST_BLOCKS` blocks in all.
        tokens: int32 with room for all that are kept; filled row by row.
    """
    s = mask.shape[-1]
    rows = mask.numel() // s
    block = max(block, triton.next_power_of_2(triton.cdiv(mask.numel(), MOST_BLOCKS)))
    blocks = triton.cdiv(s, block)
    counts = torch.empty(rows, blocks, dtype=torch.int32, device=mask.device)
    starts = torch.empty(rows + 1, dtype=torch.int32, device=mask.device)
    count_kernel[(rows, blocks)](mask, counts, s, blocks, BLOCK_S=block)
    every = triton.next_power_of_2(rows * blocks)
    compact_kernel[(rows, blocks)](mask, counts, starts, tokens, s, blocks, BLOCK_S=block, BLOCK_COUNTS=every)
    return starts


@implementation(
    "centroid_selector", "triton", devices=("cuda",), precisions=("float32", "float16"), papers=("squeezed-attention",)
)
def prepare(problem: CentroidSelector, constants: Tensors, context: Context) -> Run:
    """``context.config`` as in ``CONFIG``."""
    config = {**CONFIG, **context.config}
    b, heads, s, c = problem.batch, problem.q_heads, problem.kv_length, problem.centroids
    group, d = heads // problem.kv_heads, problem.head_dim
    scale = math.log2(math.e) / math.sqrt(d)
    threshold = float(constants["threshold"])
    log2_threshold = math.log2(threshold) if threshold > 0.0 else -math.inf
    logits = torch.empty(b, heads, c, dtype=torch.float32, device=context.device)
    denominators = torch.empty(b, heads, dtype=torch.float32, device=context.device)
    rows, blocks = b * heads, triton.cdiv(s, config["block_s"])
    by_cluster = (b * problem.kv_heads, triton.cdiv(c, config["block_c"]))
    tile = {"D": d, "GROUP": group, "BLOCK_C": config["block_c"], "BLOCK_D": triton.next_power_of_2(d)}
    whole = {"GROUP": group, "BLOCK": DENOMINATOR_BLOCK}

    if context.device == "cuda":  # compile here, so that the time is prepare's
        given, kind = getattr(torch, problem.precision), torch.float32
        centroid_logits_kernel.warmup(given, given, kind, c, scale, grid=by_cluster, **tile)
        centroid_denominators_kernel.warmup(kind, torch.int32, kind, c, grid=(rows,), **whole)
        centroid_mask_kernel.warmup(
            kind, kind, torch.int32, torch.int8, s, c, log2_threshold, GROUP=group, BLOCK_S=config["block_s"],
            grid=(rows, blocks),
        )  # fmt: skip

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        centroid_logits_kernel[by_cluster](inputs["q"], inputs["centroids"], logits, c, scale, **tile)
        centroid_denominators_kernel[(rows,)](logits, inputs["sizes"], denominators, c, **whole)
        centroid_mask_kernel[(rows, blocks)](
            logits, denominators, inputs["assignment"], out, s, c, log2_threshold, GROUP=group,
            BLOCK_S=config["block_s"],
        )  # fmt: skip

    return run


def compilations() -> tuple[Compilation, ...]:
    """Each kernel once: none has a choice that a tile of another size would change."""
    products = ("q_ptr", "centroids_ptr", "logits_ptr")
    block = {"BLOCK_S": CONFIG["block_s"]}
    return (
        Compilation(
            kernel=centroid_logits_kernel,
            label="centroid_selector logits float32 d128",
            signature={**dict.fromkeys(products, "*fp32"), "C": "i32", "scale": "fp32"},
            constexprs={"D": 128, "GROUP": 4, "BLOCK_C": CONFIG["block_c"], "BLOCK_D": 128},
            aligned=products,
        ),
        Compilation(
            kernel=centroid_denominators_kernel,
            label="centroid_selector denominators",
            signature={"logits_ptr": "*fp32", "sizes_ptr": "*i32", "denominators_ptr": "*fp32", "C": "i32"},
            constexprs={"GROUP": 4, "BLOCK": DENOMINATOR_BLOCK},
            aligned=("logits_ptr", "sizes_ptr", "denominators_ptr"),
        ),
        Compilation(
            kernel=centroid_mask_kernel,
            label="centroid_selector mask",
            signature={
                "logits_ptr": "*fp32",
                "denominators_ptr": "*fp32",
                "assignment_ptr": "*i32",
                "mask_ptr": "*i8",
                "S": "i32",
                "C": "i32",
                "threshold": "fp32",
            },
            constexprs={"GROUP": 4, **block},
            aligned=("logits_ptr", "denominators_ptr", "assignment_ptr", "mask_ptr", "S"),
        ),
        Compilation(
            kernel=count_kernel,
            label="centroid_selector count",
            signature={"mask_ptr": "*i8", "counts_ptr": "*i32", "S": "i32", "blocks": "i32"},
            constexprs=block,
            aligned=("mask_ptr", "counts_ptr", "S"),
        ),
        Compilation(
            kernel=compact_kernel,
            label="centroid_selector compact",
            signature={
                "mask_ptr": "*i8",
                "counts_ptr": "*i32",
                "starts_ptr": "*i32",
                "tokens_ptr": "*i32",
                "S": "i32",
                "blocks": "i32",
            },
            constexprs={**block, "BLOCK_COUNTS": 1024},
            aligned=("mask_ptr", "counts_ptr", "starts_ptr", "tokens_ptr", "S"),
        ),
    )
