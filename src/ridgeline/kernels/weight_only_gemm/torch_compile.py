"""``weight_only_gemm`` by ``torch.compile``: Inductor fuses the dequantisation into one pass, or into the product."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import WeightOnlyGemm
from ridgeline.kernels.inductor import compile_once
from ridgeline.kernels.registry import Context, Run, Tensors, implementation
from ridgeline.kernels.weight_only_gemm.torch_dequant import dequantise, store


@implementation(
    "weight_only_gemm", "torch_compile", devices=("cpu", "cuda"), precisions=("float32", "bfloat16", "float16")
)
def prepare(problem: WeightOnlyGemm, constants: Tensors, context: Context) -> Run:
    """Static shapes, one graph, compiled here; weights are arguments of the graph, so that they are not folded."""
    stored, scale = store(problem, constants["q"]), constants["scale"].contiguous()

    def multiply(x: torch.Tensor, stored: torch.Tensor, scale: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(x @ dequantise(problem, stored, scale).T)

    def empty(columns: int) -> torch.Tensor:
        return torch.zeros(problem.m, columns, dtype=scale.dtype, device=scale.device)

    compiled = compile_once(multiply, (empty(problem.k), stored, scale, empty(problem.n)))

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        compiled(inputs["x"], stored, scale, out)

    return run
