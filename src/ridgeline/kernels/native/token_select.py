"""Choosing tokens in C++ (token_select.cpp): products, the largest, clusters above a threshold, masks into lists.

Rows are the query heads of all sequences, B H of them; ``group`` of them share a KV head.
"""

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
    library = load("token_select")
    pointer, count, size, number = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float
    library.token_products.argtypes = [*[pointer] * 4, count, pointer, *[size] * 6, count, count]
    library.token_top_k.argtypes = [*[pointer] * 3, *[size] * 7, count, count]
    library.token_mask.argtypes = [
        pointer, pointer, size, number, *[pointer] * 5, size, number, *[pointer] * 3, *[size] * 4, number, count, count,
    ]  # fmt: skip
    library.token_compact.argtypes = [*[pointer] * 3, *[size] * 3, count]
    for function in (library.token_products, library.token_top_k, library.token_mask, library.token_compact):
        function.restype = ctypes.c_int32
    return library


_PATHS = Paths(_library, "token_select_path")


def token_select_paths() -> tuple[str, ...]:
    """Instruction paths of this CPU, best first, of avx512, avx2, portable; ``RIDGELINE_NATIVE_ISA`` limits them."""
    return _PATHS.permitted()


def _check(status: int, complaint: str) -> None:
    if status == -4:
        raise NativeCallError(complaint)
    check_status(status)


def token_products(
    q: torch.Tensor,
    rows: torch.Tensor,
    out: torch.Tensor,
    threads: int,
    *,
    channels: torch.Tensor | None = None,
    scales: torch.Tensor | None = None,
    path: str | None = None,
) -> None:
    """Products of each query with the rows of its KV head.

    Args:
        q: float32 [B, H, d].
        rows: float32 or int8 [B, H_kv, n, r], or [H_kv, n, r] where all sequences have the same (a codebook).
        out: float32 [B, H, n].
        channels: int32 [H_kv, r], the elements of q that are used; ``None`` for all, r = d.
        scales: float32 [H_kv, r], what each of them is multiplied by; ``None`` for one.

    Raises:
        NativeCallError: for a tensor of another kind or a channel that is not there.
    """
    batch, heads, d = q.shape
    shared = rows.dim() == 3
    kv_heads, count, r = rows.shape[-3:]
    if kv_heads < 1 or heads % kv_heads:
        raise NativeCallError(f"rows must have a number of heads that divides {heads}, not {kv_heads}")
    if channels is None and r != d:
        raise NativeCallError(f"rows must have the {d} elements of q, or channels must name {r} of them")
    dtype = torch.int8 if rows.dtype is torch.int8 else torch.float32
    # With rows for each sequence too, the channels of a KV head serve all of them.
    matrices = kv_heads if shared else batch * kv_heads
    named = (kv_heads, r)
    if not shared and batch > 1:
        channels = None if channels is None else channels.repeat(batch, 1)
        scales = None if scales is None else scales.repeat(batch, 1)
        named = (matrices, r)
    status = _library().token_products(
        address(q, "q", torch.float32, (batch, heads, d)),
        None if channels is None else address(channels, "channels", torch.int32, named),
        None if scales is None else address(scales, "scales", torch.float32, named),
        address(rows, "rows", dtype, (kv_heads, count, r) if shared else (batch, kv_heads, count, r)),
        int(dtype is torch.int8),
        address(out, "out", torch.float32, (batch, heads, count)),
        batch * kv_heads, heads // kv_heads, matrices, count, r, d, threads, _PATHS.number(path),
    )  # fmt: skip
    _check(status, f"channels must be 0 to {d - 1}, shapes at least 1")


def token_top_k(
    scores: torch.Tensor,
    out: torch.Tensor,
    threads: int,
    *,
    codes: torch.Tensor | None = None,
    sinks: int = 0,
    window: int = 0,
    path: str | None = None,
) -> None:
    """For each row the first ``sinks`` tokens, the last ``window``, and between them those with the largest scores.

    Args:
        scores: float32 [B, H, n], or with codes [B, H, C].
        out: int32 [B, H, sinks + k + window], token ids in order. Of equal scores the earlier token is chosen; what is
            not a number is above all numbers.
        codes: int16 [B, H_kv, n], which of the C scores a token has; ``None`` where each token has its own.

    Raises:
        NativeCallError: for a tensor of another kind, more tokens than there are, or a code that is not there.
    """
    batch, heads, width = scores.shape
    kv_heads, n = (heads, width) if codes is None else codes.shape[1:]
    if kv_heads < 1 or heads % kv_heads:
        raise NativeCallError(f"codes must have a number of heads that divides {heads}, not {kv_heads}")
    k = out.shape[-1] - sinks - window
    status = _library().token_top_k(
        address(scores, "scores", torch.float32, (batch, heads, width)),
        None if codes is None else address(codes, "codes", torch.int16, (batch, kv_heads, n)),
        address(out, "out", torch.int32, (batch, heads, sinks + k + window)),
        batch * heads, heads // kv_heads, width, n, k, sinks, window, threads, _PATHS.number(path),
    )  # fmt: skip
    _check(status, f"{sinks} + {k} + {window} of {n} tokens must be possible, and codes must be 0 to {width - 1}")


def _log2(threshold: float) -> float:
    if not threshold >= 0.0:
        raise NativeCallError(f"a threshold is a score, 0 or more, not {threshold}")
    return math.log2(threshold) if threshold > 0.0 else -math.inf


def token_mask(
    logits: torch.Tensor,
    sizes: torch.Tensor,
    assignment: torch.Tensor,
    threshold: float,
    head_dim: int,
    mask: torch.Tensor,
    threads: int,
    *,
    path: str | None = None,
) -> None:
    """Tokens whose cluster's score exp(l / sqrt(d)) / sum N exp(l / sqrt(d)) is above ``threshold``; 0 keeps all.

    Args:
        logits: float32 [B, H, C], products of query and centroid.
        sizes: int32 [B, H_kv, C], tokens of each cluster.
        assignment: int32 [B, H_kv, S], the cluster of each token.
        mask: int8 [B, H, S], becomes 0 or 1.

    Raises:
        NativeCallError: for a tensor of another kind, or a cluster that is not there.
    """
    batch, heads, clusters = logits.shape
    kv_heads, n = assignment.shape[1:]
    if kv_heads < 1 or heads % kv_heads:
        raise NativeCallError(f"assignment must have a number of heads that divides {heads}, not {kv_heads}")
    status = _library().token_mask(
        None, None, 0, 0.0, None, None, None,
        address(logits, "logits", torch.float32, (batch, heads, clusters)),
        address(sizes, "sizes", torch.int32, (batch, kv_heads, clusters)),
        clusters, _log2(threshold),
        address(assignment, "assignment", torch.int32, (batch, kv_heads, n)),
        address(mask, "mask", torch.int8, (batch, heads, n)),
        None, batch * heads, heads // kv_heads, n, head_dim, math.log2(math.e) / math.sqrt(head_dim), threads,
        _PATHS.number(path),
    )  # fmt: skip
    _check(status, f"assignment must be 0 to {clusters - 1}, shapes at least 1")


def token_hierarchical_mask(
    q: torch.Tensor,
    coarse_logits: torch.Tensor,
    coarse_sizes: torch.Tensor,
    coarse_threshold: float,
    parent: torch.Tensor,
    centroids: torch.Tensor,
    sizes: torch.Tensor,
    assignment: torch.Tensor,
    threshold: float,
    mask: torch.Tensor,
    scored: torch.Tensor,
    threads: int,
    *,
    path: str | None = None,
) -> None:
    """As token_mask, scoring only the clusters whose coarse cluster's score is above ``coarse_threshold``.

    The denominator counts a coarse cluster that was passed over as one.

    Args:
        q: float32 [B, H, d].
        coarse_logits: float32 [B, H, C1]; coarse_sizes: int32 [B, H_kv, C1].
        parent: int32 [B, H_kv, C], the coarse cluster of each.
        centroids: float32 [B, H_kv, C, d]; sizes: int32 [B, H_kv, C].
        assignment: int32 [B, H_kv, S].
        mask: int8 [B, H, S], becomes 0 or 1.
        scored: int64 [B, H], becomes the number of clusters scored.

    Raises:
        NativeCallError: for a tensor of another kind, or a cluster that is not there.
    """
    batch, heads, d = q.shape
    kv_heads, n = assignment.shape[1:]
    coarse, clusters = coarse_logits.shape[-1], centroids.shape[-2]
    if kv_heads < 1 or heads % kv_heads:
        raise NativeCallError(f"assignment must have a number of heads that divides {heads}, not {kv_heads}")
    status = _library().token_mask(
        address(coarse_logits, "coarse_logits", torch.float32, (batch, heads, coarse)),
        address(coarse_sizes, "coarse_sizes", torch.int32, (batch, kv_heads, coarse)),
        coarse, _log2(coarse_threshold),
        address(parent, "parent", torch.int32, (batch, kv_heads, clusters)),
        address(q, "q", torch.float32, (batch, heads, d)),
        address(centroids, "centroids", torch.float32, (batch, kv_heads, clusters, d)),
        None,
        address(sizes, "sizes", torch.int32, (batch, kv_heads, clusters)),
        clusters, _log2(threshold),
        address(assignment, "assignment", torch.int32, (batch, kv_heads, n)),
        address(mask, "mask", torch.int8, (batch, heads, n)),
        address(scored, "scored", torch.int64, (batch, heads)),
        batch * heads, heads // kv_heads, n, d, math.log2(math.e) / math.sqrt(d), threads, _PATHS.number(path),
    )  # fmt: skip
    _check(status, f"assignment must be 0 to {clusters - 1} and parent 0 to {coarse - 1}, shapes at least 1")


def token_compact(mask: torch.Tensor, row_starts: torch.Tensor, tokens: torch.Tensor, threads: int) -> torch.Tensor:
    """Lists of the tokens whose mask is 1.

    Args:
        mask: int8 [B, H, S] of 0 and 1.
        row_starts: int32 [B H + 1], becomes where each list starts.
        tokens: int32 [room]; its first ``row_starts[-1]`` become the token ids, row by row, in order.

    Returns:
        The part of ``tokens`` that was filled.

    Raises:
        NativeCallError: for a tensor of another kind, or too little room.
    """
    batch, heads, n = mask.shape
    room = tokens.shape[0]
    status = _library().token_compact(
        address(mask, "mask", torch.int8, (batch, heads, n)),
        address(row_starts, "row_starts", torch.int32, (batch * heads + 1,)),
        address(tokens, "tokens", torch.int32, (room,)),
        batch * heads, n, room, threads,
    )  # fmt: skip
    _check(status, f"tokens must have room for all tokens kept, not for {room}")
    return tokens[: int(row_starts[-1])]
