"""Peak multiply-add rates in registers: float64, float32, bfloat16 and int8, and the core clock.

One call does threads * chains * lanes * products * iterations multiply-adds, each two operations. Every accumulator
of every thread is written, and :func:`fma_reference` has the value each must have.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ridgeline.kernels.native.build import NativeCallError, check_status, load, permitted_paths, pointer

Array = npt.NDArray[Any]

Memory = int | Array
"""An address, whose memory the caller keeps alive, or an array, which the bound function keeps alive."""


class Shape(NamedTuple):
    """What one iteration of one thread computes: ``chains * lanes`` accumulators, ``products`` added to each."""

    chains: int
    lanes: int
    products: int


class Types(NamedTuple):
    """numpy types of the operands and the accumulators. bfloat16 is held as its bit pattern, uint16."""

    x: type[np.generic]
    y: type[np.generic]
    out: type[np.generic]


TYPES = {
    "float64": Types(np.float64, np.float64, np.float64),
    "float32": Types(np.float32, np.float32, np.float32),
    "bfloat16": Types(np.uint16, np.uint16, np.float32),
    "int8": Types(np.uint8, np.int8, np.int32),
}

TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 1e-5, "int8": 0.0}
"""Largest relative error of an accumulator against fma_reference: a converging recurrence or a few roundings; exact."""


@functools.cache
def _library() -> ctypes.CDLL:
    library = load("fma")
    text = ctypes.POINTER(ctypes.c_char_p)
    library.fma_entry.argtypes = [ctypes.c_int32, text, text, ctypes.POINTER(ctypes.c_int32)]
    library.fma_run.argtypes = [ctypes.c_int32, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int32]
    library.fma_run.restype = check_status
    library.clock_add_ns.argtypes = [ctypes.c_int64]
    library.clock_add_ns.restype = ctypes.c_double
    return library


@functools.cache
def _entries() -> dict[str, dict[str, tuple[int, Shape]]]:
    """precision -> available path, best first -> number in the library and shape."""
    found: dict[str, dict[str, tuple[int, Shape]]] = {precision: {} for precision in TYPES}
    precision, path, shape = ctypes.c_char_p(), ctypes.c_char_p(), (ctypes.c_int32 * 3)()
    index = 0
    while (there := _library().fma_entry(index, ctypes.byref(precision), ctypes.byref(path), shape)) >= 0:
        if there and precision.value and path.value:
            found[precision.value.decode()][path.value.decode()] = (index, Shape(*shape))
        index += 1
    return found


def _entry(precision: str, path: str | None) -> tuple[int, Shape]:
    name = path or fma_path(precision)
    available = _entries()[precision] if precision in TYPES else {}
    if name not in available:
        raise NativeCallError(f"no path {name!r} for {precision} on this CPU: one of {', '.join(available)}")
    return available[name]


def fma_paths(precision: str) -> tuple[str, ...]:
    """Instruction paths of this CPU for ``precision``, best first; the last is ``portable``.

    bfloat16: ``avx512_bf16`` is the instruction (vdpbf16ps); the others widen to float32 and multiply there.
    int8: ``avx512_vnni`` and ``avx_vnni`` are vpdpbusd; ``avx512``, ``avx2`` are vpmaddubsw, vpmaddwd, vpaddd.
    Raises NativeCallError for an unknown precision. ``RIDGELINE_NATIVE_ISA`` limits the choice.
    """
    if precision not in TYPES:
        raise NativeCallError(f"precision must be one of {', '.join(TYPES)}, not {precision!r}")
    return permitted_paths(tuple(_entries()[precision]))


def fma_path(precision: str) -> str:
    """The path used where none is named."""
    return fma_paths(precision)[0]


def fma_shape(precision: str, path: str | None = None) -> Shape:
    """(chains, lanes, products per lane and iteration) of a path. x and y hold lanes * products elements."""
    return _entry(precision, path)[1]


def fma_operations(precision: str, iterations: int, threads: int, path: str | None = None) -> float:
    """Operations of one call: threads * chains * lanes * products * iterations multiply-adds, two each."""
    shape = fma_shape(precision, path)
    return 2.0 * threads * shape.chains * shape.lanes * shape.products * iterations


def fma_inputs(precision: str, seed: int = 0, path: str | None = None) -> tuple[Array, Array]:
    """Random operands x, y of lanes * products elements within the kernel's domain.

    float64, float32: x in [0.3, 0.7), y in [0.5, 1): bounded, no denormals. bfloat16 (bit patterns): magnitudes in
    [0.5, 2), where every sum is exact in float32. int8: x in 1..127, y in -127..127 without 0.
    """
    shape = fma_shape(precision, path)
    size = shape.lanes * shape.products
    rng = np.random.default_rng(seed)
    types = TYPES[precision]
    if precision == "int8":
        y = rng.integers(1, 128, size) * rng.choice([-1, 1], size)
        return rng.integers(1, 128, size).astype(types.x), y.astype(types.y)
    if precision == "bfloat16":
        sign = rng.integers(0, 2, (2, size)) << 15
        bits = (rng.integers(0x3F00, 0x4000, (2, size)) | sign).astype(np.uint16)  # 0x3F00 is 0.5, 0x4000 is 2
        return bits[0], bits[1]
    return rng.uniform(0.3, 0.7, size).astype(types.x), rng.uniform(0.5, 1.0, size).astype(types.y)


def bind_fma(
    precision: str, x: Memory, y: Memory, out: Memory, iterations: int, threads: int = 1, *, path: str | None = None
) -> Callable[[], Any]:
    """A function of no arguments that runs the chains ``iterations`` times on each of ``threads`` threads.

    ``x``, ``y``: lanes * products operands; ``out``: (threads, chains, lanes) accumulators (types: TYPES), unchecked.
    The values must be in the domain of fma_inputs.
    Raises NativeCallError, here or when called (too many threads).
    """
    number, _ = _entry(precision, path)
    if any(isinstance(memory, int) and memory == 0 for memory in (x, y, out)) or iterations < 1 or threads < 1:
        raise NativeCallError("x, y and out must be addresses, iterations and threads positive")
    return functools.partial(
        _library().fma_run,
        ctypes.c_int32(number),
        *map(pointer, (x, y, out)),
        ctypes.c_int64(iterations),
        ctypes.c_int32(threads),
    )


def fma_run(
    precision: str, x: Array, y: Array, out: Array, iterations: int, threads: int = 1, *, path: str | None = None
) -> None:
    """Runs once. ``x``, ``y``: (lanes * products,) operands; ``out``: (threads, chains, lanes) accumulators.

    Types are those of TYPES[precision]. Raises NativeCallError for a wrong shape or type, int8 x above 127 (the
    AVX2 path adds two products in 16 bits with saturation), or more threads than CPUs.
    """
    shape = fma_shape(precision, path)
    types = TYPES[precision]
    vector = (shape.lanes * shape.products,)
    wanted = {"x": (x, types.x, vector), "y": (y, types.y, vector)}
    for name, (array, dtype, size) in {**wanted, "out": (out, types.out, (threads, shape.chains, shape.lanes))}.items():
        if array.dtype != dtype or array.shape != size or not array.flags.c_contiguous:
            expected = f"contiguous {np.dtype(dtype)}{list(size)}"
            raise NativeCallError(f"{name} must be {expected}, not {array.dtype}{list(array.shape)}")
    if precision == "int8" and x.max() > 127:
        raise NativeCallError("x must be at most 127: two products are added in 16 bits where VNNI is missing")
    bind_fma(precision, x, y, out, iterations, threads, path=path)()


def bfloat16_values(bits: Array) -> npt.NDArray[np.float64]:
    """The values of bfloat16 bit patterns (uint16), as float64."""
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def fma_reference(precision: str, x: Array, y: Array, iterations: int, path: str | None = None) -> Array:
    """What every thread's accumulators must be: float64 (chains, lanes), or int32 for int8 (exact).

    float64, float32: closed form of sum = sum * x + y from (chain + 1) * y. bfloat16: the alternating signs leave
    one product sum (iterations odd) or two (even) beside (chain + 1) * y0. int8: modulo 2^32.
    """
    shape = fma_shape(precision, path)
    chain = np.arange(1, shape.chains + 1, dtype=np.int64)[:, None]
    result: Array
    if precision == "int8":
        pairs = x.astype(np.int64).reshape(shape.lanes, -1) * y.astype(np.int64).reshape(shape.lanes, -1)
        total = chain + pairs.sum(axis=1) * np.int64(iterations)  # |sum| < 4 * 127 * 128: fits to 1e14 iterations
        result = (total & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
        return result
    if precision == "bfloat16":
        left, right = (bfloat16_values(v).reshape(shape.lanes, 2) for v in (x, y))
        net = 1 if iterations % 2 else 2
        result = chain * right[:, 0] + net * (left * right).sum(axis=1)
        return result
    left, right = x.astype(np.float64), y.astype(np.float64)
    fixed = right / (1.0 - left)
    result = fixed + left**iterations * (chain * right - fixed)
    return result


def clock_hz(adds: int = 1_000_000) -> float:
    """Core clock seen by the calling thread, in Hz: ``adds`` dependent additions take one cycle each.

    A lower bound: an interrupt or another program on the core only lengthens the time; take the largest of several.
    """
    if adds < 1:
        raise NativeCallError(f"adds must be positive, not {adds}")
    elapsed_ns = float(_library().clock_add_ns(adds))
    if elapsed_ns <= 0.0:
        raise NativeCallError(f"{adds} additions took no measurable time: ask for more")
    return adds / elapsed_ns * 1e9
