"""vectors.h on every path: exponentials, reciprocals, lanes, and that part of a vector touches nothing else."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ridgeline.kernels.native.build import load

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="needs a C++ compiler")

PATHS = {"avx512": 0, "avx2": 1, "portable": 2}
Floats = npt.NDArray[np.float32]


def probe(path: str) -> ctypes.CDLL:
    library = load("vectors_probe", Path(__file__).parent)
    if not library.probe_has(PATHS[path]):
        pytest.skip(f"this CPU has no {path}")
    return library


def mapped(path: str, function: int, x: Floats) -> tuple[Floats, int]:
    """Function values, and the lanes of a vector. The length of ``x`` is a multiple of 16."""
    y = np.full_like(x, np.nan)
    lanes = probe(path).probe_map(
        PATHS[path],
        function,
        x.ctypes.data_as(ctypes.c_void_p),
        y.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(x.size),
    )
    return y, lanes


def units_in_the_last_place(y: Floats, exact: npt.NDArray[np.float64]) -> float:
    return float((np.abs(y - exact) / np.spacing(np.abs(exact).astype(np.float32))).max())


@pytest.mark.parametrize("path", PATHS)
def test_exp2_is_within_two_units_in_the_last_place(path: str) -> None:
    x = np.random.default_rng(1).uniform(-126, 127.99, 1 << 18).astype(np.float32)
    x[:512] = np.arange(-256, 256) / 2.0  # whole and half exponents
    x = np.clip(x, -126, None)
    x = x[x < 128][: x.size // 16 * 16 - 16]
    x = x[: x.size // 16 * 16]
    y, _ = mapped(path, 0, x)
    assert units_in_the_last_place(y, np.exp2(x.astype(np.float64))) <= 2.0


@pytest.mark.parametrize("path", PATHS)
def test_exp2_at_its_ends(path: str) -> None:
    x = np.array(
        [0, -0.0, -126, -126.001, -1e30, -np.inf, 128, 1e30, np.inf, np.nan, 127.5, -127, 1, -1, 2, 10], np.float32
    )
    x[9] = np.uint32(0x7FC12345).view(np.float32)  # a NaN whose bits would end in the exponent
    y, _ = mapped(path, 0, x)
    np.testing.assert_array_equal(y[[0, 1, 2, 12, 13, 14, 15]], np.exp2(x[[0, 1, 2, 12, 13, 14, 15]]))
    np.testing.assert_array_equal(y[[3, 4, 5, 11]], 0.0)
    np.testing.assert_array_equal(y[[6, 7, 8]], np.inf)
    assert np.isnan(y[9])
    assert y[10] == pytest.approx(2.0**127.5, rel=3e-7)


@pytest.mark.parametrize("path", PATHS)
def test_reciprocal(path: str) -> None:
    x = np.exp2(np.random.default_rng(2).uniform(-125, 125, 1 << 14)).astype(np.float32)
    y, _ = mapped(path, 1, x)
    assert units_in_the_last_place(y, 1.0 / x.astype(np.float64)) <= 3.0


@pytest.mark.parametrize("path", PATHS)
def test_over_the_lanes(path: str) -> None:
    x = np.random.default_rng(3).standard_normal(16 * 64).astype(np.float32)
    sums, lanes = mapped(path, 3, x)
    rows = x.reshape(-1, lanes)
    np.testing.assert_allclose(
        sums.reshape(-1, lanes), np.repeat(rows.sum(1, keepdims=True), lanes, 1), rtol=1e-5, atol=1e-5
    )
    greatest, _ = mapped(path, 4, x)
    np.testing.assert_array_equal(greatest.reshape(-1, lanes), np.repeat(rows.max(1, keepdims=True), lanes, 1))
    nearest, _ = mapped(path, 2, x * 100)
    np.testing.assert_array_equal(nearest, np.rint(x * 100))


@pytest.mark.parametrize("path", PATHS)
def test_part_of_a_vector_touches_nothing_else(path: str) -> None:
    x = np.arange(1, 33, dtype=np.float32)
    for count in range(17):
        y = np.full(32, -7.0, np.float32)
        lanes = probe(path).probe_copy(
            PATHS[path],
            (x[32 - count :] if count else x).ctypes.data_as(ctypes.c_void_p),  # ends where the array ends
            y.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int64(count),
        )
        kept = count if count <= lanes else 0
        np.testing.assert_array_equal(y[:kept], x[32 - count :][:kept])
        np.testing.assert_array_equal(y[kept:], -7.0)
