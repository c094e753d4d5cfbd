"""Linear algebra of symmetric positive definite matrices: kernel matrix, Cholesky factor, triangular solve.

Golub & Van Loan, Matrix Computations, 4th edition, sections 4.2 (Cholesky) and 3.1 (triangular systems). Multiply-adds
are those of the matrix unit: blocked forms are made of GEMMs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, Work, fma_key


def kernel_matrix_work(m: Any, n: Any, features: Any, precision: str, *, batch: Any = 1) -> Work:
    """K[m, n] = exp(-|x_i - z_j|^2 / (2 l^2)) of X[m, features] and Z[n, features], by inner products.

    2 d operations for each inner product; squared norms take 2 d - 1 for each row. Each entry adds two norms, subtracts
    twice the product and scales: 4 operations, and one exponential.
    """
    entries, m, n, d = 1.0 * batch * m * n, 1.0 * m, 1.0 * n, 1.0 * features
    return Work(
        operations={
            fma_key(precision): 2.0 * entries * d,
            fma_key(precision, "vector"): 4.0 * entries + batch * (m + n) * (2.0 * d - 1.0),
            SPECIAL: entries,
        },
        read_bytes={"activations": bytes_of(batch * (m + n) * d, precision)},
        written_bytes={"activations": bytes_of(entries, precision)},
    )


def gram_kernel_work(m: Any, n: Any, precision: str, *, batch: Any = 1) -> Work:
    """The same from a Gram matrix G[m, n] and the squared norms of rows and columns, as in deep kernel machines."""
    entries = 1.0 * batch * m * n
    return Work(
        operations={fma_key(precision, "vector"): 4.0 * entries, SPECIAL: entries},
        read_bytes={"activations": bytes_of(entries + batch * (1.0 * m + n), precision)},
        written_bytes={"activations": bytes_of(entries, precision)},
    )


def cholesky_work(n: Any, precision: str, *, batch: Any = 1) -> Work:
    """L of A = L L^T: (n^3 - n) / 6 multiply-adds, n (n - 1) / 2 products with a reciprocal root, n of those roots.

    n products more make the diagonal from the roots. Only the lower triangle, diagonal included, is read and written.
    """
    n = 1.0 * n
    triangle = bytes_of(batch * n * (n + 1.0) / 2.0, precision)
    return Work(
        operations={
            fma_key(precision): batch * (n * n * n - n) / 3.0,
            fma_key(precision, "vector"): batch * n * (n + 1.0) / 2.0,
            SPECIAL: batch * n,
        },
        read_bytes={"activations": triangle},
        written_bytes={"activations": triangle},
    )


def triangular_solve_work(n: Any, columns: Any, precision: str, *, batch: Any = 1) -> Work:
    """X of L X = B, L lower triangular [n, n], B [n, columns].

    n (n - 1) / 2 multiply-adds and n products with the reciprocal of the diagonal for each column; n reciprocals.
    """
    n, values = 1.0 * n, 1.0 * batch * n * columns
    return Work(
        operations={
            fma_key(precision): values * (n - 1.0),
            fma_key(precision, "vector"): values,
            SPECIAL: batch * n,
        },
        read_bytes={"activations": bytes_of(batch * n * (n + 1.0) / 2.0 + values, precision)},
        written_bytes={"activations": bytes_of(values, precision)},
    )


@problem("kernel_matrix")
@dataclass(frozen=True, kw_only=True)
class KernelMatrix(Problem):
    """K[m, n] of the squared-exponential kernel between X[m, features] and Z[n, features]."""

    m: int
    n: int
    features: int
    precision: str = "float64"

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return kernel_matrix_work(self.m, self.n, self.features, self.precision)

    @property
    def label(self) -> str:
        return f"{self.m}x{self.n} d{self.features} {self.precision}"


@problem("cholesky")
@dataclass(frozen=True, kw_only=True)
class Cholesky(Problem):
    """Lower factor of each of ``batch`` positive definite [n, n] matrices."""

    n: int
    batch: int = 1
    precision: str = "float64"

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return cholesky_work(self.n, self.precision, batch=self.batch)

    @property
    def label(self) -> str:
        return f"{self.batch}x {self.n} {self.precision}"


@problem("triangular_solve")
@dataclass(frozen=True, kw_only=True)
class TriangularSolve(Problem):
    """X[n, columns] of L X = B for each of ``batch`` systems."""

    n: int
    columns: int
    batch: int = 1
    precision: str = "float64"

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return triangular_solve_work(self.n, self.columns, self.precision, batch=self.batch)

    @property
    def label(self) -> str:
        return f"{self.batch}x {self.n}, {self.columns} columns {self.precision}"
