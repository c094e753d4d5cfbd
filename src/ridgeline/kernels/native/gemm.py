"""float32 matrix products with few rows in C++: C[m, n] = A[m, k] B[k, n] by GEMV or by a flat GEMM, whose B may be int8.

``bind_*`` takes addresses, which the caller has checked (:mod:`ridgeline.kernels.native.tensors`) and keeps alive, and
returns a function of no arguments for the measuring loop.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

from ridgeline.kernels.native.build import NativeCallError, check_status, load, pointer
from ridgeline.kernels.native.paths import Paths


@functools.cache
def _library() -> ctypes.CDLL:
    library = load("gemm")
    address, size, count = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    library.gemm_panel.argtypes = [count]
    library.gemm_panel.restype = size
    library.gemm_gemv.argtypes = [*[address] * 3, *[size] * 3, count, count]
    library.gemm_flat.argtypes = [*[address] * 4, *[size] * 3, count, count]
    library.gemm_flat_int8.argtypes = [*[address] * 5, *[size] * 3, count, count]
    for function in (library.gemm_gemv, library.gemm_flat, library.gemm_flat_int8):
        function.restype = check_status
    return library


_PATHS = Paths(_library, "gemm_path")


def gemm_paths() -> tuple[str, ...]:
    """Instruction paths of this CPU, best first, of avx512, avx2, portable; ``RIDGELINE_NATIVE_ISA`` limits them."""
    return _PATHS.permitted()


def panel_columns(path: str | None = None) -> int:
    """Columns of a panel of B for :func:`bind_flat`: two vectors of the path."""
    return int(_library().gemm_panel(_PATHS.number(path)))


def _check(m: int, n: int, k: int, threads: int) -> None:
    if min(m, n, k, threads) < 1:
        raise NativeCallError(f"m, n, k and threads must be positive, not {m}, {n}, {k}, {threads}")


def bind_gemv(
    a: int, b: int, c: int, m: int, n: int, k: int, threads: int = 1, *, path: str | None = None
) -> Callable[[], Any]:
    """A function of no arguments: c [m, n] = a [m, k] b [k, n], float32, B as it is.

    B is read once for every four rows of A. Raises NativeCallError, here or when called (too many threads).
    """
    _check(m, n, k, threads)
    numbers = (*map(ctypes.c_int64, (m, n, k)), ctypes.c_int32(threads), ctypes.c_int32(_PATHS.number(path)))
    return functools.partial(_library().gemm_gemv, *map(pointer, (a, b, c)), *numbers)


def bind_flat(
    a: int, panels: int, c: int, scratch: int, m: int, n: int, k: int, threads: int = 1, *, path: str | None = None
) -> Callable[[], Any]:
    """A function of no arguments: c [m, n] = a [m, k] B, float32, B packed in panels.

    ``panels``: [ceil(n / panel_columns(path)), k, panel_columns(path)], zeros in the columns past n; ``scratch``: m k
    float32, which a call overwrites, so calls that share it must not overlap. B is read once for all rows.
    Raises NativeCallError, here or when called (too many threads).
    """
    _check(m, n, k, threads)
    numbers = (*map(ctypes.c_int64, (m, n, k)), ctypes.c_int32(threads), ctypes.c_int32(_PATHS.number(path)))
    return functools.partial(_library().gemm_flat, *map(pointer, (a, panels, c, scratch)), *numbers)


def bind_flat_int8(
    a: int,
    panels: int,
    scale: int,
    c: int,
    scratch: int,
    m: int,
    n: int,
    k: int,
    threads: int = 1,
    *,
    path: str | None = None,
) -> Callable[[], Any]:
    """As :func:`bind_flat`, for ``panels`` of int8 and ``scale`` [n] float32: c[i, j] = scale[j] (a B)[i, j].

    Sums are float32, of products of float32 with the exact integers.
    """
    _check(m, n, k, threads)
    numbers = (*map(ctypes.c_int64, (m, n, k)), ctypes.c_int32(threads), ctypes.c_int32(_PATHS.number(path)))
    return functools.partial(_library().gemm_flat_int8, *map(pointer, (a, panels, scale, c, scratch)), *numbers)
