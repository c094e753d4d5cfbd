"""numba's gemm where its blocks meet: several blocks of k, a tail in each dimension, and int8 at its extremes."""

from __future__ import annotations

import pytest
import torch

from ridgeline.analytical.operators import Gemm
from ridgeline.kernels.gemm import numba_gemm
from ridgeline.kernels.registry import Context


@pytest.mark.parametrize("config", [{}, {"block_m": 32, "block_k": 1024}], ids=["default", "tuned"])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_sums_over_several_blocks_of_k(precision: str, config: dict[str, int]) -> None:
    m, n, k = numba_gemm.DEFAULT["block_m"] + 3, numba_gemm.PANEL + 1, 4 * numba_gemm.DEFAULT["block_k"] + 5
    problem = Gemm(m=m, n=n, k=k, precision=precision)
    dtype = getattr(torch, precision)
    # int8: every product is 2^14, so that a block of float32 sums reaches its largest value.
    a, b = torch.full((m, k), -128).to(dtype), torch.full((k, n), -128).to(dtype)
    if precision == "float32":
        generator = torch.Generator().manual_seed(0)
        a, b = torch.randn(m, k, generator=generator), torch.randn(k, n, generator=generator)
    out = torch.full((m, n), 7, dtype=getattr(torch, problem.output_precision))
    numba_gemm.prepare(problem, {"b": b}, Context("cpu", 2, config))({"a": a}, out)
    expected = a.double() @ b.double()
    error = float((out.double() - expected).norm() / expected.norm())
    assert error <= (0.0 if precision == "int8" else 1e-6)


def test_every_block_of_k_is_exact_for_int8() -> None:
    space = numba_gemm.configurations(Gemm(m=4096, n=4096, k=4096, precision="int8"))
    assert len(space) == 16
    assert all(config["block_k"] * 2**14 <= 2**24 for config in (*space, numba_gemm.DEFAULT))
