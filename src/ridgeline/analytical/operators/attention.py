"""``attention``: softmax(Q K^T / sqrt(d)) V or sigmoid(Q K^T / sqrt(d) - ln S) V, over grouped heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import RateKey, Work, fma_key

TRANSFORMS = ("softmax", "sigmoid")


def attention_pairs(q_length: Any, kv_length: Any, causal: bool) -> Any:
    """Unmasked (query, key) pairs of one head.

    Causal masks are aligned bottom-right: the last query sees every key. With more queries than keys the first
    ``q_length - kv_length`` queries see none.
    """
    t, s = np.asarray(q_length, dtype=np.float64), np.asarray(kv_length, dtype=np.float64)
    if not causal:
        return (t * s)[()]
    seen = np.minimum(t, s)
    return (seen * (s - seen) + seen * (seen + 1.0) / 2.0)[()]


def attention_work(
    batch: Any,
    q_heads: Any,
    kv_heads: Any,
    q_length: Any,
    kv_length: Any,
    head_dim: Any,
    causal: bool,
    precision: str,
) -> Work:
    """4 d operations and one exponential for each unmasked pair; Q, K, V read once, O written once.

    Only unmasked pairs count (FlashAttention-2, Dao 2023, section 3.1 skips the masked tiles). Keys that no query
    sees are still stored, but not compulsory: with bottom-right alignment every key is seen by the last query.
    """
    pairs = 1.0 * batch * q_heads * attention_pairs(q_length, kv_length, causal)
    q_bytes = bytes_of(1.0 * batch * q_heads * q_length * head_dim, precision)
    kv_bytes = bytes_of(2.0 * batch * kv_heads * kv_length * head_dim, precision)
    return Work(
        operations={
            fma_key(precision): 4.0 * pairs * head_dim,
            RateKey("special", "float32", "float32", "float32"): pairs,
        },
        read_bytes={"activations": q_bytes, "kv": kv_bytes},
        written_bytes={"activations": q_bytes},
    )


@problem("attention")
@dataclass(frozen=True, kw_only=True)
class Attention(Problem):
    """O[batch, q_heads, q_length, head_dim] of Q and of K, V[batch, kv_heads, kv_length, head_dim].

    ``q_length`` 1 is decode. ``kv_heads`` < ``q_heads`` is GQA: query head h reads KV head h // (q_heads / kv_heads).
    The scale is 1/sqrt(head_dim). ``sigmoid`` subtracts ln(kv_length) from the scores (FlashSigmoid, Ramapuram et
    al. 2024). A query that sees no key gives zeros.
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
        )

    @property
    def label(self) -> str:
        heads = f"H{self.q_heads}" + (f"/{self.kv_heads}" if self.kv_heads != self.q_heads else "")
        options = (" causal" if self.causal else "") + (" sigmoid" if self.transform == "sigmoid" else "")
        return f"B{self.batch} {heads} T{self.q_length} S{self.kv_length} d{self.head_dim}{options} {self.precision}"
