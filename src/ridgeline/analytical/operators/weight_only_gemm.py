"""``weight_only_gemm``: Y[m, n] = X[m, k] W[n, k]^T with W stored as 8- or 4-bit integers and a scale per group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import Work, fma_key


def weight_only_gemm_work(
    m: Any,
    n: Any,
    k: Any,
    weight: str,
    group: Any,
    precision: str,
    *,
    scale: str | None = None,
    zero: str | None = None,
    output: str | None = None,
) -> Work:
    """2 m n k operations on ``precision`` operands; weights, scales and zeros read at their stored size.

    ``scale`` is the precision of the scale that each ``group`` along k has (default ``precision``), ``zero`` that of
    its zero point (``None``: symmetric, there is none), ``output`` that of Y.

    Turning the integers into ``precision`` is work of the implementation, not of the problem: a kernel may apply the
    scale to the accumulator once per group, so no count of dequantisations is compulsory. What it takes to expand every
    weight is :func:`dequantisation_work`.
    """
    m, n, k = 1.0 * m, 1.0 * n, 1.0 * k
    groups = n * k / group
    scales = bytes_of(groups, scale or precision)
    return Work(
        operations={fma_key(precision): 2.0 * m * n * k},
        read_bytes={
            "activations": bytes_of(m * k, precision),
            "weights": bytes_of(n * k, weight),
            "scales": scales if zero is None else scales + bytes_of(groups, zero),
        },
        written_bytes={"activations": bytes_of(m * n, output or precision)},
    )


def dequantisation_work(n: Any, k: Any, zero: bool = False, *, times: Any = 1) -> Work:
    """What an implementation adds that expands each of n k weights ``times`` times, in registers: no bytes.

    A conversion and a product with the scale: 2 vector operations a weight, 3 where a zero point is subtracted. A
    kernel that tiles m expands every weight once a tile.
    """
    return Work(operations={fma_key("float32", "vector"): (3.0 if zero else 2.0) * n * k * times}, launches=0)


@problem("weight_only_gemm")
@dataclass(frozen=True, kw_only=True)
class WeightOnlyGemm(Problem):
    """Y[m, n] = X[m, k] (scale * q)[n, k]^T; q in ``weight`` (int8, int4), a ``precision`` scale per ``group`` of k.

    Symmetric: int8 q in [-127, 127], int4 q in [-8, 7]. ``group`` equal to k is one scale per output channel.
    """

    m: int
    n: int
    k: int
    weight: str
    group: int
    precision: str = "bfloat16"

    def check(self) -> None:
        if self.weight not in ("int8", "int4"):
            raise ProblemError("weight", f"must be int8 or int4, not {self.weight!r}")
        if self.k % self.group:
            raise ProblemError("group", f"must divide k: k={self.k}, group={self.group}")
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise ProblemError("precision", f"weight_only_gemm takes float32, bfloat16, float16, not {self.precision}")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return weight_only_gemm_work(self.m, self.n, self.k, self.weight, self.group, self.precision)

    @property
    def label(self) -> str:
        group = "channel" if self.group == self.k else f"g{self.group}"
        return f"{self.m}x{self.n}x{self.k} {self.weight} {group} {self.precision}"
