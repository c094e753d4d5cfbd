"""``lut_gemm``: Y = X W^T with each weight an index into a table of its output channel, and a sparse part beside it.

SqueezeLLM (Kim et al. 2023): 2^b values for each output channel (section 4.1), outliers kept as CSR (section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import Work, fma_key

CSR_PRECISION = "int32"
"""Precision of column numbers and row starts."""


def lut_gemm_work(m: Any, n: Any, k: Any, index_bits: Any, precision: str, *, outliers: Any = 0) -> Work:
    """2 m n k operations on table values, and 2 m for each of ``outliers`` sparse weights.

    Indices are ``index_bits`` wide; tables hold 2^b values of ``precision`` for each of n channels. An outlier is a
    value of ``precision`` with an int32 column; n + 1 row starts come with any.
    """
    m, n, k, outliers = 1.0 * m, 1.0 * n, 1.0 * k, 1.0 * outliers
    starts = (n + 1.0) * (outliers > 0)
    return Work(
        operations={fma_key(precision): 2.0 * m * (n * k + outliers)},
        read_bytes={
            "activations": bytes_of(m * k, precision),
            "weights": n * k * index_bits / 8.0 + bytes_of(outliers, precision),
            "scales": bytes_of(n * 2.0**index_bits, precision),
            "index": bytes_of(outliers + starts, CSR_PRECISION),
        },
        written_bytes={"activations": bytes_of(m * n, precision)},
    )


@problem("lut_gemm")
@dataclass(frozen=True, kw_only=True)
class LutGemm(Problem):
    """Y[m, n] of X[m, k] and n tables of 2^``index_bits`` values; each weight an outlier with ``outlier_density``.

    The structure's figure is ``outliers``.
    """

    m: int
    n: int
    k: int
    index_bits: int
    outlier_density: float = 0.0
    precision: str = "float32"
    seed: int = 1

    def check(self) -> None:
        if not 1 <= self.index_bits <= 8:
            raise ProblemError("index_bits", f"must be 1 to 8, not {self.index_bits}")
        if not 0.0 <= self.outlier_density <= 1.0:
            raise ProblemError("outlier_density", f"must be 0 to 1, not {self.outlier_density:g}")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return self._work(structure.figure("outliers"))

    def expected_work(self) -> Work:
        return self._work(self.outlier_density * self.n * self.k)

    def _work(self, outliers: float) -> Work:
        return lut_gemm_work(self.m, self.n, self.k, self.index_bits, self.precision, outliers=outliers)

    @property
    def label(self) -> str:
        return f"{self.m}x{self.n}x{self.k} lut{self.index_bits} {self.precision}"
