"""``attention_quantiser`` in Triton: a program quantises a tile of tokens of a head, whole groups of them."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from ridgeline.analytical.operators import AttentionQuantiser
from ridgeline.analytical.operators.quantised_attention import KEY_GROUPING, QUERY_BLOCK, QUERY_GROUPING
from ridgeline.kernels.compiled import Compilation
from ridgeline.kernels.quantised_attention.quantise import LARGEST, SCALE_FLOOR
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation


@triton.jit
def quantise_kernel(
    x_ptr,  # [heads, L, D]
    mean_ptr,  # [heads, D] if SMOOTH is "head"
    out_ptr,  # [heads, L, D]
    scale_ptr,  # [heads, groups]
    L,
    groups,
    largest,  # integer that the largest magnitude of a group becomes
    D: tl.constexpr,
    TILE: tl.constexpr,  # tokens of a program, a multiple of ROWS
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
    RUN: tl.constexpr,
    SMOOTH: tl.constexpr,  # what is subtracted: "", the mean of the "tile", or that of the "head"
    FLOOR: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Subtract a mean, find each group's largest magnitude, divide, round halves away from zero."""
    tiles = tl.cdiv(L, TILE)
    head = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    token = tile * TILE + tl.arange(0, TILE)
    d = tl.arange(0, BLOCK_D)
    mask = (token < L)[:, None] & (d < D)[None, :]
    offset = (head * L + token)[:, None] * D + d[None, :]
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    if SMOOTH == "tile":
        mean = tl.sum(x, axis=0) / tl.minimum(TILE, L - tile * TILE)
        x = tl.where(mask, x - mean[None, :], 0.0)
    if SMOOTH == "head":
        mean = tl.load(mean_ptr + head * D + d, mask=d < D, other=0.0)
        x = tl.where(mask, x - mean[None, :], 0.0)
    # A token is (run of rows, turn, class, place in the run): its group is all of its rows and class.
    SHAPE: tl.constexpr = (TILE // ROWS, ROWS // (CLASSES * RUN), CLASSES, RUN)
    magnitude = tl.reshape(tl.max(tl.abs(x), axis=1), SHAPE)
    scale = tl.max(tl.max(magnitude, axis=3), axis=1) / largest + FLOOR
    of_tile: tl.constexpr = TILE // ROWS * CLASSES
    group = tile * of_tile + tl.arange(0, of_tile)
    tl.store(scale_ptr + head * groups + group, tl.reshape(scale, (of_tile,)), mask=group < groups)
    of_token = tl.reshape(tl.broadcast_to(scale[:, None, :, None], SHAPE), (TILE,))
    scaled = x / of_token[:, None]
    rounded = scaled + tl.where(scaled >= 0.0, 0.5, -0.5)  # the conversion cuts off
    tl.store(out_ptr + offset, rounded.to(tl.int8), mask=mask)


NUM_WARPS = 4


def meta(problem: AttentionQuantiser) -> dict[str, Any]:
    """Compile-time parameters of the kernel: a tile is a smoothed block of queries, or 64 keys."""
    query = problem.role == "query"
    grouping = (QUERY_GROUPING if query else KEY_GROUPING)[problem.granularity]
    tile = QUERY_BLOCK if query else 64
    rows, classes, run = grouping.rows, grouping.classes, grouping.run
    if rows < 32:  # a scale a token: every token of a tile is a class of its own
        rows, classes, run = tile, tile, 1
    return {
        "D": problem.head_dim,
        "TILE": tile,
        "ROWS": rows,
        "CLASSES": classes,
        "RUN": run,
        "SMOOTH": ("tile" if query else "head") if problem.smooth else "",
        "FLOOR": SCALE_FLOOR,
        "BLOCK_D": max(16, triton.next_power_of_2(problem.head_dim)),
    }


@implementation("attention_quantiser", "triton", devices=("cuda",), papers=("sageattention2",))
def prepare(problem: AttentionQuantiser, constants: Tensors, context: Context) -> Run:
    """The mean over all keys is a torch operation before the kernel; scales go to memory of this implementation's own."""
    if problem.role == "value" or problem.to == "float8_e4m3fn":
        raise Unsupported("channels of V and FP8: the kernel writes integers with a scale a group of tokens")
    options = {**meta(problem), "num_warps": NUM_WARPS}
    heads, length = problem.batch * problem.heads, problem.length
    scales = torch.empty(heads, problem.groups, device=context.device)
    grid = (heads * triton.cdiv(length, options["TILE"]),)
    numbers = (length, problem.groups, LARGEST[problem.to])
    if context.device == "cuda":  # compile here, so that the time is prepare's
        types = (getattr(torch, problem.precision), torch.float32, torch.int8, torch.float32)
        quantise_kernel.warmup(*types, *numbers, grid=grid, **options)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        x = inputs["x"]
        mean = x.mean(2, dtype=torch.float32) if options["SMOOTH"] == "head" else scales
        quantise_kernel[grid](x, mean, out, scales, *numbers, **options)

    return run


def compilations() -> tuple[Compilation, ...]:
    """What is compiled ahead of time: smoothed Q and K in float16, a scale a thread."""
    shape: dict[str, Any] = {"batch": 1, "heads": 1, "length": 1024, "head_dim": 128, "precision": "float16"}
    return tuple(_compilation(AttentionQuantiser(**shape, role=role)) for role in ("query", "key"))


def _compilation(problem: AttentionQuantiser) -> Compilation:
    pointers = {"x_ptr": "*fp16", "mean_ptr": "*fp32", "out_ptr": "*i8", "scale_ptr": "*fp32"}
    return Compilation(
        kernel=quantise_kernel,
        label=f"attention_quantiser {problem.role} {problem.granularity} {problem.precision} d{problem.head_dim}",
        signature={**pointers, "L": "i32", "groups": "i32", "largest": "fp32"},
        constexprs=meta(problem),
        num_warps=NUM_WARPS,
        aligned=(*pointers, "L"),
    )
