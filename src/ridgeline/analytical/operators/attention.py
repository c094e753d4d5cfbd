"""``attention``: softmax(Q K^T / sqrt(d)) V or sigmoid(Q K^T / sqrt(d) - ln S) V, over grouped heads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, Work, fma_key

SIGMOIDS = ("sigmoid", "sigmoid_without_bias")
TRANSFORMS = ("softmax", *SIGMOIDS)
PAGE_TABLE_PRECISION = "int32"
"""Precision of an entry of the block table of a paged KV cache, as in vLLM and FlashInfer."""


def attention_pairs(q_length: Any, kv_length: Any, causal: bool, window: Any = None) -> Any:
    """Unmasked (query, key) pairs of one head.

    Masks are aligned bottom-right: the last query stands at the last key. With more queries than keys, the first
    ``q_length - kv_length`` queries stand before all keys and see none, if ``causal``. ``window`` is the number of
    keys that a query sees at most, its own included (Mistral 7B, Jiang et al. 2023, section 2); without ``causal`` it
    sees ``window`` - 1 on each side and its own.
    """
    t, s = np.asarray(q_length, dtype=np.float64), np.asarray(kv_length, dtype=np.float64)
    if not causal:
        if window is None:
            return (t * s)[()]
        w = np.asarray(window, dtype=np.float64)
        # Query at position p sees the keys below p + w but those below p - w + 1.
        before, after = _keys_below_sum(t, s, w), _keys_below_sum(t, s, 1.0 - w)
        return (before - after)[()]
    seen = np.minimum(t, s)
    first = s - seen  # keys before the position of the first query that sees any
    if window is None:
        return (seen * first + seen * (seen + 1.0) / 2.0)[()]
    w = np.minimum(np.asarray(window, dtype=np.float64), s)
    ramp = np.clip(w - first, 0.0, seen)  # queries that see every key up to their own
    return (ramp * first + ramp * (ramp + 1.0) / 2.0 + (seen - ramp) * w)[()]


def _keys_below_sum(t: Any, s: Any, offset: Any) -> Any:
    """Keys in [0, s) below p + offset, summed over the query positions p from s - t to s - 1."""

    def up_to(x: Any) -> Any:
        inside = np.clip(x, 0.0, s)
        return inside * (inside + 1.0) / 2.0 + np.maximum(x - s, 0.0) * s

    return up_to(s - 1.0 + offset) - up_to(s - t - 1.0 + offset)


def attended_keys(q_length: Any, kv_length: Any, window: Any = None) -> Any:
    """Keys that at least one of the queries sees: all of them, or those in reach of the first query's window.

    For masks aligned bottom-right, causal or not: with or without a mask, the last query sees the last keys.
    """
    if window is None:
        return 1.0 * kv_length
    t, s, w = (np.asarray(x, dtype=np.float64) for x in (q_length, kv_length, window))
    return np.minimum(s, t + w - 1.0)[()]


def pages(length: Any, page: Any) -> Any:
    """Pages of ``page`` tokens that ``length`` tokens occupy."""
    return np.ceil(np.asarray(length, dtype=np.float64) / page)[()]


def paged_kv_bytes(
    batch: Any,
    kv_heads: Any,
    q_length: Any,
    kv_length: Any,
    head_dim: Any,
    precision: str,
    page: Any,
    *,
    value_dim: Any = None,
    window: Any = None,
) -> Any:
    """Bytes of keys and values that an implementation moves which reads whole pages: no less than is compulsory."""
    touched = _touched_pages(kv_length, attended_keys(q_length, kv_length, window), page)
    width = 1.0 * head_dim + (head_dim if value_dim is None else value_dim)
    return bytes_of(1.0 * batch * kv_heads * touched * page * width, precision)


def _touched_pages(kv_length: Any, attended: Any, page: Any) -> Any:
    return pages(kv_length, page) - np.floor((1.0 * kv_length - attended) / page)


def attention_work(
    batch: Any,
    q_heads: Any,
    kv_heads: Any,
    q_length: Any,
    kv_length: Any,
    head_dim: Any,
    causal: bool,
    precision: str,
    *,
    kv_precision: str | None = None,
    output: str | None = None,
    value_dim: Any = None,
    window: Any = None,
    page: Any = None,
    shared_prefix: Any = None,
) -> Work:
    """2 (d + d_v) operations and one exponential for each unmasked pair; Q, K, V read once, O written once.

    Only unmasked pairs count (FlashAttention-2, Dao 2023, section 3.1 skips the masked tiles), and only keys that some
    query sees: all of them, unless there is a ``window``. Masks as in :func:`attention_pairs`.

    Args:
        precision: of Q, and of both products.
        kv_precision: what K and V are stored in; default ``precision``. Widening is the implementation's work.
        output: what O is stored in; default ``precision``.
        value_dim: head dimension d_v of V and O; default ``head_dim``.
        window: keys that a query sees at most.
        page: tokens in a page of the KV cache. Adds the block table: one int32 for each page with an attended key. Tokens
            that fill up a page are not compulsory: :func:`paged_kv_bytes` is what is moved with them.
        shared_prefix: leading keys that all ``batch`` sequences share and that are stored once; default none.
    """
    value_dim = head_dim if value_dim is None else value_dim
    pairs = 1.0 * batch * q_heads * attention_pairs(q_length, kv_length, causal, window)
    queries = 1.0 * batch * q_heads * q_length
    attended = attended_keys(q_length, kv_length, window)
    keys = 1.0 * batch * kv_heads * attended
    if shared_prefix is not None:
        # A window may have left the prefix, or part of it, behind.
        shared = np.maximum(shared_prefix - (1.0 * kv_length - attended), 0.0)[()]
        keys = keys - (batch - 1.0) * kv_heads * shared
    read = {
        "activations": bytes_of(queries * head_dim, precision),
        "kv": bytes_of(keys * (head_dim + value_dim), kv_precision or precision),
    }
    if page is not None:
        read["index"] = bytes_of(1.0 * batch * _touched_pages(kv_length, attended, page), PAGE_TABLE_PRECISION)
    return Work(
        operations={fma_key(precision): 2.0 * pairs * (1.0 * head_dim + value_dim), SPECIAL: pairs},
        read_bytes=read,
        written_bytes={"activations": bytes_of(queries * value_dim, output or precision)},
    )


@problem("attention")
@dataclass(frozen=True, kw_only=True)
class Attention(Problem):
    """O[batch, q_heads, q_length, head_dim] of Q and of K, V[batch, kv_heads, kv_length, head_dim].

    ``q_length`` 1 is decode. ``kv_heads`` < ``q_heads`` is GQA: query head h reads KV head h // (q_heads / kv_heads).
    The scale is 1/sqrt(head_dim). ``sigmoid`` subtracts ln(kv_length) from the scores (FlashSigmoid, Ramapuram et
    al. 2024), ``sigmoid_without_bias`` nothing. ``causal`` and ``window`` hide keys as in :func:`attention_pairs`; a
    hidden key counts for nothing, whatever its values. A query that sees no key gives zeros.
    """

    batch: int
    q_heads: int
    kv_heads: int
    q_length: int
    kv_length: int
    head_dim: int
    causal: bool = False
    transform: str = "softmax"
    precision: str = "float32"
    window: int | None = None
    """Keys that a query sees at most on each side of its position, its own included; ``None`` for all."""

    def check(self) -> None:
        if self.q_heads % self.kv_heads:
            raise ProblemError("kv_heads", f"must divide q_heads: {self.q_heads} query heads, {self.kv_heads} KV heads")
        if self.transform not in TRANSFORMS:
            raise ProblemError("transform", f"must be one of {', '.join(TRANSFORMS)}, not {self.transform!r}")
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise ProblemError("precision", f"attention takes float32, bfloat16, float16, not {self.precision}")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return attention_work(
            self.batch,
            self.q_heads,
            self.kv_heads,
            self.q_length,
            self.kv_length,
            self.head_dim,
            self.causal,
            self.precision,
            window=self.window,
        )

    @property
    def score_bias(self) -> float:
        """What is added to the scaled scores: -ln(kv_length) for ``sigmoid``, else 0."""
        return -math.log(self.kv_length) if self.transform == "sigmoid" else 0.0

    @property
    def label(self) -> str:
        heads = f"H{self.q_heads}" + (f"/{self.kv_heads}" if self.kv_heads != self.q_heads else "")
        options = " causal" if self.causal else ""
        options += f" window {self.window}" if self.window is not None else ""
        options += {"sigmoid": " sigmoid", "sigmoid_without_bias": " sigmoid b0"}.get(self.transform, "")
        return f"B{self.batch} {heads} T{self.q_length} S{self.kv_length} d{self.head_dim}{options} {self.precision}"
