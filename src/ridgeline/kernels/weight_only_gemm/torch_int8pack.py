"""``weight_only_gemm`` by ``torch._weight_int8pack_mm``: int8 weights, one scale per output channel."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import WeightOnlyGemm
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation

VECTOR_K = 16
"""k step of the vector kernels (aten/src/ATen/native/cpu/int8mm_kernel.cpp: bfloat16 on x86 16, all precisions on ARM
8), which have no tail and check nothing: with another k they read past the rows (seen with torch 2.13 in bfloat16:
wrong values, then a segmentation fault)."""
ALIGNMENT_BYTES = 32
"""The bfloat16 kernel reads x with aligned vector loads."""


@implementation(
    "weight_only_gemm", "torch_int8_packed", devices=("cpu",), precisions=("float32", "bfloat16", "float16")
)
def prepare(problem: WeightOnlyGemm, constants: Tensors, context: Context) -> Run:
    """bfloat16 has a vector kernel on x86; float32 and float16 run torch's plain loops there."""
    if problem.weight != "int8":
        raise Unsupported(f"torch._weight_int8pack_mm takes int8 weights, not {problem.weight}")
    if problem.group != problem.k:
        raise Unsupported(
            f"torch._weight_int8pack_mm takes one scale per channel of k={problem.k}, not one per {problem.group}"
        )
    if problem.k % VECTOR_K:
        raise Unsupported(f"torch._weight_int8pack_mm needs k divisible by {VECTOR_K}; k is {problem.k}")
    q, scale = constants["q"].contiguous(), constants["scale"].reshape(-1)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        x = inputs["x"]
        if x.data_ptr() % ALIGNMENT_BYTES:
            x = x.clone()
        out.copy_(torch._weight_int8pack_mm(x, q, scale))

    return run
