"""``gemm``: a dense matrix product, C[m, n] = A[m, k] B[k, n]; A is an activation, B a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import Work, fma_key

OUTPUT_PRECISION = {"int8": "int32"}
"""Precision of C where it is not that of the operands."""


def gemm_work(m: Any, n: Any, k: Any, precision: str, *, weight: str | None = None, output: str | None = None) -> Work:
    """2 m n k operations on ``precision`` operands; A and B read once, C written once.

    ``weight`` is the precision that B is stored in, ``output`` that of C: by default ``precision`` (int32 for int8).
    Turning a narrower B into ``precision`` is work of the implementation, not of the problem. Scales of a quantised B
    are counted by :func:`~ridgeline.analytical.operators.weight_only_gemm.weight_only_gemm_work`.
    """
    m, n, k = 1.0 * m, 1.0 * n, 1.0 * k
    return Work(
        operations={fma_key(precision): 2.0 * m * n * k},
        read_bytes={"activations": bytes_of(m * k, precision), "weights": bytes_of(k * n, weight or precision)},
        written_bytes={"activations": bytes_of(m * n, output or OUTPUT_PRECISION.get(precision, precision))},
    )


@problem("gemm")
@dataclass(frozen=True, kw_only=True)
class Gemm(Problem):
    """C[m, n] = A[m, k] B[k, n] in ``precision`` (float32, bfloat16, float16, int8; int8 gives int32)."""

    m: int
    n: int
    k: int
    precision: str

    def check(self) -> None:
        if self.precision not in ("float64", "float32", "bfloat16", "float16", "int8"):
            raise ProblemError(
                "precision", f"gemm takes float64, float32, bfloat16, float16, int8, not {self.precision}"
            )

    @property
    def output_precision(self) -> str:
        """Precision of C."""
        return OUTPUT_PRECISION.get(self.precision, self.precision)

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return gemm_work(self.m, self.n, self.k, self.precision)

    @property
    def label(self) -> str:
        return f"{self.m}x{self.n}x{self.k} {self.precision}"
