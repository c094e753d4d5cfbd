"""Block-sparse attention in C++: tensors are checked here, index entries where they are read."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Mapping

import torch

from ridgeline.analytical.operators import BlockSparseAttention
from ridgeline.kernels.native.build import check_status, load
from ridgeline.kernels.native.paths import Paths
from ridgeline.kernels.native.tensors import address

LOG2_E = math.log2(math.e)


@functools.cache
def _library() -> ctypes.CDLL:
    library = load("block_sparse")
    pointer, count = ctypes.c_void_p, ctypes.c_int32
    library.block_sparse_attention.argtypes = [*[pointer] * 9, ctypes.c_float, count, count, count]
    library.block_sparse_attention.restype = check_status
    return library


_PATHS = Paths(_library, "block_sparse_path")


def block_sparse_paths() -> tuple[str, ...]:
    """Instruction paths of this CPU, best first, of avx512, avx2, portable; ``RIDGELINE_NATIVE_ISA`` limits them."""
    return _PATHS.permitted()


def block_sparse_attention(
    problem: BlockSparseAttention,
    inputs: Mapping[str, torch.Tensor],
    out: torch.Tensor,
    threads: int = 1,
    *,
    path: str | None = None,
) -> None:
    """Fill ``out`` [batch, q_heads, q_length, d] with attention over what the index lists. float32; index int32.

    Args:
        problem: gives the shapes; what is listed comes from the inputs.
        inputs: ``q``, ``k``, ``v``, ``row_starts``, ``block_keys``, and ``column_starts`` with ``columns`` where single
            keys are listed.
        threads: of the pool.
        path: instruction path; by default the best.

    Raises:
        NativeCallError: for a tensor of another dtype, shape or layout, an index that points outside (``out`` is then
            partly written), more threads than CPUs, or a path that this CPU lacks.
    """
    number = _PATHS.number(path)
    heads, width = problem.batch * problem.q_heads, problem.head_dim
    kv = (problem.batch, problem.kv_heads, problem.length, width)
    starts = (heads, problem.block_rows + 1)
    blocks, columns = inputs["block_keys"], inputs.get("columns")
    pointers = [
        address(inputs["q"], "q", torch.float32, (problem.batch, problem.q_heads, problem.queries, width)),
        address(inputs["k"], "k", torch.float32, kv),
        address(inputs["v"], "v", torch.float32, kv),
        address(inputs["row_starts"], "row_starts", torch.int32, starts),
        address(blocks, "block_keys", torch.int32, (blocks.numel(),)),
        None if columns is None else address(inputs["column_starts"], "column_starts", torch.int32, starts),
        None if columns is None else address(columns, "columns", torch.int32, (columns.numel(),)),
        address(out, "out", torch.float32, (problem.batch, problem.q_heads, problem.queries, width)),
    ]
    sizes = (ctypes.c_int64 * 8)(
        heads, problem.q_heads // problem.kv_heads, problem.queries, problem.length, width, problem.block,
        blocks.numel(), 0 if columns is None else columns.numel(),
    )  # fmt: skip
    scale = LOG2_E / math.sqrt(width)
    _library().block_sparse_attention(*pointers, sizes, scale, int(problem.causal), threads, number)
