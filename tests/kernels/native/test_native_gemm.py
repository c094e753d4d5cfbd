"""GEMV and flat GEMM against float64 on every path of this CPU: tails in each dimension, blocks of k, odd addresses."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

from ridgeline.kernels.gemm.panels import pack
from ridgeline.kernels.native import gemm
from ridgeline.kernels.native.build import NativeCallError

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="needs a C++ compiler")

CPUS = len(os.sched_getaffinity(0))
GUARD = -77.0
SHAPES = [
    *((m, 33, 19) for m in range(1, 14)),  # every height of a tile, and rows left over
    (1, 1, 1),
    (2, 7, 600),  # more than two blocks of k
    (5, 100, 257),  # one column of A in the last block
    (3, 1030, 9),  # more columns than a GEMV keeps in the first-level cache
    (64, 150, 300),  # more panels than share a block of A
]


WAYS = ("gemv", "flat", "flat_int8")


def multiply(way: str, path: str, a: torch.Tensor, b: torch.Tensor, threads: int, padding: float = 0.0) -> torch.Tensor:
    """C, checked to be all that was written to; its buffer begins 4 bytes past a vector's alignment.

    For flat_int8 ``b`` holds integers, and column j is multiplied with :func:`column_scale`.
    """
    (m, k), n = a.shape, b.shape[1]
    whole = torch.full((m * n + 65,), GUARD)
    c = whole[1 : 1 + m * n]
    c.fill_(float("nan"))
    if way == "gemv":
        call = gemm.bind_gemv(a.data_ptr(), b.data_ptr(), c.data_ptr(), m, n, k, threads, path=path)
    else:
        columns = gemm.panel_columns(path)
        panels = pack(b, columns)
        if n % columns:
            panels[-1, :, n % columns :] = padding
        scratch = torch.full((m * k + 1,), GUARD)
        if way == "flat":
            call = gemm.bind_flat(
                a.data_ptr(), panels.data_ptr(), c.data_ptr(), scratch.data_ptr(), m, n, k, threads, path=path
            )
        else:
            integers, scale = panels.nan_to_num(77.0).to(torch.int8), column_scale(n)
            pointers = (x.data_ptr() for x in (a, integers, scale, c, scratch))
            call = gemm.bind_flat_int8(*pointers, m, n, k, threads, path=path)
    call()
    assert whole[0] == GUARD
    assert (whole[1 + m * n :] == GUARD).all()
    if way != "gemv":
        assert scratch[-1] == GUARD
    return c.view(m, n).clone()


def column_scale(n: int) -> torch.Tensor:
    """Factors that tell columns apart."""
    return 1.0 / torch.arange(1.0, n + 1.0)


def need(path: str, threads: int = 1) -> None:
    if path not in gemm.gemm_paths():
        pytest.skip(f"this CPU has no {path}")
    if threads > CPUS:
        pytest.skip(f"needs {threads} CPUs")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", ["avx512", "avx2", "portable"])
@pytest.mark.parametrize("threads", [1, 2])
def test_agrees_with_float64(way: str, path: str, threads: int) -> None:
    need(path, threads)
    for m, n, k in SHAPES:
        generator = torch.Generator().manual_seed(m)
        # One element past the start of their storage: nothing may count on an alignment.
        a = torch.randn(m * k + 1, generator=generator)[1:].view(m, k)
        b = torch.randn(k * n + 1, generator=generator)[1:].view(k, n)
        if way == "flat_int8":
            b = torch.randint(-128, 128, (k, n), generator=generator).float()
            expected = a.double() @ b.double() * column_scale(n).double()
        else:
            expected = a.double() @ b.double()
        found = multiply(way, path, a, b, threads)
        error = float((found.double() - expected).norm() / expected.norm())
        assert error < 1e-6, (m, n, k, error)


@pytest.mark.parametrize("way", ["gemv", "flat"])
@pytest.mark.parametrize("path", ["avx512", "avx2", "portable"])
def test_what_is_not_finite_stays_in_its_row_and_column(way: str, path: str) -> None:
    need(path)
    a, b = torch.ones(7, 40), torch.ones(40, 21)
    a[4, 11] = float("nan")
    b[3, 20] = float("inf")
    # In the padding of the last panel too: it reaches no element of C.
    found = multiply(way, path, a, b, 1, padding=float("nan"))
    assert torch.equal(found.isfinite(), (a @ b).isfinite())
    assert torch.equal(found.isnan(), (a @ b).isnan())


def test_int8_weights_carry_what_is_not_finite_in_a_and_none_of_their_padding() -> None:
    a, b = torch.ones(7, 40), torch.full((40, 21), 3.0)
    a[4, 11], a[5, 0] = float("nan"), float("inf")
    found = multiply("flat_int8", gemm.gemm_paths()[0], a, b, 1, padding=float("nan"))
    assert torch.equal(found.isfinite(), (a @ b).isfinite())
    assert torch.equal(found.isnan(), (a @ b).isnan())


def test_rows_are_summed_alike_whatever_is_beside_them() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(6, 500, generator=generator), torch.randn(500, 40, generator=generator)
    path = gemm.gemm_paths()[0]
    together = multiply("flat", path, a, b, 1)
    alone = torch.cat([multiply("flat", path, row[None].contiguous(), b, 1) for row in a])
    assert torch.equal(together, alone)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(NativeCallError, match="positive"):
        gemm.bind_gemv(64, 64, 64, 0, 1, 1)
    with pytest.raises(NativeCallError, match="positive"):
        gemm.bind_flat(64, 64, 64, 64, 1, 1, 1, threads=0)
    with pytest.raises(NativeCallError, match="positive"):
        gemm.bind_flat_int8(64, 64, 64, 64, 64, 1, 0, 1)
    with pytest.raises(NativeCallError, match="no path"):
        gemm.panel_columns("sse9")
    a = torch.ones(4, 4)
    with pytest.raises(NativeCallError, match="more threads than CPUs"):
        gemm.bind_gemv(a.data_ptr(), a.data_ptr(), torch.empty(4, 4).data_ptr(), 4, 4, 4, threads=CPUS + 1)()


def test_isa_limit_chooses_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIDGELINE_NATIVE_ISA", "portable")
    assert gemm.gemm_paths() == ("portable",)
    assert gemm.panel_columns() == gemm.panel_columns("portable") == 8
