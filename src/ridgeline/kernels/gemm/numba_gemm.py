"""``gemm`` in numba: B packed in panels, A read as scalars, blocks of k held in cache.

The loop order is that of GotoBLAS (Goto, van de Geijn 2008) without its assembly: numba has no register arrays, so
the tile of C lives in the first-level cache and each visit to it does 4 x 4 multiply-adds per element pair loaded.
"""

from __future__ import annotations

import numba
import numpy as np
import torch

from ridgeline.analytical.operators import Gemm
from ridgeline.kernels.gemm.panels import pack
from ridgeline.kernels.registry import Context, Run, Tensors, implementation

# numba's own thread pool. Its OpenMP layer would be a second OpenMP runtime beside torch's, with threads that spin.
numba.config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]  # numba sets its options from code

PANEL = 64
"""Columns of B in a panel: four vectors of AVX-512."""
BLOCK_M = 64
"""Rows of A that reuse a block of a panel."""
BLOCK_K = 256
"""Depth of a block: 64 KiB of a float32 panel, in the second-level cache (128 was seen a quarter slower). Up to
2^24 / 2^14 = 1024 the float32 accumulator is exact for int8, whose products are at most 2^14."""


@numba.njit(parallel=True, fastmath={"contract"}, error_model="numpy")
def multiply(a: np.ndarray, panels: np.ndarray, c: np.ndarray) -> None:
    """C[m, n] = A[m, k] B, with B as [n / PANEL, k, PANEL] flat; float32 inside a block of k, C's dtype between."""
    m, k = a.shape
    n = c.shape[1]
    blocks_m = (m + BLOCK_M - 1) // BLOCK_M
    blocks_n = (n + PANEL - 1) // PANEL
    for item in numba.prange(blocks_m * blocks_n):
        # Neighbouring items share a panel.
        panel, first_row = item // blocks_m, (item % blocks_m) * BLOCK_M
        first_column = panel * PANEL
        rows, columns = min(BLOCK_M, m - first_row), min(PANEL, n - first_column)
        tile = np.empty(4 * PANEL, dtype=np.float32)
        for first_k in range(0, k, BLOCK_K):
            last_k = min(k, first_k + BLOCK_K)
            row = first_row
            while row < first_row + rows:
                height = 4 if row + 4 <= first_row + rows else 1
                tile[:] = 0
                if height == 4:
                    four_rows(a, panels, tile, row, panel * k, first_k, last_k)
                else:
                    one_row(a, panels, tile, row, panel * k, first_k, last_k)
                for i in range(height):
                    if first_k == 0:
                        for j in range(columns):
                            c[row + i, first_column + j] = tile[i * PANEL + j]
                    else:
                        for j in range(columns):
                            c[row + i, first_column + j] += c.dtype.type(tile[i * PANEL + j])
                row += height


@numba.njit(fastmath={"contract"}, error_model="numpy")
def four_rows(
    a: np.ndarray, panels: np.ndarray, tile: np.ndarray, row: int, panel_row: int, first_k: int, last_k: int
) -> None:
    """tile[4, PANEL] += A[row : row + 4, first_k : last_k] times that part of the panel."""
    # Unsigned indices: numba gives signed ones a test for "from the end", which stops LLVM's vectoriser.
    width = np.uint64(PANEL)
    kk = first_k
    while kk + 4 <= last_k:
        b = np.uint64((panel_row + kk) * PANEL)
        a00, a01, a02, a03 = f32(a[row, kk]), f32(a[row, kk + 1]), f32(a[row, kk + 2]), f32(a[row, kk + 3])
        i = row + 1
        a10, a11, a12, a13 = f32(a[i, kk]), f32(a[i, kk + 1]), f32(a[i, kk + 2]), f32(a[i, kk + 3])
        i = row + 2
        a20, a21, a22, a23 = f32(a[i, kk]), f32(a[i, kk + 1]), f32(a[i, kk + 2]), f32(a[i, kk + 3])
        i = row + 3
        a30, a31, a32, a33 = f32(a[i, kk]), f32(a[i, kk + 1]), f32(a[i, kk + 2]), f32(a[i, kk + 3])
        for lane in range(PANEL):
            j = np.uint64(lane)
            b0, b1 = f32(panels[b + j]), f32(panels[b + width + j])
            b2, b3 = f32(panels[b + width * np.uint64(2) + j]), f32(panels[b + width * np.uint64(3) + j])
            j1, j2, j3 = j + width, j + width * np.uint64(2), j + width * np.uint64(3)
            tile[j] = tile[j] + a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3
            tile[j1] = tile[j1] + a10 * b0 + a11 * b1 + a12 * b2 + a13 * b3
            tile[j2] = tile[j2] + a20 * b0 + a21 * b1 + a22 * b2 + a23 * b3
            tile[j3] = tile[j3] + a30 * b0 + a31 * b1 + a32 * b2 + a33 * b3
        kk += 4
    while kk < last_k:
        b = np.uint64((panel_row + kk) * PANEL)
        for i in range(4):
            value, start = f32(a[row + i, kk]), np.uint64(i * PANEL)
            for lane in range(PANEL):
                j = np.uint64(lane)
                tile[start + j] = tile[start + j] + value * f32(panels[b + j])
        kk += 1


@numba.njit(fastmath={"contract"}, error_model="numpy")
def one_row(
    a: np.ndarray, panels: np.ndarray, tile: np.ndarray, row: int, panel_row: int, first_k: int, last_k: int
) -> None:
    """tile[0, PANEL] += A[row, first_k : last_k] times that part of the panel."""
    width = np.uint64(PANEL)
    kk = first_k
    while kk + 4 <= last_k:
        b = np.uint64((panel_row + kk) * PANEL)
        a0, a1, a2, a3 = f32(a[row, kk]), f32(a[row, kk + 1]), f32(a[row, kk + 2]), f32(a[row, kk + 3])
        for lane in range(PANEL):
            j = np.uint64(lane)
            b0, b1 = f32(panels[b + j]), f32(panels[b + width + j])
            b2, b3 = f32(panels[b + width * np.uint64(2) + j]), f32(panels[b + width * np.uint64(3) + j])
            tile[j] = tile[j] + a0 * b0 + a1 * b1 + a2 * b2 + a3 * b3
        kk += 4
    while kk < last_k:
        b = np.uint64((panel_row + kk) * PANEL)
        value = f32(a[row, kk])
        for lane in range(PANEL):
            j = np.uint64(lane)
            tile[j] = tile[j] + value * f32(panels[b + j])
        kk += 1


f32 = np.float32


@implementation("gemm", "numba", devices=("cpu",), precisions=("float32", "int8"))
def prepare(problem: Gemm, constants: Tensors, context: Context) -> Run:
    """One parallel loop over tiles of C; ``context.threads`` threads, at most those that numba may use."""
    panels = pack(constants["b"], PANEL).view(-1).numpy()
    threads = min(context.threads, numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        numba.set_num_threads(threads)  # per thread of Python and cheap; another prepared state may have changed it
        multiply(inputs["a"].numpy(), panels, out.numpy())

    # Compiles for these types, so that the time is prepare's.
    dtype, out_dtype = getattr(torch, problem.precision), getattr(torch, problem.output_precision)
    empty = torch.zeros(1, 0, dtype=dtype)
    run({"a": empty}, torch.empty(1, 1, dtype=out_dtype))
    return run
