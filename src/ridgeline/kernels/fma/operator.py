"""``fma``: inputs, reference and tolerance of the peak arithmetic rate."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import Fma
from ridgeline.analytical.work import fma_key
from ridgeline.kernels.registry import Operator, Tensors, Tolerance, operator


@operator
class FmaOperator(Operator):
    """Multiply-adds on values in registers; its fastest results are the arithmetic rates of a device."""

    name = "fma"
    tolerances = {
        "float64": Tolerance(1e-12, "the recurrence converges: errors of one step do not grow"),
        "float32": Tolerance(1e-5, "the recurrence converges: errors of one step do not grow"),
        "tfloat32": Tolerance(2e-3, "operands rounded to 10 bits"),
        "bfloat16": Tolerance(1e-5, "products of 8-bit significands are exact in float32"),
        "float16": Tolerance(1e-3, "float32 sums of many iterations"),
        "float8_e4m3fn": Tolerance(1e-1, "sm_90 accumulates float8 with about 14 bits"),
        "int8": Tolerance(0.0, "integer sums are exact modulo 2^32"),
    }
    test_problems = (
        *(
            Fma(
                precision=precision, unit="vector", groups=groups, chains=chains, lanes=lanes, depth=depth, iterations=n
            )
            # Shapes of AVX-512 and of AVX2: a CPU takes those of its own instructions.
            for precision, depth, shapes in (
                ("float64", 1, ((16, 8), (12, 4))),
                ("float32", 1, ((16, 16), (12, 8))),
                ("bfloat16", 2, ((16, 16), (8, 8))),
                ("int8", 4, ((16, 16), (12, 8))),
            )
            for chains, lanes in shapes
            for groups, n in ((1, 1), (1, 8), (2, 1001))
        ),
        Fma(precision="float16", unit="matrix", groups=3, chains=128, lanes=128, depth=32, iterations=5),
    )

    def make_inputs(self, problem: Fma, generator: torch.Generator) -> Tensors:
        x_shape: tuple[int, ...] = (problem.lanes * problem.depth,)
        y_shape = x_shape
        if problem.unit == "matrix":
            x_shape = (problem.groups, problem.chains, problem.depth)
            y_shape = (problem.groups, problem.depth, problem.lanes)
        return {"x": _operand(problem, x_shape, generator), "y": _operand(problem, y_shape, generator)}

    def make_output(self, problem: Fma) -> torch.Tensor:
        dtype = getattr(torch, fma_key(problem.precision).accumulator)
        return torch.empty(problem.groups, problem.chains, problem.lanes, dtype=dtype)

    def reference(self, problem: Fma, constants: Tensors, inputs: Tensors, rows: torch.Tensor | None) -> torch.Tensor:
        x, y = inputs["x"].double(), inputs["y"].double()
        if problem.unit == "matrix":
            result = problem.iterations * (x @ y)
        else:
            result = self._vector(problem, x, y).expand(problem.groups, -1, -1)
        return result if rows is None else result.reshape(-1, problem.lanes)[rows]

    def _vector(self, problem: Fma, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """[chains, lanes]; see the semantics in the problem's docstring."""
        chain = torch.arange(1, problem.chains + 1, dtype=torch.float64)[:, None]
        if problem.precision in ("float64", "float32"):
            fixed = y / (1.0 - x)
            return fixed + x**problem.iterations * (chain * y - fixed)
        products = (x * y).reshape(problem.lanes, problem.depth).sum(1)
        if problem.precision == "int8":
            total = chain + products * problem.iterations
            # float64 holds the sum exactly below 2^53; bring it into the range of int32 as the hardware wraps.
            return torch.remainder(total + 2.0**31, 2.0**32) - 2.0**31
        left_over = 1.0 if problem.iterations % 2 else 2.0
        return chain * y.reshape(problem.lanes, problem.depth)[:, 0] + left_over * products


def _operand(problem: Fma, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Random operands on which no sum overflows, cancels or goes denormal, for x and y alike.

    float64 and float32: uniform in [0.3, 0.7), where the recurrence converges to y / (1 - x). Narrow floats: of
    magnitude [0.5, 2) with few bits, so that float32 sums of products are exact. int8: 1 to 127.
    """
    if problem.precision == "int8":
        # Positive, as vpdpbusd takes unsigned x; up to 127, as the AVX2 path adds two products in 16 bits.
        return torch.randint(1, 128, shape, generator=generator, dtype=torch.int8)
    if problem.precision in ("float64", "float32", "tfloat32"):
        values = torch.rand(shape, generator=generator, dtype=torch.float64) * 0.4 + 0.3
        return values.to(getattr(torch, "float32" if problem.precision == "tfloat32" else problem.precision))
    sign = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    eighths = torch.randint(4, 16, shape, generator=generator)
    return (sign * eighths / 8.0).to(getattr(torch, problem.precision))
