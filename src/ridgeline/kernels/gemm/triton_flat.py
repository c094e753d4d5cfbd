"""``gemm`` of few rows in Triton, after FlashDecoding++ (Hong et al. 2023): a flat GEMM and a GEMV.

Both read B once. The tile of B is as wide as leaves every multiprocessor a program: a wider one saves loads of A, a
narrower one occupies the device. FlashDecoding++ pads M to 8, the width of NVIDIA's MMA when A and B change places;
``tl.dot`` takes at least 16 rows, so the flat GEMM here pads to 16: twice the operations where they cost least, the
same bytes. The GEMV uses no matrix unit and pads to a power of two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import triton
import triton.language as tl

from ridgeline.analytical.operators import Gemm
from ridgeline.kernels.compiled import Compilation
from ridgeline.kernels.gemm import triton_gemm
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation

FLAT_ROWS = 64
"""Rows up to which one tile holds all of A's."""
GEMV_ROWS = 4
"""Rows up to which the GEMV's products fit in registers beside their operands."""
MULTIPROCESSORS = 132
"""Of an H100, for compiling where there is no GPU."""


@triton.jit
def gemv_kernel(
    a_ptr,  # [M, K]
    b_ptr,  # [K, N]
    c_ptr,  # [M, N]
    M,
    N,
    K,
    ROWS: tl.constexpr,  # M rounded up to a power of two
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.arange(0, ROWS)
    k = tl.arange(0, BLOCK_K)
    in_m, in_n = m < M, n < N
    a = a_ptr + m[:, None] * K + k[None, :]
    b = b_ptr + k.to(tl.int64)[:, None] * N + n[None, :]
    # Products are kept apart by k until the end: a sum over k in the loop would pass through shared memory each time.
    products = tl.zeros((ROWS, BLOCK_K, BLOCK_N), dtype=tl.float32)
    for start in range(0, K, BLOCK_K):
        in_k = k < K - start
        x = tl.load(a, mask=in_m[:, None] & in_k[None, :], other=0).to(tl.float32)
        y = tl.load(b, mask=in_k[:, None] & in_n[None, :], other=0).to(tl.float32)
        products += x[:, :, None] * y[None, :, :]
        a += BLOCK_K
        b += BLOCK_K * tl.cast(N, tl.int64)
    c = c_ptr + m.to(tl.int64)[:, None] * N + n[None, :]
    tl.store(c, tl.sum(products, 1).to(c_ptr.dtype.element_ty), mask=in_m[:, None] & in_n[None, :])


GEMV_CONFIG = {"block_k": 32, "num_warps": 4, "num_stages": 3}
FLAT_CONFIG = {"group_m": 1, "num_warps": 4, "num_stages": 3}
"""Without the tile. Three stages: two tiles of B are on their way while one is used."""


def tile_columns(n: int, multiprocessors: int) -> int:
    """Columns of a tile of B: the most of 128, 64, 32 that leaves each multiprocessor a program, else 32."""
    return next((width for width in (128, 64) if triton.cdiv(n, width) >= multiprocessors), 32)


def multiprocessors() -> int:
    """Of this process's GPU."""
    if not torch.cuda.is_available():
        return MULTIPROCESSORS
    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count)


def flat_config(m: int, n: int, precision: str, processors: int) -> dict[str, int]:
    """Tile of the flat GEMM: all rows of A, padded to 16, 32 or 64."""
    rows, columns = max(16, triton.next_power_of_2(m)), tile_columns(n, processors)
    # Three stages of the larger tiles at depth 128 would pass the 99 KiB of shared memory of sm_89 and sm_120.
    depth = 128 if rows * columns < 64 * 64 else 64
    if precision == "float32":
        depth //= 4  # without TF32 it runs on the vector lanes, which hold their operands in registers
    return {**FLAT_CONFIG, "block_m": rows, "block_n": columns, "block_k": depth}


@implementation(
    "gemm",
    "triton_flat",
    devices=("cuda",),
    precisions=("float32", "bfloat16", "float16"),
    papers=("flashdecoding-pp",),
)
def prepare_flat(problem: Gemm, constants: Tensors, context: Context) -> Run:
    """The tiled kernel of ``triton``, with one row of tiles."""
    if problem.m > FLAT_ROWS:
        raise Unsupported(f"made for up to {FLAT_ROWS} rows of A, not {problem.m}")
    config = flat_config(problem.m, problem.n, problem.precision, multiprocessors())
    return triton_gemm.prepare(problem, constants, replace(context, config={**config, **context.config}))


@implementation(
    "gemm",
    "triton_gemv",
    devices=("cuda",),
    precisions=("float32", "bfloat16", "float16"),
    papers=("flashdecoding-pp",),
)
def prepare_gemv(problem: Gemm, constants: Tensors, context: Context) -> Run:
    """Multiply-adds in float32 on the vector lanes."""
    if problem.m > GEMV_ROWS:
        raise Unsupported(f"made for up to {GEMV_ROWS} rows of A, not {problem.m}")
    b, m, n, k = constants["b"], problem.m, problem.n, problem.k
    width = {"block_n": tile_columns(n, multiprocessors())}
    options = gemv_options(m, {**GEMV_CONFIG, **width, **context.config})
    grid = (triton.cdiv(n, options["BLOCK_N"]),)
    if context.device == "cuda":  # compile here, so that the time is prepare's
        gemv_kernel.warmup(b.dtype, b.dtype, b.dtype, m, n, k, grid=grid, **options)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        gemv_kernel[grid](inputs["a"], b, out, m, n, k, **options)

    return run


def gemv_options(m: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """Compile-time parameters and options of the GEMV."""
    return {
        "ROWS": triton.next_power_of_2(m),
        "BLOCK_N": config["block_n"],
        "BLOCK_K": config["block_k"],
        "num_warps": config["num_warps"],
        "num_stages": config["num_stages"],
    }


def compilations() -> tuple[Compilation, ...]:
    """What is compiled ahead of time: the least and the most padded flat tile, and the GEMV of one row and of four."""
    flat = (
        ("float16", flat_config(8, 4096, "float16", MULTIPROCESSORS)),
        ("bfloat16", flat_config(64, 28672, "bfloat16", MULTIPROCESSORS)),
        ("float32", flat_config(16, 4096, "float32", MULTIPROCESSORS)),
    )
    gemv = (("bfloat16", 1, 32), ("bfloat16", 4, 64), ("float32", 1, 32))
    return (
        *(triton_gemm.compilation(precision, config, name="flat ") for precision, config in flat),
        *(_gemv_compilation(*case) for case in gemv),
    )


def _gemv_compilation(precision: str, m: int, width: int) -> Compilation:
    options = gemv_options(m, {**GEMV_CONFIG, "block_n": width})
    warps, stages = options.pop("num_warps"), options.pop("num_stages")
    dtype = triton_gemm.DTYPES[precision]
    return Compilation(
        kernel=gemv_kernel,
        label=f"gemm gemv {precision} {m}x{width}x{options['BLOCK_K']}",
        signature={
            "a_ptr": f"*{dtype}",
            "b_ptr": f"*{dtype}",
            "c_ptr": f"*{dtype}",
            "M": "i32",
            "N": "i32",
            "K": "i32",
        },
        constexprs=options,
        num_warps=warps,
        num_stages=stages,
        aligned=("a_ptr", "b_ptr", "c_ptr", "N", "K"),
    )
