"""Native smoothing and quantising of Q or K for attention on integers, on torch tensors. See attention_quantiser.cpp."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import NamedTuple

import torch

from ridgeline.analytical.operators import AttentionQuantiser
from ridgeline.analytical.operators.quantised_attention import KEY_GROUPING, QUERY_BLOCK, QUERY_GROUPING
from ridgeline.kernels.native.build import NativeCallError, check_status, load
from ridgeline.kernels.native.paths import Paths
from ridgeline.kernels.native.tensors import address

KEY_TILE = 64


class Quantiser(NamedTuple):
    """A bound quantiser and what it writes beside the integers, anew in every call."""

    run: Callable[[torch.Tensor, torch.Tensor], None]
    """``run(x, out)``: float32 [batch, heads, length, d] to int8 of that shape."""
    scales: torch.Tensor
    """[batch, heads, groups], float32."""
    means: torch.Tensor | None
    """What was subtracted from keys, [batch, heads, d]; ``None`` for queries, and where nothing was."""


@functools.cache
def _library() -> ctypes.CDLL:
    library = load("attention_quantiser")
    number, memory, real = ctypes.c_int32, ctypes.c_void_p, ctypes.c_float
    library.attention_quantiser.argtypes = [
        number, ctypes.POINTER(ctypes.c_int64), real, real, memory, memory, memory, memory, memory, number,
    ]  # fmt: skip
    library.attention_quantiser.restype = check_status
    return library


_PATHS = Paths(_library, "attention_quantiser_path")


def paths() -> tuple[str, ...]:
    """Instruction paths of this CPU, best first; ``RIDGELINE_NATIVE_ISA`` limits them."""
    return _PATHS.permitted()


def bind_quantiser(
    problem: AttentionQuantiser, largest: float, floor: float, threads: int, *, path: str | None = None
) -> Quantiser:
    """A quantiser of queries or keys, which become integers of at most ``largest``; ``floor`` is added to each scale.

    Raises:
        NativeCallError: here for values (they have a scale a channel) and for a path that is not there; when called for
            a tensor of another dtype, shape or layout, and for more threads than CPUs.
    """
    if problem.role == "value":
        raise NativeCallError("values have a scale a channel: this quantises queries and keys")
    number = _PATHS.number(path)
    query = problem.role == "query"
    grouping = (QUERY_GROUPING if query else KEY_GROUPING)[problem.granularity]
    tile = QUERY_BLOCK if query else KEY_TILE
    shape = (problem.batch, problem.heads, problem.length, problem.head_dim)
    smooth = (1 if query else 2) if problem.smooth else 0
    sizes = (ctypes.c_int64 * 8)(
        shape[0] * shape[1], shape[2], shape[3], tile, smooth, grouping.rows, grouping.classes, grouping.run
    )
    scales = torch.empty(*shape[:2], problem.groups)
    means = torch.empty(*shape[:2], shape[3]) if smooth == 2 else None
    scratch = torch.empty(threads, tile + 1, shape[3])
    function = _library().attention_quantiser

    def run(x: torch.Tensor, out: torch.Tensor) -> None:
        function(
            number,
            sizes,
            largest,
            floor,
            address(x, "x", torch.float32, shape),
            address(out, "out", torch.int8, shape),
            scales.data_ptr(),
            None if means is None else means.data_ptr(),
            scratch.data_ptr(),
            threads,
        )

    return Quantiser(run, scales, means)
