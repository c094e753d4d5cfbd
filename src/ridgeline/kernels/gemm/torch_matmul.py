"""``gemm`` by torch: oneDNN or MKL on the CPU, cuBLAS on CUDA."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import Gemm
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation


@implementation(
    "gemm", "torch", devices=("cpu", "cuda"), precisions=("float64", "float32", "bfloat16", "float16", "int8")
)
def prepare(problem: Gemm, constants: Tensors, context: Context) -> Run:
    """``torch.matmul``; for int8 ``torch._int_mm`` (int32 accumulation)."""
    b = constants["b"]
    if problem.precision == "int8":
        if context.device == "cuda" and (problem.m <= 16 or problem.k % 8 or problem.n % 8):
            raise Unsupported("torch._int_mm on CUDA needs m > 16 and k, n divisible by 8")

        def run_int8(inputs: Tensors, out: torch.Tensor) -> None:
            torch._int_mm(inputs["a"], b, out=out)

        return run_int8

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        torch.matmul(inputs["a"], b, out=out)

    return run
