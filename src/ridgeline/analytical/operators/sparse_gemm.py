"""``sparse_gemm``: Y[m, n] = X[m, k] W[n, k]^T with most weights zero: n:m, blocks of r x c, single weights.

Blocks of 4 x 1 are those of Intel's int8 SpMM (Shen et al. 2023), g x 1 those of XNNPACK's sparse convolutions (Elsen
et al. 2019), b x b is BSR, 1 x 1 is CSR. A channel that is gone altogether is a smaller dense GEMM, no sparse one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.operators.gemm import OUTPUT_PRECISION
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import RateKey, Work, fma_key

INDEX_PRECISION = "int32"
"""Precision of a block's column and of a row's start."""


def block_sparse_gemm_work(
    m: Any,
    n: Any,
    k: Any,
    kept_blocks: Any,
    used_columns: Any,
    precision: str,
    *,
    block_rows: Any = 1,
    block_columns: Any = 1,
    output: str | None = None,
) -> Work:
    """2 m operations for each of ``kept_blocks`` x r x c weights.

    Read are the kept weights, an int32 column for each block and a start for each block row (and one more), and of X
    the ``used_columns`` (those that some kept block has); written is all of Y.
    """
    m, n = 1.0 * m, 1.0 * n
    weights = 1.0 * kept_blocks * block_rows * block_columns
    return Work(
        operations={fma_key(precision): 2.0 * m * weights},
        read_bytes={
            "activations": bytes_of(m * used_columns, precision),
            "weights": bytes_of(weights, precision),
            "index": bytes_of(kept_blocks + n / block_rows + 1.0, INDEX_PRECISION),
        },
        written_bytes={"activations": bytes_of(m * n, output or OUTPUT_PRECISION.get(precision, precision))},
    )


def structured_sparse_gemm_work(
    m: Any, n: Any, k: Any, precision: str, *, kept: int = 2, of: int = 4, output: str | None = None
) -> Work:
    """``kept`` of every ``of`` weights along k, each with a position of log2(``of``) bits (rounded up).

    2:4 is done by matrix units that skip half; their published rates count what they skip, so 2:4 counts all 2 m n k
    under its own rate key. Any other pattern counts the kept weights, as dense multiply-adds.
    """
    m, n, k = 1.0 * m, 1.0 * n, 1.0 * k
    key = fma_key(precision)
    operations = 2.0 * m * n * k
    if (kept, of) == (2, 4):
        key = RateKey(key.unit, key.a, key.b, key.accumulator, "2:4")
    else:
        operations = operations * kept / of
    weights = n * k * kept / of
    return Work(
        operations={key: operations},
        read_bytes={
            "activations": bytes_of(m * k, precision),
            "weights": bytes_of(weights, precision),
            "index": weights * float((of - 1).bit_length()) / 8.0,
        },
        written_bytes={"activations": bytes_of(m * n, output or OUTPUT_PRECISION.get(precision, precision))},
    )


def expected_used_columns(n: Any, k: Any, density: Any, block_rows: Any = 1) -> Any:
    """Columns of X that some kept block has, where each block is kept with probability ``density`` by itself.

    k (1 - (1 - density)^(n / r)): block rows are n / r trials for each column.
    """
    return 1.0 * k * (1.0 - (1.0 - density) ** (1.0 * n / block_rows))


@problem("sparse_gemm")
@dataclass(frozen=True, kw_only=True)
class SparseGemm(Problem):
    """Y[m, n] of X[m, k]; blocks of ``block_rows`` x ``block_columns`` of W kept with ``density``, drawn with ``seed``.

    The structure's figures are ``kept_blocks`` and ``used_columns``.
    """

    m: int
    n: int
    k: int
    density: float
    block_rows: int = 1
    block_columns: int = 1
    precision: str = "float32"
    seed: int = 1

    def check(self) -> None:
        if not 0.0 <= self.density <= 1.0:
            raise ProblemError("density", f"must be 0 to 1, not {self.density:g}")
        if self.n % self.block_rows:
            raise ProblemError("block_rows", f"must divide n: n={self.n}, block_rows={self.block_rows}")
        if self.k % self.block_columns:
            raise ProblemError("block_columns", f"must divide k: k={self.k}, block_columns={self.block_columns}")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return self._work(structure.figure("kept_blocks"), structure.figure("used_columns"))

    def expected_work(self) -> Work:
        blocks = self.density * self.n * self.k / (self.block_rows * self.block_columns)
        return self._work(blocks, expected_used_columns(self.n, self.k, self.density, self.block_rows))

    def footprint_bytes(self) -> float:
        """All of X lies in memory, columns that no block has too."""
        blocks = self.density * self.n * self.k / (self.block_rows * self.block_columns)
        return float(self._work(blocks, float(self.k)).bytes)

    def _work(self, kept_blocks: float, used_columns: float) -> Work:
        return block_sparse_gemm_work(
            self.m, self.n, self.k, kept_blocks, used_columns, self.precision,
            block_rows=self.block_rows, block_columns=self.block_columns,
        )  # fmt: skip

    @property
    def label(self) -> str:
        blocks = f"{self.block_rows}x{self.block_columns}"
        return f"{self.m}x{self.n}x{self.k} {self.density:.0%} of {blocks} {self.precision}"
