"""Bandwidth kernels over float32 arrays: read, copy (c = a), triad (c = a + scalar * b).

``bind_*`` takes addresses (``tensor.data_ptr()``) or arrays, unchecked, and returns a function of no arguments for
the measuring loop; ``stream_*`` takes numpy arrays, checks them and calls once.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ridgeline.kernels.native.build import NativeCallError, check_status, load, pointer
from ridgeline.kernels.native.paths import Paths

Floats = npt.NDArray[np.float32]

Memory = int | Floats
"""An address, whose memory the caller keeps alive, or an array, which the bound function keeps alive."""

READ_LANES = 16
"""Sums that ``read`` returns: element i is added to sum i mod 16."""


@functools.cache
def _library() -> ctypes.CDLL:
    library = load("stream")
    address, count = ctypes.c_void_p, ctypes.c_int32
    library.stream_read.argtypes = [address, address, ctypes.c_int64, count, count, count]
    library.stream_copy.argtypes = [address, address, ctypes.c_int64, count, count, count, count]
    library.stream_triad.argtypes = [address] * 3 + [ctypes.c_float, ctypes.c_int64, count, count, count, count]
    for function in (library.stream_read, library.stream_copy, library.stream_triad):
        function.restype = check_status
    return library


_PATHS = Paths(_library, "stream_path")


def stream_paths() -> tuple[str, ...]:
    """Instruction paths of this CPU, best first, of avx512, avx2, portable; ``RIDGELINE_NATIVE_ISA`` limits them."""
    return _PATHS.permitted()


def stream_path() -> str:
    """The path used where none is named."""
    return stream_paths()[0]


def past_caches() -> bool:
    """Whether this machine has the non-temporal stores that ``nontemporal=True`` asks for."""
    return bool(_library().stream_past_caches())


def _variant(nontemporal: bool) -> int:
    if nontemporal and not past_caches():
        raise NativeCallError("no non-temporal stores on this machine")
    return int(nontemporal)


def _check(addresses: dict[str, Memory], elements: int, passes: int, threads: int) -> None:
    for name, memory in addresses.items():
        address = memory if isinstance(memory, int) else memory.ctypes.data
        if address == 0 or address % 4:
            raise NativeCallError(f"{name} must be the address of float32 data, not {address:#x}")
    if elements < 1 or not 1 <= passes < 2**31 or threads < 1:
        raise NativeCallError(f"elements, passes and threads must be positive, not {elements}, {passes}, {threads}")


def bind_read(
    a: Memory, out: Memory, elements: int, passes: int = 1, threads: int = 1, *, path: str | None = None
) -> Callable[[], Any]:
    """A function of no arguments that sums ``elements`` float32 at address ``a``, ``passes`` times.

    ``out``: address of 16 float32; ``out[lane]`` becomes the sum over i of ``a[16 i + lane]`` (of one pass).
    Bytes read per call: 4 * elements * passes. Raises NativeCallError, here or when called (too many threads).
    """
    _check({"a": a, "out": out}, elements, passes, threads)
    numbers = (ctypes.c_int32(passes), ctypes.c_int32(threads), ctypes.c_int32(_PATHS.number(path)))
    return functools.partial(_library().stream_read, pointer(a), pointer(out), ctypes.c_int64(elements), *numbers)


def bind_copy(
    a: Memory,
    c: Memory,
    elements: int,
    passes: int = 1,
    threads: int = 1,
    *,
    nontemporal: bool = False,
    path: str | None = None,
) -> Callable[[], Any]:
    """A function of no arguments that copies ``elements`` float32 from address ``a`` to ``c``, ``passes`` times.

    ``nontemporal`` stores past the caches, without the read for ownership. Bytes per call, as STREAM counts:
    8 * elements * passes. Raises NativeCallError, here or when called (too many threads).
    """
    _check({"a": a, "c": c}, elements, passes, threads)
    numbers = (passes, threads, _variant(nontemporal), _PATHS.number(path))
    return functools.partial(
        _library().stream_copy,
        pointer(a),
        pointer(c),
        ctypes.c_int64(elements),
        *map(ctypes.c_int32, numbers),
    )


def bind_triad(
    a: Memory,
    b: Memory,
    c: Memory,
    scalar: float,
    elements: int,
    passes: int = 1,
    threads: int = 1,
    *,
    nontemporal: bool = False,
    path: str | None = None,
) -> Callable[[], Any]:
    """A function of no arguments that sets ``c = a + scalar * b`` (float32, by address), ``passes`` times.

    Bytes per call, as STREAM counts: 12 * elements * passes. Raises NativeCallError, here or when called.
    """
    _check({"a": a, "b": b, "c": c}, elements, passes, threads)
    numbers = (passes, threads, _variant(nontemporal), _PATHS.number(path))
    return functools.partial(
        _library().stream_triad,
        *map(pointer, (a, b, c)),
        ctypes.c_float(scalar),
        ctypes.c_int64(elements),
        *map(ctypes.c_int32, numbers),
    )


def _same_length(**arrays: Floats) -> int:
    """The common length of contiguous float32 vectors. Raises NativeCallError where they are not."""
    lengths = set()
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.ndim != 1 or not array.flags.c_contiguous:
            raise NativeCallError(f"{name} must be a contiguous float32 vector, not {array.dtype}{list(array.shape)}")
        lengths.add(array.size)
    if len(lengths) != 1:
        raise NativeCallError(f"{', '.join(arrays)} must have one length, not {sorted(lengths)}")
    return lengths.pop()


def stream_read(a: Floats, out: Floats, passes: int = 1, threads: int = 1, *, path: str | None = None) -> None:
    """``out[lane] = sum over i of a[16 i + lane]``. ``a``: float32 vector; ``out``: 16 float32. See bind_read."""
    if _same_length(out=out) != READ_LANES:
        raise NativeCallError(f"out must hold {READ_LANES} sums, not {out.size}")
    bind_read(a, out, _same_length(a=a), passes, threads, path=path)()


def stream_copy(
    a: Floats, c: Floats, passes: int = 1, threads: int = 1, nontemporal: bool = False, *, path: str | None = None
) -> None:
    """``c = a``, float32 vectors of one length. See bind_copy."""
    elements = _same_length(a=a, c=c)
    bind_copy(a, c, elements, passes, threads, nontemporal=nontemporal, path=path)()


def stream_triad(
    a: Floats,
    b: Floats,
    c: Floats,
    scalar: float = 0.5,
    passes: int = 1,
    threads: int = 1,
    nontemporal: bool = False,
    *,
    path: str | None = None,
) -> None:
    """``c = a + scalar * b``, float32 vectors of one length. See bind_triad."""
    elements = _same_length(a=a, b=b, c=c)
    bind_triad(a, b, c, scalar, elements, passes, threads, nontemporal=nontemporal, path=path)()
