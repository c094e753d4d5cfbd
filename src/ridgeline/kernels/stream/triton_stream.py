"""``stream`` in Triton: read, copy and triad (STREAM, McCalpin 1995) over float32 arrays in device memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import triton
import triton.language as tl

from ridgeline.analytical.operators import Stream
from ridgeline.kernels.compiled import Compilation
from ridgeline.kernels.registry import Context, Run, Tensors, implementation

LANES = 16
"""Sums that ``read`` returns: element i goes to sum i mod 16."""
TRIAD_FACTOR = 0.5
"""s of triad, c = a + s * b; exact in binary, so that a fused and an unfused multiply-add agree."""


# Passes are a loop inside the kernels: as launches of their own, ten passes of 20 MB took an H200 62 us, most of it the
# gaps between kernels. In each pass a program takes the blocks of its neighbour in the pass before, so that neither the
# compiler nor the L1 of a multiprocessor can keep them; the loads ask for the L2 alone (.cg).


@triton.jit
def read_kernel(a_ptr, partial_ptr, elements, passes, LANES: tl.constexpr, BLOCK: tl.constexpr):
    """Each program sums every num_programs-th block of ``a`` in each pass.

    partial[program, lane] is its share of the 16 sums over all passes.
    """
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    offsets = tl.arange(0, BLOCK)
    sums = tl.zeros((BLOCK,), dtype=tl.float32)
    for turn in range(passes):
        first = ((program + turn) % programs).to(tl.int64) * BLOCK
        for start in range(first, elements, programs.to(tl.int64) * BLOCK):
            # Blocks start at multiples of 16, so position p of the block always belongs to lane p mod 16.
            sums += tl.load(a_ptr + start + offsets, mask=start + offsets < elements, other=0.0, cache_modifier=".cg")
    lanes = tl.sum(tl.reshape(sums, (BLOCK // LANES, LANES)), axis=0)
    tl.store(partial_ptr + program.to(tl.int64) * LANES + tl.arange(0, LANES), lanes)


@triton.jit
def reduce_kernel(partial_ptr, out_ptr, programs, passes, LANES: tl.constexpr, BLOCK: tl.constexpr):
    """One program: out[lane] = mean over passes of the sum over programs of partial[program, lane]."""
    rows, lanes = tl.arange(0, BLOCK), tl.arange(0, LANES)
    sums = tl.zeros((BLOCK, LANES), dtype=tl.float32)
    for start in range(0, programs, BLOCK):
        row = start + rows
        sums += tl.load(partial_ptr + row[:, None] * LANES + lanes[None, :], mask=row[:, None] < programs, other=0.0)
    tl.store(out_ptr + lanes, tl.sum(sums, axis=0) / passes)


@triton.jit
def write_kernel(a_ptr, b_ptr, out_ptr, elements, passes, factor, TRIAD: tl.constexpr, BLOCK: tl.constexpr):
    """out = a, or out = a + factor * b for the triad, in each pass; every num_programs-th block per program."""
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    for turn in range(passes):
        first = ((program + turn) % programs).to(tl.int64) * BLOCK
        for start in range(first, elements, programs.to(tl.int64) * BLOCK):
            offsets = start + tl.arange(0, BLOCK)
            mask = offsets < elements
            value = tl.load(a_ptr + offsets, mask=mask, cache_modifier=".cg")
            if TRIAD:
                value += factor * tl.load(b_ptr + offsets, mask=mask, cache_modifier=".cg")
            tl.store(out_ptr + offsets, value, mask=mask)


CONFIGS: Mapping[str, tuple[Mapping[str, int], ...]] = {
    "read": tuple(
        {"block": block, "programs": programs, "num_warps": warps}
        for block, programs, warps in ((4096, 1056, 8), (2048, 2048, 4), (1024, 2112, 4))
    ),
    "write": tuple(
        {"block": block, "programs": programs, "num_warps": warps}
        for block, programs, warps in ((1024, 2112, 4), (2048, 2048, 4), (4096, 1056, 8))
    ),
}
"""Tuning space: elements of a block, and programs (the writers take one program per block where there is one pass). The
first ones were the fastest on an H200: read 10.7 TB/s from the L2 and 4.2 from 512 MiB (the second: 8.0 and 4.1)."""


@implementation("stream", "triton", devices=("cuda",))
def prepare(problem: Stream, constants: Tensors, context: Context) -> Run:
    """Block and program count from ``context.config`` (keys as in ``CONFIGS``)."""
    config = {**CONFIGS["read" if problem.operation == "read" else "write"][0], **context.config}
    if problem.operation == "read":
        return _prepare_read(problem, context, config)
    return _prepare_write(problem, context, config)


def _prepare_read(problem: Stream, context: Context, config: Mapping[str, int]) -> Run:
    elements, block = problem.elements, config["block"]
    programs = min(config["programs"], triton.cdiv(elements, block))
    partial = torch.empty(programs, LANES, dtype=torch.float32, device=context.device)
    options = {"LANES": LANES, "BLOCK": block, "num_warps": config["num_warps"]}
    reduce_options = {"LANES": LANES, "BLOCK": 64, "num_warps": 4}
    if context.device == "cuda":  # compile here, so that the time is prepare's
        read_kernel.warmup(torch.float32, torch.float32, elements, problem.passes, grid=(programs,), **options)
        reduce_kernel.warmup(torch.float32, torch.float32, programs, problem.passes, grid=(1,), **reduce_options)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        read_kernel[(programs,)](inputs["a"], partial, elements, problem.passes, **options)
        reduce_kernel[(1,)](partial, out, programs, problem.passes, **reduce_options)

    return run


def _prepare_write(problem: Stream, context: Context, config: Mapping[str, int]) -> Run:
    elements, triad = problem.elements, problem.operation == "triad"
    blocks = triton.cdiv(elements, config["block"])
    grid = (blocks if problem.passes == 1 else min(config["programs"], blocks),)
    options = {"TRIAD": triad, "BLOCK": config["block"], "num_warps": config["num_warps"]}
    if context.device == "cuda":
        types = (torch.float32, torch.float32, torch.float32)
        write_kernel.warmup(*types, elements, problem.passes, TRIAD_FACTOR, grid=grid, **options)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        a = inputs["a"]
        b = inputs["b"] if triad else a  # copy never reads it
        write_kernel[grid](a, b, out, elements, problem.passes, TRIAD_FACTOR, **options)

    return run


def compilations() -> tuple[Compilation, ...]:
    """What is compiled ahead of time: the sweep of ``read`` and the triad, with arrays aligned to 16 elements."""
    reading, writing = CONFIGS["read"][0], CONFIGS["write"][0]
    read = Compilation(
        kernel=read_kernel,
        label=f"stream read {reading['block']}",
        signature={"a_ptr": "*fp32", "partial_ptr": "*fp32", "elements": "i32", "passes": "i32"},
        constexprs={"LANES": LANES, "BLOCK": reading["block"]},
        num_warps=reading["num_warps"],
        aligned=("a_ptr", "partial_ptr", "elements"),
    )
    triad = Compilation(
        kernel=write_kernel,
        label=f"stream triad {writing['block']}",
        signature={
            "a_ptr": "*fp32",
            "b_ptr": "*fp32",
            "out_ptr": "*fp32",
            "elements": "i32",
            "passes": "i32",
            "factor": "fp32",
        },
        constexprs={"TRIAD": True, "BLOCK": writing["block"]},
        num_warps=writing["num_warps"],
        aligned=("a_ptr", "b_ptr", "out_ptr", "elements"),
    )
    return (read, triad)
