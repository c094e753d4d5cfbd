"""``fma`` on the matrix unit in Triton: one tile product repeated on operands that stay on chip.

A program adds x[p] @ y[p] to its accumulator tile ``iterations`` times. Global memory is read once, before the loop.
Where operands come from registers (sm_80, sm_120) Triton moves their way from shared memory into the loop, so a turn
of the loop takes several steps (``tests/kernels/test_compiled.py`` reads the loop back from the machine code).

On sm_90 the float8 instruction keeps fewer than float32's bits while it accumulates (DeepSeek-V3 report, section
3.3.2, saw about 14), so a float8 result of many iterations is off by more than rounding; the rate is not affected.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import triton
import triton.language as tl

from ridgeline.analytical.operators import Fma
from ridgeline.kernels.compiled import TARGETS, Compilation, has_float8, has_tf32, local_architecture
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation

TILE_M = 128
TILE_N = 128
"""Accumulator tile of one program; with the depth as K it is the shape of x[p] and y[p]."""

DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float8_e4m3fn": "fp8e4nv", "int8": "i8", "tfloat32": "fp32"}
"""Triton's name of a precision's storage type. tfloat32 is stored as float32 and rounded by the instruction."""
STORAGE = {"tfloat32": "float32"}
"""torch's storage type where it is not named as the precision."""
LEAST_DEPTH = {"float8_e4m3fn": 32, "int8": 32, "tfloat32": 16}
"""Smallest K offered (other precisions: 16); Triton accepts no smaller one for 8-bit and 16-bit operands."""
MOST_DEPTH = 128
"""Largest K offered: beyond it the operands alone fill the registers of a program on sm_80."""
UNROLL = 8
"""Tile products per turn of the loop."""


@triton.jit(do_not_specialize=["one"])
def matrix_kernel(
    x_ptr,  # [programs, TILE_M, K]
    y_ptr,  # [programs, K, TILE_N]
    out_ptr,  # [programs, TILE_M, TILE_N]
    iterations,
    one,  # 1, which the compiler must not know
    ACCUMULATOR: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    K: tl.constexpr,
    UNROLL: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    m, n, k = tl.arange(0, TILE_M), tl.arange(0, TILE_N), tl.arange(0, K)
    x = tl.load(x_ptr + program * TILE_M * K + m[:, None] * K + k[None, :])
    # Matrix units take 8-bit operands along k, and y lies along n. With a stride that it does not know, the compiler
    # lays the tile out along k while loading it, once; else it would transpose it again in every turn of the loop.
    y = tl.load(y_ptr + program * K * TILE_N + n[:, None] * one + k[None, :] * TILE_N).T
    accumulator = tl.zeros((TILE_M, TILE_N), dtype=ACCUMULATOR)
    for _ in range(iterations // UNROLL):
        for _ in tl.static_range(UNROLL):
            accumulator = tl.dot(x, y, accumulator, input_precision=INPUT_PRECISION, out_dtype=ACCUMULATOR)
    for _ in range(iterations % UNROLL):
        accumulator = tl.dot(x, y, accumulator, input_precision=INPUT_PRECISION, out_dtype=ACCUMULATOR)
    out = out_ptr + program * TILE_M * TILE_N + m[:, None] * TILE_N + n[None, :]
    tl.store(out, accumulator)


CONFIGS: tuple[Mapping[str, int], ...] = ({"num_warps": 8}, {"num_warps": 4})
"""Tuning space."""
NUM_STAGES = 1
"""There is nothing to load ahead; Triton 3.8's pipeliner fails on the unrolled loop for sm_100."""


def takes(precision: str, architecture: str) -> bool:
    """Whether the matrix unit of ``architecture`` takes this precision; Triton would convert to a wider one."""
    if precision == "float8_e4m3fn":
        return has_float8(architecture)
    return precision != "tfloat32" or has_tf32(architecture)


def meta(precision: str, depth: int) -> dict[str, object]:
    """Compile-time parameters of the kernel."""
    return {
        "ACCUMULATOR": tl.int32 if precision == "int8" else tl.float32,
        "INPUT_PRECISION": "tf32" if precision == "tfloat32" else "ieee",
        "TILE_M": TILE_M,
        "TILE_N": TILE_N,
        "K": depth,
        "UNROLL": UNROLL,
    }


@implementation("fma", "triton_matrix", devices=("cuda",), precisions=tuple(DTYPES))
def prepare(problem: Fma, constants: Tensors, context: Context) -> Run:
    """A program per group: a [128, depth] x [depth, 128] product."""
    if problem.unit != "matrix":
        raise Unsupported(f"measures the matrix unit; this problem asks for {problem.unit}")
    if (problem.chains, problem.lanes) != (TILE_M, TILE_N):
        raise Unsupported(
            f"a program's tile is {TILE_M} chains x {TILE_N} lanes, not {problem.chains} x {problem.lanes}"
        )
    least = LEAST_DEPTH.get(problem.precision, 16)
    if problem.depth & (problem.depth - 1) or not least <= problem.depth <= MOST_DEPTH:
        raise Unsupported(f"depth must be a power of two from {least} to {MOST_DEPTH}, not {problem.depth}")
    if context.device == "cuda" and not takes(problem.precision, architecture := local_architecture()):
        raise Unsupported(f"the matrix unit of {architecture} does not take {problem.precision}")
    config = {**CONFIGS[0], **context.config}
    grid = (problem.groups,)
    iterations = problem.iterations
    options = {**meta(problem.precision, problem.depth), "num_warps": config["num_warps"], "num_stages": NUM_STAGES}
    if context.device == "cuda":  # compile here, so that the time is prepare's
        operand = getattr(torch, STORAGE.get(problem.precision, problem.precision))
        result = torch.int32 if problem.precision == "int8" else torch.float32
        matrix_kernel.warmup(operand, operand, result, iterations, 1, grid=grid, **options)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        matrix_kernel[grid](inputs["x"], inputs["y"], out, iterations, 1, **options)

    return run


def compilations() -> tuple[Compilation, ...]:
    """What is compiled ahead of time: every precision at 512 bits of depth."""
    depths = {"bfloat16": 32, "float8_e4m3fn": 64, "int8": 64, "tfloat32": 16}
    return tuple(
        Compilation(
            kernel=matrix_kernel,
            label=f"fma matrix {precision} {TILE_M}x{TILE_N}x{depth}",
            signature={
                "x_ptr": f"*{DTYPES[precision]}",
                "y_ptr": f"*{DTYPES[precision]}",
                "out_ptr": "*i32" if precision == "int8" else "*fp32",
                "iterations": "i32",
                "one": "i32",
            },
            constexprs=meta(precision, depth),
            num_warps=CONFIGS[0]["num_warps"],
            num_stages=NUM_STAGES,
            aligned=("x_ptr", "y_ptr", "out_ptr", "iterations"),
            targets=tuple(name for name in TARGETS if takes(precision, name)),
        )
        for precision, depth in depths.items()
    )
