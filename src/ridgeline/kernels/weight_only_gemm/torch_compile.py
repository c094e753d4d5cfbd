"""``weight_only_gemm`` by ``torch.compile``: Inductor fuses the dequantisation into one pass, or into the product."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

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
    compiled = _compiled(problem, scale.dtype, scale.device)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        compiled(inputs["x"], stored, scale, out)

    return run


# One for all sets of weights of a case: beside a last-level cache of 480 MiB a case has 1,200 of them, which took half
# a minute and 6 GB to compile one by one.
@lru_cache(maxsize=1)
def _compiled(problem: WeightOnlyGemm, dtype: torch.dtype, device: torch.device) -> Callable[..., None]:
    def multiply(x: torch.Tensor, stored: torch.Tensor, scale: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(x @ dequantise(problem, stored, scale).T)

    def empty(columns: int) -> torch.Tensor:
        return torch.zeros(problem.m, columns, dtype=dtype, device=device)

    stored = store(problem, torch.zeros(problem.n, problem.k, dtype=torch.int8, device=device))
    scale = torch.zeros(problem.n, problem.k // problem.group, dtype=dtype, device=device)
    return compile_once(multiply, (empty(problem.k), stored, scale, empty(problem.n)))
