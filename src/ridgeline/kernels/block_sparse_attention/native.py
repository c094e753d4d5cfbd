"""``block_sparse_attention`` in C++: AVX-512, AVX2 or portable; threads over heads and blocks of queries."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import BlockSparseAttention
from ridgeline.kernels.native.block_sparse import block_sparse_attention, block_sparse_paths
from ridgeline.kernels.native.build import NativeBuildError, NativeCallError
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation

LARGEST_BLOCK = 1024
"""A thread keeps the scores of one block of queries with one of keys: 4 MB at this size."""


@implementation("block_sparse_attention", "native", precisions=("float32",), papers=("s2-attention", "qwen25-1m"))
def prepare(problem: BlockSparseAttention, constants: Tensors, context: Context) -> Run:
    """Nothing is packed: the index is read in every call."""
    if problem.block > LARGEST_BLOCK:
        raise Unsupported(f"takes blocks of up to {LARGEST_BLOCK}, not {problem.block}")
    try:
        block_sparse_paths()
    except (NativeBuildError, NativeCallError) as error:
        raise Unsupported(str(error)) from None

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        block_sparse_attention(problem, inputs, out, context.threads)

    return run
