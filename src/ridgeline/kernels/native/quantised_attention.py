"""Native attention on quantised Q, K and V, and the integer products it is made of, on torch tensors.

Paths, best first: ``avx512_vnni`` and ``avx_vnni`` multiply bytes (vpdpbusd), ``avx512`` and ``avx2`` int16 pairs
(vpmaddwd), ``portable`` plain vectors; all of them exactly. See quantised_attention.cpp and int8_dot.h.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from ridgeline.analytical.operators import QuantisedAttention
from ridgeline.analytical.operators.quantised_attention import KEY_GROUPING, QUERY_BLOCK, QUERY_GROUPING
from ridgeline.kernels.native.build import NativeCallError, check_status, load
from ridgeline.kernels.native.paths import Paths
from ridgeline.kernels.native.tensors import address

VALUE_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float8_e4m3fn: 3}
"""Numbers by dtype of V, as in quantised_attention.cpp."""
LARGEST_DEPTH = 65536
"""Up to this, a sum of products of int8 (with 128 added to one of them) fits int32."""


@functools.cache
def _library() -> ctypes.CDLL:
    library = load("quantised_attention")
    words, number, memory = ctypes.POINTER(ctypes.c_int64), ctypes.c_int32, ctypes.c_void_p
    library.quantised_attention_words.argtypes = [number, words, number]
    library.quantised_attention_words.restype = ctypes.c_int64
    library.quantised_attention.argtypes = [number, words, words, ctypes.POINTER(memory), number]
    library.quantised_attention.restype = check_status
    library.int8_packed_words.argtypes = [number, words]
    library.int8_packed_words.restype = ctypes.c_int64
    library.int8_products_words.argtypes = [words, number]
    library.int8_products_words.restype = ctypes.c_int64
    library.int8_pack.argtypes = [number, words, memory, memory, number]
    library.int8_pack.restype = check_status
    library.int8_products.argtypes = [number, words, memory, memory, memory, memory, number]
    library.int8_products.restype = check_status
    return library


_PATHS = Paths(_library, "quantised_attention_path")


def paths() -> tuple[str, ...]:
    """Instruction paths of this CPU, best first; ``RIDGELINE_NATIVE_ISA`` limits them."""
    return _PATHS.permitted()


def _int64(*values: int) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


def bind(
    problem: QuantisedAttention, threads: int, *, path: str | None = None
) -> Callable[[Mapping[str, torch.Tensor], torch.Tensor], None]:
    """``run(inputs, out)`` for the tensors that the operator ``quantised_attention`` makes; ``out`` is float32.

    Holds scratch memory for packed keys and widened values, so it is for one call at a time.

    Raises:
        NativeCallError: here for a path that is not there; when called for a tensor of another dtype, shape or layout,
            and for more threads than CPUs.
    """
    number = _PATHS.number(path)
    b, h, g = problem.batch, problem.q_heads, problem.kv_heads
    t, s, d = problem.q_length, problem.kv_length, problem.head_dim
    q_grouping, k_grouping = QUERY_GROUPING[problem.granularity], KEY_GROUPING[problem.granularity]
    values = getattr(torch, problem.values)
    shapes: list[tuple[str, torch.dtype, tuple[int, ...]] | None] = [
        ("q", torch.int8, (b, h, t, d)),
        ("k", torch.int8, (b, g, s, d)),
        ("v", values, (b, g, s, d)),
        ("q_scale", torch.float32, (b, h, int(q_grouping.groups(t)))),
        ("k_scale", torch.float32, (b, g, int(k_grouping.groups(s)))),
        ("v_scale", torch.float32, (b, g, d)) if values is torch.float8_e4m3fn else None,
        ("v_mean", torch.float32, (b, g, d)) if problem.smooth_v else None,
        ("correction", torch.float32, (b, h, -(-t // QUERY_BLOCK), s)) if problem.smooth_q else None,
    ]
    sizes = _int64(b, h, g, t, s, d, int(problem.causal), VALUE_TYPES[values])
    groups = _int64(
        q_grouping.rows, q_grouping.classes, q_grouping.run, k_grouping.rows, k_grouping.classes, k_grouping.run
    )
    words = _library().quantised_attention_words(number, sizes, threads)
    if words <= 0:
        raise NativeCallError(f"{problem.label} on {threads} threads: no such problem of the native kernel")
    scratch = torch.empty(words, dtype=torch.int32)
    function = _library().quantised_attention
    tensors = (ctypes.c_void_p * (len(shapes) + 2))()

    def run(inputs: Mapping[str, torch.Tensor], out: torch.Tensor) -> None:
        for index, wanted in enumerate(shapes):
            if wanted is not None:
                tensors[index] = address(inputs[wanted[0]], *wanted)
        tensors[len(shapes)] = address(out, "out", torch.float32, (b, h, t, d))
        tensors[len(shapes) + 1] = scratch.data_ptr()
        function(number, sizes, groups, tensors, threads)

    return run


class Packed(NamedTuple):
    """Rows of int8 in the form that a path multiplies."""

    words: torch.Tensor
    n: int
    depth: int
    number: int
    """Of the path in the library."""


def bind_pack(b: torch.Tensor, threads: int = 1, *, path: str | None = None) -> tuple[Callable[[], None], Packed]:
    """A function that packs ``b`` int8[n, depth], and what it writes to.

    Raises NativeCallError, here or when called, for a tensor of another dtype or layout, a depth above 65536, a path that
    is not there or more threads than CPUs.
    """
    number = _PATHS.number(path)
    if b.dim() != 2 or not 1 <= b.shape[1] <= LARGEST_DEPTH:
        raise NativeCallError(f"b must be int8[n, depth] with a depth of 1 to {LARGEST_DEPTH}, not {list(b.shape)}")
    n, depth = b.shape
    sizes = _int64(1, n, depth)
    words = torch.empty(_library().int8_packed_words(number, sizes), dtype=torch.int32)
    function = _library().int8_pack

    def run() -> None:
        function(number, sizes, address(b, "b", torch.int8, (n, depth)), words.data_ptr(), threads)

    return run, Packed(words, n, depth, number)


def bind_products(a: torch.Tensor, b: Packed, out: torch.Tensor, threads: int = 1) -> Callable[[], None]:
    """A function that computes ``out = a b^T``, exactly: ``a`` int8[m, depth], ``out`` int32[m, n].

    Raises NativeCallError when called, for tensors of another dtype, shape or layout, or more threads than CPUs.
    """
    m = len(a)
    sizes = _int64(m, b.n, b.depth)
    scratch = torch.empty(_library().int8_products_words(sizes, threads), dtype=torch.int32)
    function = _library().int8_products

    def run() -> None:
        function(
            b.number,
            sizes,
            address(a, "a", torch.int8, (m, b.depth)),
            b.words.data_ptr(),
            address(out, "out", torch.int32, (m, b.n)),
            scratch.data_ptr(),
            threads,
        )

    return run


def int8_products(
    a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, threads: int = 1, *, path: str | None = None
) -> None:
    """``out = a b^T``, exactly: ``a`` int8[m, depth], ``b`` int8[n, depth], ``out`` int32[m, n]. Packs ``b`` first."""
    pack, packed = bind_pack(b, threads, path=path)
    pack()
    bind_products(a, packed, out, threads)()
