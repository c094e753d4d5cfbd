"""``fma`` on the vector lanes in Triton: float32 and float64 multiply-add chains in registers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import triton
import triton.language as tl

from ridgeline.analytical.operators import Fma
from ridgeline.kernels.compiled import Compilation
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation

UNROLL = 16
"""Steps of each chain per turn of the loop: 16 x 8 multiply-adds hide the counter and the branch."""
CHAINS_PER_THREAD = 8
"""Accumulators that the default gives a thread; a multiply-add takes 4 cycles on NVIDIA since Volta."""
MOST_ACCUMULATORS = 16384
"""Largest tile of one program: beyond it 8 warps hold more than 64 accumulators per thread."""


@triton.jit
def vector_kernel(
    x_ptr,  # [LANES]
    y_ptr,  # [LANES]
    out_ptr,  # [programs, CHAINS, LANES]
    iterations,
    CHAINS: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK_CHAINS: tl.constexpr,
    BLOCK_LANES: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Chain c of every lane starts at (c + 1) y and becomes acc x + y, ``iterations`` times."""
    program = tl.program_id(0).to(tl.int64)
    chain, lane = tl.arange(0, BLOCK_CHAINS), tl.arange(0, BLOCK_LANES)
    x = tl.load(x_ptr + lane, mask=lane < LANES, other=0.0)[None, :]
    y = tl.load(y_ptr + lane, mask=lane < LANES, other=0.0)[None, :]
    x, y = tl.broadcast_to(x, (BLOCK_CHAINS, BLOCK_LANES)), tl.broadcast_to(y, (BLOCK_CHAINS, BLOCK_LANES))
    accumulator = (chain + 1).to(y.dtype)[:, None] * y
    for _ in range(iterations // UNROLL):
        for _ in tl.static_range(UNROLL):
            accumulator = tl.fma(accumulator, x, y)
    for _ in range(iterations % UNROLL):
        accumulator = tl.fma(accumulator, x, y)
    out = out_ptr + program * CHAINS * LANES + chain[:, None] * LANES + lane[None, :]
    tl.store(out, accumulator, mask=(chain[:, None] < CHAINS) & (lane[None, :] < LANES))


CONFIGS: tuple[Mapping[str, int], ...] = ({}, {"num_warps": 4}, {"num_warps": 8})
"""Tuning space: warps of a program; by default as many as give a thread 8 accumulators, 8 at most."""


def meta(chains: int, lanes: int) -> dict[str, int]:
    """Compile-time parameters of the kernel. Triton's tiles are powers of two: the rest of them is idle."""
    return {
        "CHAINS": chains,
        "LANES": lanes,
        "BLOCK_CHAINS": triton.next_power_of_2(chains),
        "BLOCK_LANES": triton.next_power_of_2(lanes),
        "UNROLL": UNROLL,
    }


@implementation("fma", "triton_vector", devices=("cuda",), precisions=("float32", "float64"))
def prepare(problem: Fma, constants: Tensors, context: Context) -> Run:
    """A program per group, the group's chains x lanes accumulators spread over its threads."""
    if problem.unit != "vector":
        raise Unsupported(f"measures the vector unit; this problem asks for {problem.unit}")
    if problem.depth != 1:
        raise Unsupported(f"a {problem.precision} multiply-add has depth 1, not {problem.depth}")
    constexprs = meta(problem.chains, problem.lanes)
    tile = constexprs["BLOCK_CHAINS"] * constexprs["BLOCK_LANES"]
    if tile > MOST_ACCUMULATORS:
        raise Unsupported(f"a program holds at most {MOST_ACCUMULATORS} accumulators, not {tile}: use more groups")
    num_warps = min(max(tile // (32 * CHAINS_PER_THREAD), 1), 8)
    options = {**constexprs, "num_warps": context.config.get("num_warps", num_warps)}
    grid, iterations = (problem.groups,), problem.iterations
    if context.device == "cuda":  # compile here, so that the time is prepare's
        dtype = getattr(torch, problem.precision)
        vector_kernel.warmup(dtype, dtype, dtype, iterations, grid=grid, **options)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        vector_kernel[grid](inputs["x"], inputs["y"], out, iterations, **options)

    return run


def compilations() -> tuple[Compilation, ...]:
    """What is compiled ahead of time: 8 chains of 128 lanes, one lane per thread of 4 warps."""
    pointers = ("x_ptr", "y_ptr", "out_ptr")
    return tuple(
        Compilation(
            kernel=vector_kernel,
            label=f"fma vector {precision} 8x128",
            signature={**dict.fromkeys(pointers, dtype), "iterations": "i32"},
            constexprs=meta(8, 128),
            num_warps=4,
            aligned=(*pointers, "iterations"),
        )
        for precision, dtype in (("float32", "*fp32"), ("float64", "*fp64"))
    )
