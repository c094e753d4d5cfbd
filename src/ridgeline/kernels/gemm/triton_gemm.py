"""``gemm`` in Triton: tiles on the matrix unit, programs ordered in groups so that neighbours share operands in L2.

The program order is that of the Triton tutorial "Matrix Multiplication" (Tillet et al. 2019, section 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from ridgeline.analytical.operators import Gemm
from ridgeline.kernels.compiled import TARGETS, Compilation, has_tf32, local_architecture
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation


@triton.jit
def gemm_kernel(
    a_ptr,  # [M, K]
    b_ptr,  # [K, N]; with B_TRANSPOSED [N, K]
    c_ptr,  # [M, N]
    M,
    N,
    K,
    ACCUMULATOR: tl.constexpr,  # float32, or int32 for int8 operands
    INPUT_PRECISION: tl.constexpr,  # how float32 operands are multiplied: ieee or tf32
    B_TRANSPOSED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    program = tl.program_id(0)
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    # GROUP_M rows of tiles are walked column by column: a wave of programs then touches few distinct A and B tiles.
    group = program // (GROUP_M * tiles_n)
    group_rows = tl.minimum(tiles_m - group * GROUP_M, GROUP_M)
    within = program % (GROUP_M * tiles_n)
    m = (group * GROUP_M + within % group_rows) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = (within // group_rows) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)

    # int64: m * K passes 2^31 for matrices of more than 2 G elements.
    a = a_ptr + m.to(tl.int64)[:, None] * K + k[None, :]
    if B_TRANSPOSED:
        b = b_ptr + k[:, None] + n.to(tl.int64)[None, :] * K
    else:
        b = b_ptr + k.to(tl.int64)[:, None] * N + n[None, :]
    in_m, in_n = m < M, n < N
    accumulator = tl.zeros((BLOCK_M, BLOCK_N), dtype=ACCUMULATOR)
    for start in range(0, K, BLOCK_K):
        in_k = k < K - start
        a_tile = tl.load(a, mask=in_m[:, None] & in_k[None, :], other=0)
        b_tile = tl.load(b, mask=in_k[:, None] & in_n[None, :], other=0)
        accumulator = tl.dot(a_tile, b_tile, accumulator, input_precision=INPUT_PRECISION, out_dtype=ACCUMULATOR)
        a += BLOCK_K
        if B_TRANSPOSED:
            b += BLOCK_K
        else:
            b += BLOCK_K * tl.cast(N, tl.int64)
    c = c_ptr + m.to(tl.int64)[:, None] * N + n[None, :]
    tl.store(c, accumulator.to(c_ptr.dtype.element_ty), mask=in_m[:, None] & in_n[None, :])


CONFIGS: Mapping[str, tuple[dict[str, int], ...]] = {
    # float32 without TF32 runs on the vector lanes: small tiles, since a thread holds operands and accumulators.
    "float32": (
        {"block_m": 64, "block_n": 64, "block_k": 16, "group_m": 8, "num_warps": 4, "num_stages": 3},
        {"block_m": 128, "block_n": 64, "block_k": 16, "group_m": 8, "num_warps": 8, "num_stages": 3},
    ),
    "half": (
        {"block_m": 128, "block_n": 128, "block_k": 64, "group_m": 8, "num_warps": 8, "num_stages": 3},
        {"block_m": 64, "block_n": 128, "block_k": 64, "group_m": 8, "num_warps": 4, "num_stages": 4},
        {"block_m": 16, "block_n": 64, "block_k": 128, "group_m": 8, "num_warps": 4, "num_stages": 4},
    ),
    "int8": (
        {"block_m": 128, "block_n": 128, "block_k": 64, "group_m": 8, "num_warps": 8, "num_stages": 3},
        {"block_m": 64, "block_n": 64, "block_k": 128, "group_m": 8, "num_warps": 4, "num_stages": 3},
        {"block_m": 16, "block_n": 64, "block_k": 128, "group_m": 8, "num_warps": 4, "num_stages": 4},
    ),
}
"""Tuning space by kind of operand: the first entry is for large m, the last for m up to 16; float32: ``float32_tile``."""
HOPPER: Mapping[str, dict[str, int]] = {
    "half": {"block_m": 128, "block_n": 256, "block_k": 64, "group_m": 8, "num_warps": 8, "num_stages": 4},
    "int8": {"block_m": 128, "block_n": 128, "block_k": 128, "group_m": 8, "num_warps": 8, "num_stages": 3},
}
"""The same for sm_90 and m of 1024 on. On an H200, 2048x4096x4096: bfloat16 725 TFLOP/s for 609 with the first entry of
``CONFIGS`` (cuBLAS 760), int8 1145 TOP/s for 817. Their shared memory, 192 and 96 KiB, is not everywhere."""

DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "int8": "i8", "int32": "i32"}
"""Triton's name of a torch precision."""


def default_config(problem: Gemm, architecture: str) -> dict[str, int]:
    """The tile for this shape on ``architecture`` (such as sm_90): narrow in m for a handful of rows."""
    kind = problem.precision if problem.precision in CONFIGS else "half"
    if architecture == "sm_90" and problem.m >= 1024 and kind in HOPPER:
        return dict(HOPPER[kind])
    if kind == "float32":
        return dict(float32_tile(architecture))
    return dict(CONFIGS[kind][-1] if problem.m <= 16 else CONFIGS[kind][0])


def float32_tile(architecture: str) -> Mapping[str, int]:
    """The tile of exact float32 products, whatever m. The first spills 16 bytes a thread on sm_120."""
    return CONFIGS["float32"][architecture.startswith("sm_12")]


def configurations(problem: Gemm) -> Sequence[Mapping[str, int]]:
    """Tuning space of a problem: the tiles of its kind of operand, and Hopper's."""
    kind = problem.precision if problem.precision in CONFIGS else "half"
    return [*CONFIGS[kind], *([HOPPER[kind]] if kind in HOPPER else [])]


def compilation(problem: Gemm, config: Mapping[str, Any]) -> Compilation:
    """One tile of the space, as it would be compiled."""
    return tile_compilation(problem.precision, config)


def meta(precision: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Compile-time parameters of the kernel for one tile."""
    return {
        "ACCUMULATOR": tl.int32 if precision == "int8" else tl.float32,
        "INPUT_PRECISION": config.get("input_precision", "ieee"),
        # The matrix units take int8 operands along k; 16-bit ones are transposed on the way from shared memory.
        "B_TRANSPOSED": precision == "int8",
        "BLOCK_M": config["block_m"],
        "BLOCK_N": config["block_n"],
        "BLOCK_K": config["block_k"],
        "GROUP_M": config["group_m"],
    }


@implementation("gemm", "triton", devices=("cuda",), precisions=("float32", "bfloat16", "float16", "int8"))
def prepare(problem: Gemm, constants: Tensors, context: Context) -> Run:
    """Tiles from ``context.config`` (keys as in ``CONFIGS``) or by shape; float32 products are exact (no TF32).

    int8 weights are transposed here: they are constants.
    """
    architecture = local_architecture() if context.device == "cuda" else ""
    config = {**default_config(problem, architecture), **context.config}
    b = constants["b"].T.contiguous() if problem.precision == "int8" else constants["b"]
    m, n, k = problem.m, problem.n, problem.k
    grid = (triton.cdiv(m, config["block_m"]) * triton.cdiv(n, config["block_n"]),)
    options = {
        **meta(problem.precision, config),
        "num_warps": config["num_warps"],
        "num_stages": config["num_stages"],
    }
    if context.device == "cuda":  # compile here, so that the time is prepare's
        gemm_kernel.warmup(b.dtype, b.dtype, getattr(torch, problem.output_precision), m, n, k, grid=grid, **options)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        gemm_kernel[grid](inputs["a"], b, out, m, n, k, **options)

    return run


@implementation("gemm", "triton_tf32", devices=("cuda",), precisions=("float32",), tf32=True)
def prepare_tf32(problem: Gemm, constants: Tensors, context: Context) -> Run:
    """The same kernel with float32 operands rounded to TF32 (10 stored significand bits) on the matrix unit."""
    if context.device == "cuda" and not has_tf32(architecture := local_architecture()):
        raise Unsupported(f"the matrix unit of {architecture} does not take TF32")
    tile = {"block_m": 128, "block_n": 128, "block_k": 32, "num_warps": 8, "input_precision": "tf32"}
    config = {**tile, **context.config}
    return prepare(problem, constants, Context(context.device, context.threads, config))


def compilations() -> tuple[Compilation, ...]:
    """What is compiled ahead of time: the default tile of each precision, and the narrow one."""
    tf32 = {**CONFIGS["float32"][0], "block_m": 128, "block_n": 128, "block_k": 32, "num_warps": 8}
    cases = (
        ("float32", {**tf32, "input_precision": "tf32"}),
        ("bfloat16", CONFIGS["half"][0]),
        ("float16", CONFIGS["half"][-1]),
        ("int8", CONFIGS["int8"][0]),
    )
    hopper = (("bfloat16", HOPPER["half"]), ("int8", HOPPER["int8"]))
    tiles = CONFIGS["float32"]
    return (
        *(
            tile_compilation("float32", tile, targets=tuple(name for name in TARGETS if float32_tile(name) == tile))
            for tile in tiles
        ),
        *(tile_compilation(precision, config) for precision, config in cases),
        *(tile_compilation(precision, config, targets=("sm_90",)) for precision, config in hopper),
    )


def tile_compilation(
    precision: str, config: Mapping[str, Any], *, name: str = "", targets: tuple[str, ...] = ()
) -> Compilation:
    """One tile of the kernel; ``name`` stands before the precision in its label."""
    operand, result = DTYPES[precision], DTYPES["int32" if precision == "int8" else precision]
    variant = " tf32" if config.get("input_precision") == "tf32" else ""
    return Compilation(
        kernel=gemm_kernel,
        label=f"gemm {name}{precision}{variant} {config['block_m']}x{config['block_n']}x{config['block_k']}",
        signature={
            "a_ptr": f"*{operand}",
            "b_ptr": f"*{operand}",
            "c_ptr": f"*{result}",
            "M": "i32",
            "N": "i32",
            "K": "i32",
        },
        constexprs=meta(precision, config),
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        aligned=("a_ptr", "b_ptr", "c_ptr", "M", "N", "K"),
        targets=tuple(name for name in TARGETS if has_tf32(name)) if variant else targets,
    )
