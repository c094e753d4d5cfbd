"""``weight_only_gemm`` in Triton: int8 or int4 weights, turned into the activations' precision in registers.

The kernel computes Y^T = W X^T: the dequantised weight is then the left operand, which the matrix units of sm_90 and
later take from registers (PTX ISA, wgmma: A may be in registers, B may not), and n, the long side, fills the tile's M.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from ridgeline.analytical.operators import WeightOnlyGemm
from ridgeline.kernels.compiled import Compilation
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


@triton.jit
def multiply(
    accumulator,  # [BLOCK_N, BLOCK_M]
    weight,  # [BLOCK_N, BLOCK_K] integers
    x_row,  # pointers to X[m, 0], [BLOCK_M]
    scale_row,  # pointers to scale[n, 0], [BLOCK_N]
    in_m,
    in_n,
    start,  # first k of the tile
    K,
    GROUP: tl.constexpr,
    SCALE_TILE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
):
    """Add weight @ X[:, start : start + BLOCK_K]^T, each weight times the scale of its group."""
    k = start + tl.arange(0, BLOCK_K)
    in_k = k < K
    x = tl.load(x_row[None, :] + k[:, None], mask=in_k[:, None] & in_m[None, :], other=0.0)
    if SCALE_TILE == "element":
        scale = tl.load(scale_row[:, None] + (k // GROUP)[None, :], mask=in_n[:, None] & in_k[None, :], other=0.0)
        weight = (weight.to(tl.float32) * scale.to(tl.float32)).to(x.dtype)
    elif SCALE_TILE == "row":  # the whole tile lies in one group
        scale = tl.load(scale_row + start // GROUP, mask=in_n, other=0.0)
        weight = (weight.to(tl.float32) * scale.to(tl.float32)[:, None]).to(x.dtype)
    else:  # one group spans all of k: its scale is applied to the sum, and the integers are exact until then
        weight = weight.to(tl.float32).to(x.dtype)
    return tl.dot(weight, x, accumulator, input_precision=INPUT_PRECISION)


@triton.jit
def weight_only_gemm_kernel(
    x_ptr,  # [M, K]
    weight_ptr,  # [N, K] int8, or [N, HALF] with two int4 in a byte
    scale_ptr,  # [N, K / GROUP]
    y_ptr,  # [M, N]
    M,
    N,
    K,
    HALF,  # bytes of a row of weights
    GROUP: tl.constexpr,
    PACKED: tl.constexpr,  # int4: byte j of a row holds k = j in its low nibble and k = HALF + j in its high one
    SCALE_TILE: tl.constexpr,  # element, row or sum: how far apart the scales of a tile are
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
):
    tiles_m = tl.cdiv(M, BLOCK_M)  # m is short: the programs that share weights run side by side
    m = (tl.program_id(0) % tiles_m) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = (tl.program_id(0) // tiles_m) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = m < M, n < N
    x_row = x_ptr + m.to(tl.int64) * K
    scale_row = scale_ptr + n.to(tl.int64) * (K // GROUP)
    column = tl.arange(0, BLOCK_K)
    weight_tile = weight_ptr + n.to(tl.int64)[:, None] * HALF + column[None, :]
    accumulator = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    for start in range(0, HALF, BLOCK_K):
        in_row = column < HALF - start
        stored = tl.load(weight_tile + start, mask=in_n[:, None] & in_row[None, :], other=0)
        if PACKED:
            low = (stored << 4) >> 4  # shifting an int8 right repeats its sign
            accumulator = multiply(
                accumulator, low, x_row, scale_row, in_m, in_n, start, K, GROUP, SCALE_TILE, BLOCK_K, INPUT_PRECISION
            )
            high = stored >> 4
            # Beyond its HALF columns a tile of low nibbles reads X that belongs to the high ones: its weights are 0.
            accumulator = multiply(
                accumulator, high, x_row, scale_row, in_m, in_n, HALF + start, K, GROUP, SCALE_TILE, BLOCK_K,
                INPUT_PRECISION,
            )  # fmt: skip
        else:
            accumulator = multiply(
                accumulator, stored, x_row, scale_row, in_m, in_n, start, K, GROUP, SCALE_TILE, BLOCK_K, INPUT_PRECISION
            )
    if SCALE_TILE == "sum":
        accumulator *= tl.load(scale_row, mask=in_n, other=0.0).to(tl.float32)[:, None]
    y = y_ptr + m.to(tl.int64)[None, :] * N + n[:, None]
    tl.store(y, accumulator.to(y_ptr.dtype.element_ty), mask=in_n[:, None] & in_m[None, :])


CONFIGS: tuple[dict[str, int], ...] = (
    {"block_m": 16, "block_n": 64, "block_k": 64, "num_warps": 4, "num_stages": 4},
    {"block_m": 64, "block_n": 128, "block_k": 64, "num_warps": 8, "num_stages": 3},
    {"block_m": 16, "block_n": 64, "block_k": 128, "num_warps": 4, "num_stages": 4},
    {"block_m": 16, "block_n": 32, "block_k": 128, "num_warps": 4, "num_stages": 4},
)
"""Tuning space: the first entry is for m up to 16, the second for more. block_k counts bytes of a weight row."""

DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""Triton's name of a torch precision."""


def pack_int4(q: torch.Tensor) -> torch.Tensor:
    """Two int4 in a byte, [n, ceil(k / 2)] int8: column j in the low nibble, column ceil(k / 2) + j in the high one.

    Halves rather than neighbours share a byte, so that either nibble of a tile is a contiguous run of k and no
    interleaving is needed in registers. An odd k leaves one high nibble zero.
    """
    n, k = q.shape
    half = (k + 1) // 2
    low, high = q[:, :half], torch.zeros(n, half, dtype=torch.int8, device=q.device)
    high[:, : k - half] = q[:, half:]
    return ((low & 0xF) | (high << 4)).contiguous()


def scale_tile(problem: WeightOnlyGemm, block_k: int) -> str:
    """How the kernel reads scales: once at the end (``sum``), per row of a tile (``row``), or for each ``element``."""
    if problem.group == problem.k:
        return "sum"
    starts_align = problem.weight == "int8" or (problem.k % 2 == 0 and (problem.k // 2) % block_k == 0)
    return "row" if problem.group % block_k == 0 and starts_align else "element"


def meta(group: int, packed: bool, scales: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Compile-time parameters of the kernel."""
    return {
        "GROUP": group,
        "PACKED": packed,
        "SCALE_TILE": scales,
        "BLOCK_M": config["block_m"],
        "BLOCK_N": config["block_n"],
        "BLOCK_K": config["block_k"],
        "INPUT_PRECISION": config.get("input_precision", "ieee"),
    }


@implementation(
    "weight_only_gemm",
    "triton",
    devices=("cuda",),
    precisions=("float32", "bfloat16", "float16"),
)
def prepare(problem: WeightOnlyGemm, constants: Tensors, context: Context) -> Run:
    """Packs int4 weights; tiles from ``context.config`` (keys as in ``CONFIGS``) or by m."""
    config = {**CONFIGS[0 if problem.m <= 16 else 1], **context.config}
    packed = problem.weight == "int4"
    weight = pack_int4(constants["q"]) if packed else constants["q"].contiguous()
    scale = constants["scale"].contiguous()
    m, n, k, half = problem.m, problem.n, problem.k, weight.shape[1]
    grid = (triton.cdiv(m, config["block_m"]) * triton.cdiv(n, config["block_n"]),)
    options = {
        **meta(problem.group, packed, scale_tile(problem, config["block_k"]), config),
        "num_warps": config["num_warps"],
        "num_stages": config["num_stages"],
    }
    if context.device == "cuda":  # compile here, so that the time is prepare's
        dtype = scale.dtype
        weight_only_gemm_kernel.warmup(dtype, torch.int8, dtype, dtype, m, n, k, half, grid=grid, **options)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        weight_only_gemm_kernel[grid](inputs["x"], weight, scale, out, m, n, k, half, **options)

    return run


def configurations(problem: WeightOnlyGemm) -> Sequence[Mapping[str, int]]:
    """Tuning space of a problem: every tile."""
    return CONFIGS


def compilation(problem: WeightOnlyGemm, config: Mapping[str, Any]) -> Compilation:
    """One tile of the space, as it would be compiled."""
    scales = scale_tile(problem, config["block_k"])
    return _compilation(problem.precision, problem.group, problem.weight == "int4", scales, config)


def compilations() -> tuple[Compilation, ...]:
    """What is compiled ahead of time: int4 in groups of 128 (decode and a wider batch), int8 per channel."""
    return (
        _compilation("bfloat16", 128, True, "row", CONFIGS[0]),
        _compilation("float16", 128, True, "row", CONFIGS[1]),
        _compilation("bfloat16", 4096, False, "sum", CONFIGS[0]),
    )


def _compilation(precision: str, group: int, packed: bool, scales: str, config: Mapping[str, int]) -> Compilation:
    pointer = f"*{DTYPES[precision]}"
    sizes = {"M": "i32", "N": "i32", "K": "i32", "HALF": "i32"}
    tile = f"{config['block_n']}x{config['block_m']}x{config['block_k']}"
    return Compilation(
        kernel=weight_only_gemm_kernel,
        label=f"weight_only_gemm {'int4' if packed else 'int8'} g{group} {precision} {tile}",
        signature={"x_ptr": pointer, "weight_ptr": "*i8", "scale_ptr": pointer, "y_ptr": pointer, **sizes},
        constexprs=meta(group, packed, scales, config),
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        # A batch of any size: m is not aligned.
        aligned=("x_ptr", "weight_ptr", "scale_ptr", "y_ptr", "N", "K", "HALF"),
    )
