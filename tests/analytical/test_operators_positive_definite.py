"""Work of kernel matrices, Cholesky factors and triangular solves against the algorithms, done."""

from __future__ import annotations

import math

import numpy as np
import pytest
from brute_force import Tally, assert_same, counted_flop, counts, grid, shaped
from hypothesis import strategies as st

from ridgeline.analytical.operators import (
    cholesky_work,
    gram_kernel_work,
    kernel_matrix_work,
    triangular_solve_work,
)
from ridgeline.analytical.work import fma_key

sizes = st.integers(1, 40)


def test_kernel_matrix_by_brute_force() -> None:
    m, n, features = 3, 2, 4
    tally = Tally()
    for name, rows in (("x", m), ("z", n)):
        for i, d in grid(rows, features):
            tally.read("activations", "float64", name, i, d)
            tally.vector("float64", 2 if d else 1)
    for i, j in grid(m, n):
        tally.matrix("float64", 2 * features)
        tally.vector("float64", 4)  # norm + norm, minus twice, times scale: twice the product is a product too
        tally.special()
        tally.write("activations", "float64", i, j)
    assert_same(kernel_matrix_work(m, n, features, "float64"), tally)


def test_gram_kernel_by_brute_force() -> None:
    m, n = 3, 2
    tally = Tally()
    for i, j in grid(m, n):
        tally.read("activations", "float32", "g", i, j)
        tally.read("activations", "float32", "row", i)
        tally.read("activations", "float32", "column", j)
        tally.vector("float32", 4)
        tally.special()
        tally.write("activations", "float32", i, j)
    assert_same(gram_kernel_work(m, n, "float32"), tally)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_cholesky_by_doing_it(n: int) -> None:
    random = np.random.default_rng(0).standard_normal((n, n))
    a = random @ random.T + n * np.eye(n)
    factor, tally = np.zeros((n, n)), Tally()
    for j in range(n):
        for i in range(j, n):
            tally.read("activations", "float64", i, j)
            tally.write("activations", "float64", i, j)
            factor[i, j] = a[i, j]
            for k in range(j):
                factor[i, j] -= factor[i, k] * factor[j, k]
                tally.matrix("float64")
        root = 1.0 / math.sqrt(factor[j, j])
        tally.special()
        for i in range(j, n):
            factor[i, j] *= root
            tally.vector("float64")
    assert np.allclose(factor @ factor.T, a)
    assert_same(cholesky_work(n, "float64"), tally)
    assert counts(cholesky_work(n, "float64", batch=3)) == counts(cholesky_work(n, "float64") * 3)


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (4, 3)])
def test_triangular_solve_by_doing_it(n: int, columns: int) -> None:
    random = np.random.default_rng(0)
    lower, b = np.tril(random.standard_normal((n, n))) + n * np.eye(n), random.standard_normal((n, columns))
    x, tally = b.copy(), Tally()
    for i in range(n):
        tally.special()
        for c in range(columns):
            tally.read("activations", "float64", "b", i, c)
            for k in range(i):
                x[i, c] -= lower[i, k] * x[k, c]
                tally.matrix("float64")
            x[i, c] *= 1.0 / lower[i, i]
            tally.vector("float64")
            tally.write("activations", "float64", i, c)
        for k in range(i + 1):
            tally.read("activations", "float64", "l", i, k)
    assert np.allclose(lower @ x, b)
    assert_same(triangular_solve_work(n, columns, "float64"), tally)


def test_torch_counts_no_factorisation() -> None:
    """The counter has no formula for LAPACK's work: these closed forms rest on the loops above."""
    import torch

    assert counted_flop(lambda: torch.linalg.cholesky(torch.eye(5))) == 0
    assert kernel_matrix_work(5, 7, 3, "float32").operations[fma_key("float32")] == counted_flop(
        lambda: shaped(5, 3) @ shaped(3, 7)
    )
