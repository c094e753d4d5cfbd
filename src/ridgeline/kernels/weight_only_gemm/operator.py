"""``weight_only_gemm``: inputs, reference and tolerance of a product with integer weights and a scale per group."""

from __future__ import annotations

import math

import torch

from ridgeline.analytical.operators import WeightOnlyGemm
from ridgeline.kernels.registry import Operator, Tensors, Tolerance, operator

WEIGHT_RANGE = {"int8": (-127, 127), "int4": (-8, 7)}
"""Smallest and largest stored value."""


def weight_case(m: int, n: int, k: int, weight: str, group: int, precision: str) -> WeightOnlyGemm:
    """A test problem."""
    return WeightOnlyGemm(m=m, n=n, k=k, weight=weight, group=group, precision=precision)


@operator
class WeightOnlyGemmOperator(Operator):
    """Y[m, n] = X[m, k] (scale * q)[n, k]^T: input ``x`` [m, k]; constants ``q`` int8 [n, k], ``scale`` [n, k / group].

    x is standard normal, q uniform over the values of ``problem.weight`` (int4 too is handed over one value in a byte;
    packing is ``prepare``'s), scale positive and such that y has a standard deviation of about 1.
    """

    name = "weight_only_gemm"
    baselines = {"cpu": "torch_dequantise", "cuda": "torch_dequantise"}
    # Worst seen over the test problems on x86: float32 2e-7, float16 4e-4, bfloat16 3e-3.
    tolerances = {
        "float32": Tolerance(1e-5, "float32 accumulation over k: about sqrt(k) units of 6e-8"),
        "float16": Tolerance(2e-3, "rounding of scale * q and of Y to float16: 5e-4 relative each"),
        "bfloat16": Tolerance(1e-2, "rounding of scale * q and of Y to bfloat16: 4e-3 relative each"),
    }
    test_problems = (
        weight_case(1, 1, 1, "int8", 1, "float32"),
        weight_case(3, 5, 7, "int4", 7, "float32"),
        weight_case(5, 33, 48, "int8", 48, "float32"),
        weight_case(14, 49, 600, "int8", 600, "float32"),
        weight_case(1, 129, 64, "int8", 64, "bfloat16"),
        weight_case(7, 66, 192, "int8", 192, "bfloat16"),
        weight_case(33, 34, 96, "int8", 96, "float16"),
        weight_case(9, 65, 191, "int8", 191, "bfloat16"),
        weight_case(13, 47, 120, "int8", 40, "bfloat16"),
        weight_case(1, 48, 64, "int4", 32, "float32"),
        weight_case(5, 80, 384, "int4", 128, "bfloat16"),
        weight_case(33, 112, 256, "int4", 256, "bfloat16"),
        weight_case(3, 64, 192, "int4", 64, "float16"),
        weight_case(3, 67, 130, "int4", 65, "bfloat16"),
        weight_case(17, 31, 96, "int4", 32, "float16"),
    )

    def make_constants(self, problem: WeightOnlyGemm, generator: torch.Generator) -> dict[str, torch.Tensor]:
        low, high = WEIGHT_RANGE[problem.weight]
        q = torch.randint(low, high + 1, (problem.n, problem.k), generator=generator, dtype=torch.int8)
        spread = torch.rand(problem.n, problem.k // problem.group, generator=generator) + 0.5
        deviation = (high - low) / math.sqrt(12.0)  # of a uniform distribution
        scale = spread / (deviation * math.sqrt(problem.k))
        return {"q": q, "scale": scale.to(getattr(torch, problem.precision))}

    def make_inputs(self, problem: WeightOnlyGemm, generator: torch.Generator) -> dict[str, torch.Tensor]:
        x = torch.randn(problem.m, problem.k, generator=generator)
        return {"x": x.to(getattr(torch, problem.precision))}

    def make_output(self, problem: WeightOnlyGemm) -> torch.Tensor:
        return torch.empty(problem.m, problem.n, dtype=getattr(torch, problem.precision))

    def reference(
        self,
        problem: WeightOnlyGemm,
        constants: Tensors,
        inputs: Tensors,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        x = inputs["x"] if rows is None else inputs["x"][rows]
        groups = constants["q"].double().view(problem.n, -1, problem.group)
        weight = (groups * constants["scale"].double()[:, :, None]).view(problem.n, problem.k)
        return x.double() @ weight.T
