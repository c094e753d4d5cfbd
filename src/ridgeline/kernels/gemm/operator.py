"""``gemm``: inputs, reference and tolerance of the dense matrix product."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import Gemm
from ridgeline.kernels.registry import Operator, Tensors, Tolerance, operator


@operator
class GemmOperator(Operator):
    """C[m, n] = A[m, k] B[k, n]: input ``a``, constant ``b``, standard normal (int8: uniform over its range)."""

    name = "gemm"
    baselines = {"cpu": "torch", "cuda": "torch"}
    tolerances = {
        "float64": Tolerance(1e-13, "float64 accumulation over k"),
        "float32": Tolerance(1e-5, "float32 accumulation over k: about sqrt(k) units of 6e-8"),
        "float16": Tolerance(2e-3, "rounding of C to float16: 5e-4 relative"),
        "bfloat16": Tolerance(1e-2, "rounding of C to bfloat16: 4e-3 relative"),
        "int8": Tolerance(0.0, "integer products and sums are exact"),
    }
    test_problems = tuple(
        Gemm(m=m, n=n, k=k, precision=precision)
        for precision in ("float32", "bfloat16", "float16", "int8")
        for m, n, k in ((1, 1, 1), (3, 5, 7), (1, 129, 65), (130, 66, 33), (65, 257, 191))
    )

    def make_constants(self, problem: Gemm, generator: torch.Generator) -> Tensors:
        return {"b": random_matrix(problem.k, problem.n, problem.precision, generator)}

    def make_inputs(self, problem: Gemm, generator: torch.Generator) -> Tensors:
        return {"a": random_matrix(problem.m, problem.k, problem.precision, generator)}

    def make_output(self, problem: Gemm) -> torch.Tensor:
        return torch.empty(problem.m, problem.n, dtype=getattr(torch, problem.output_precision))

    def reference(self, problem: Gemm, constants: Tensors, inputs: Tensors, rows: torch.Tensor | None) -> torch.Tensor:
        # float64 is exact for int8: |sum| <= k * 2^14 stays below 2^53 for any k that fits in memory.
        a = inputs["a"] if rows is None else inputs["a"][rows]
        return a.double() @ constants["b"].double()


def random_matrix(rows: int, columns: int, precision: str, generator: torch.Generator) -> torch.Tensor:
    """[rows, columns] of ``precision``: standard normal, or uniform over [-128, 127] for int8."""
    dtype = getattr(torch, precision)
    if dtype == torch.int8:
        return torch.randint(-128, 128, (rows, columns), generator=generator, dtype=torch.int8)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float32).to(dtype)
