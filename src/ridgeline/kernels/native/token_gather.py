"""Decode attention over lists of tokens in C++ (token_gather.cpp): pieces of equal length for each thread."""

from __future__ import annotations

import ctypes
import functools
import math

import torch

from ridgeline.kernels.native.build import NativeCallError, check_status, load
from ridgeline.kernels.native.paths import Paths
from ridgeline.kernels.native.tensors import address


@functools.cache
def _library() -> ctypes.CDLL:
    library = load("token_gather")
    pointer, count, size = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    library.token_gather_attention.argtypes = [*[pointer] * 6, *[size] * 5, ctypes.c_float, count, count]
    library.token_gather_attention.restype = ctypes.c_int32
    return library


_PATHS = Paths(_library, "token_gather_path")


def token_gather_paths() -> tuple[str, ...]:
    """Instruction paths of this CPU, best first, of avx512, avx2, portable; ``RIDGELINE_NATIVE_ISA`` limits them."""
    return _PATHS.permitted()


def token_gather_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    row_starts: torch.Tensor,
    tokens: torch.Tensor,
    out: torch.Tensor,
    threads: int,
    *,
    path: str | None = None,
) -> None:
    """Softmax over the listed tokens of each query head; a head without tokens gets zeros.

    Args:
        q: float32 [B, H, d].
        k, v: float32 [B, H_kv, S, d].
        row_starts: int32 [B H + 1], where each head's list starts in ``tokens``.
        tokens: int32 [listed], each below S.
        out: float32 [B, H, d].

    Raises:
        NativeCallError: for a tensor of another kind, lists out of order, or a token that is not there.
    """
    batch, heads, d = q.shape
    kv_heads, length = k.shape[1], k.shape[2]
    if kv_heads < 1 or heads % kv_heads:
        raise NativeCallError(f"k must have a number of heads that divides {heads}, not {kv_heads}")
    listed = tokens.shape[0]
    number = _PATHS.number(path)
    status = _library().token_gather_attention(
        address(q, "q", torch.float32, (batch, heads, d)),
        address(k, "k", torch.float32, (batch, kv_heads, length, d)),
        address(v, "v", torch.float32, (batch, kv_heads, length, d)),
        address(row_starts, "row_starts", torch.int32, (batch * heads + 1,)),
        address(tokens, "tokens", torch.int32, (listed,)),
        address(out, "out", torch.float32, (batch, heads, d)),
        batch * heads, heads // kv_heads, length, d, listed, math.log2(math.e) / math.sqrt(d), threads, number,
    )  # fmt: skip
    if status == -4:
        raise NativeCallError(
            f"row_starts must rise from 0 to {listed}, the length of tokens, and tokens must be 0 to {length - 1}"
        )
    check_status(status)
