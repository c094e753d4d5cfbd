"""Products of quantised operands: int8 with scales and outliers, dual-grained, ternary, bit planes, powers of two.

Y[m, n] = X[m, k] W[n, k]^T. A multiply-add counts as two operations whatever its operands are: a ternary weight that
only adds or subtracts does the work of one that multiplies, on a unit that may be faster at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, RateKey, Work, fma_key

SCALE_PRECISION = "float32"
"""Precision of a scale of a row, a channel or a group."""


def int8_gemm_work(
    m: Any, n: Any, k: Any, *, outlier_columns: Any = 0, precision: str = "float16", output: str | None = None
) -> Work:
    """LLM.int8() (Dettmers et al. 2022, section 3): X and W in int8, a float32 scale a row of X and a channel of W.

    2 m n (k - o) int8 operations; the o ``outlier_columns`` of X are kept in ``precision`` and multiplied in it, with
    weights that are expanded from the same int8 bytes: 2 m n o. Two products scale each value of Y, and one addition
    joins the parts where there are outliers. Y is written in ``output`` (default ``precision``).
    """
    m, n, k, o = 1.0 * m, 1.0 * n, 1.0 * k, 1.0 * outlier_columns
    return Work(
        operations={
            fma_key("int8"): 2.0 * m * n * (k - o),
            fma_key(precision): 2.0 * m * n * o,
            fma_key("float32", "vector"): m * n * (2.0 + (o > 0)),
        },
        read_bytes={
            "activations": bytes_of(m * (k - o), "int8") + bytes_of(m * o, precision),
            "weights": bytes_of(n * k, "int8"),
            "scales": bytes_of(m + n, SCALE_PRECISION),
            "index": bytes_of(o, "int32"),
        },
        written_bytes={"activations": bytes_of(m * n, output or precision)},
    )


def dual_grain_gemm_work(m: Any, n: Any, k: Any, group: Any, *, output: str = "float16") -> Work:
    """Dual Grained Quantization (Zhang et al. 2023): int4 weights, an int8 scale and zero point a group, int8 products.

    2 m n k int8 operations. A float16 scale a channel of W and a float32 one a row of X scale each value of Y. Expanding
    a weight to int8 (a difference and a product) is the implementation's: 2 n k integer operations, if done once.
    """
    m, n, k = 1.0 * m, 1.0 * n, 1.0 * k
    return Work(
        operations={fma_key("int8"): 2.0 * m * n * k, fma_key("float32", "vector"): 2.0 * m * n},
        read_bytes={
            "activations": bytes_of(m * k, "int8"),
            "weights": bytes_of(n * k, "int4"),
            "scales": bytes_of(2.0 * n * k / group, "int8") + bytes_of(n, "float16") + bytes_of(m, SCALE_PRECISION),
        },
        written_bytes={"activations": bytes_of(m * n, output)},
    )


def ternary_gemm_work(m: Any, n: Any, k: Any, *, output: str = "float16") -> Work:
    """Weights of -1, 0, 1 packed in 2 bits, int8 activations (MatMul-free LM, Zhu et al. 2024, section 3.1).

    2 m n k operations, of which half are additions and the others nothing on an adder. One scale for all weights and
    one a row of X: two products for each value of Y.
    """
    m, n, k = 1.0 * m, 1.0 * n, 1.0 * k
    return Work(
        operations={
            RateKey("matrix", "int8", "int2", "int32"): 2.0 * m * n * k,
            fma_key("float32", "vector"): 2.0 * m * n,
        },
        read_bytes={
            "activations": bytes_of(m * k, "int8"),
            "weights": bytes_of(n * k, "int2"),
            "scales": bytes_of(m + 1.0, SCALE_PRECISION),
        },
        written_bytes={"activations": bytes_of(m * n, output)},
    )


def bit_plane_gemm_work(m: Any, n: Any, k: Any, activation_bits: Any, weight_bits: Any) -> Work:
    """p x q products of bit planes (arbitrary precision, Ma et al. 2024): p q 2 m n k one-bit operations into int32.

    This is the work of that algorithm, for units that have one-bit products: a unit that multiplies p by q bits does
    2 m n k, so it bounds no other implementation.
    """
    m, n, k = 1.0 * m, 1.0 * n, 1.0 * k
    return Work(
        operations={RateKey("matrix", "int1", "int1", "int32"): 2.0 * m * n * k * activation_bits * weight_bits},
        read_bytes={
            "activations": m * k * activation_bits / 8.0,
            "weights": n * k * weight_bits / 8.0,
        },
        written_bytes={"activations": bytes_of(m * n, "int32")},
    )


def shift_gemm_work(m: Any, n: Any, k: Any, *, weight_bits: Any = 5, activation: str = "int8") -> Work:
    """Weights that are powers of two with a sign (ShiftAddViT, You et al. 2023): a shift and an addition for each."""
    m, n, k = 1.0 * m, 1.0 * n, 1.0 * k
    return Work(
        operations={RateKey("integer", activation, "int8", "int32"): 2.0 * m * n * k},
        read_bytes={"activations": bytes_of(m * k, activation), "weights": n * k * weight_bits / 8.0},
        written_bytes={"activations": bytes_of(m * n, "int32")},
    )


def quantise_work(
    rows: Any, width: Any, precision: str, to: str = "int8", *, group: Any = None, centred: bool = False
) -> Work:
    """``rows`` vectors of ``width`` quantised with the largest magnitude of each ``group`` (default: of each row).

    For each value: a comparison of its magnitude (but one a group), a product with the reciprocal scale and a rounding.
    ``centred`` subtracts the mean over the rows first, as SageAttention smooths K (Zhang et al. 2024, section 4.2): one
    addition and one difference for each value more. Each group has one reciprocal, and its float32 scale is written.
    """
    values, groups = 1.0 * rows * width, 1.0 * rows * width / (width if group is None else group)
    return Work(
        operations={
            fma_key("float32", "vector"): (5.0 if centred else 3.0) * values - groups,
            SPECIAL: groups,
        },
        read_bytes={"activations": bytes_of(values, precision)},
        written_bytes={"activations": bytes_of(values, to), "scales": bytes_of(groups, SCALE_PRECISION)},
    )


INTEGER_FORMATS = ("int8", "ternary", "dual_grain", "shift")


@problem("integer_gemm")
@dataclass(frozen=True, kw_only=True)
class IntegerGemm(Problem):
    """Y[m, n] of int8 activations and weights of ``weights``: int8, ternary, dual_grain (groups of 128) or shift.

    ``outlier_share`` of the columns of X are outliers, int8 weights only; the structure's figure is
    ``outlier_columns``. Y is in ``precision``, int32 for shift.
    """

    m: int
    n: int
    k: int
    weights: str = "int8"
    outlier_share: float = 0.0
    precision: str = "float32"
    seed: int = 1

    def check(self) -> None:
        if self.weights not in INTEGER_FORMATS:
            raise ProblemError("weights", f"must be one of {', '.join(INTEGER_FORMATS)}, not {self.weights!r}")
        if not 0.0 <= self.outlier_share <= 1.0:
            raise ProblemError("outlier_share", f"must be 0 to 1, not {self.outlier_share:g}")
        if self.outlier_share and self.weights != "int8":
            raise ProblemError("outlier_share", f"goes with int8 weights, not {self.weights}")
        if self.weights == "dual_grain" and self.k % DUAL_GRAIN_GROUP:
            raise ProblemError("k", f"must be a multiple of {DUAL_GRAIN_GROUP}, not {self.k}")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return self._work(structure.figure("outlier_columns") if self.outlier_share else 0.0)

    def expected_work(self) -> Work:
        return self._work(self.outlier_share * self.k)

    def _work(self, outliers: float) -> Work:
        m, n, k = self.m, self.n, self.k
        if self.weights == "ternary":
            return ternary_gemm_work(m, n, k, output=self.precision)
        if self.weights == "dual_grain":
            return dual_grain_gemm_work(m, n, k, DUAL_GRAIN_GROUP, output=self.precision)
        if self.weights == "shift":
            return shift_gemm_work(m, n, k)
        return int8_gemm_work(m, n, k, outlier_columns=outliers, precision=self.precision)

    @property
    def label(self) -> str:
        return f"{self.m}x{self.n}x{self.k} {self.weights} {self.precision}"


DUAL_GRAIN_GROUP = 128
"""Weights that share an int8 scale in an ``integer_gemm`` problem: the paper's."""
