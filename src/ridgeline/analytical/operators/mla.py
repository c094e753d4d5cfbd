"""Multi-head latent attention: keys and values of all heads come from one latent vector a token.

DeepSeek-V2 (2024), section 2.1 and appendix C. A cached token is a latent of ``kv_rank`` values (512) and a rotary key
of ``rope_dim`` (64), shared by all heads. A head's key has ``nope_dim`` (128) values made from the latent beside the
rotary ones; its value has ``value_dim`` (128).

Two ways to the same result. *Plain*: keys and values are made from the latents (``kv_b_proj``), then attention is
ordinary. *Absorbed*: the up-projections are applied to the query and to the output instead, and attention runs on the
latents themselves as one KV head that all query heads share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.operators.attention import attention_pairs
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, Work, fma_key


def mla_work(
    batch: Any,
    heads: Any,
    q_length: Any,
    kv_length: Any,
    kv_rank: Any,
    rope_dim: Any,
    nope_dim: Any,
    value_dim: Any,
    causal: bool,
    precision: str,
    *,
    kv_precision: str | None = None,
    absorbed: bool,
) -> Work:
    """The attention itself, without the up-projections (:func:`mla_projection_work`).

    Absorbed: a pair takes 2 (kv_rank + rope_dim) + 2 kv_rank operations; the latents (in ``kv_precision``, default
    ``precision``) are read once for all heads, keys and values being the same bytes. Queries have kv_rank + rope_dim
    values a head, outputs kv_rank.
    Plain: a pair takes 2 (nope_dim + rope_dim) + 2 value_dim; keys and values of every head are read in
    ``kv_precision``, the rotary part of the keys once for all heads.
    """
    pairs = 1.0 * batch * heads * attention_pairs(q_length, kv_length, causal)
    queries, cached = 1.0 * batch * heads * q_length, 1.0 * batch * kv_length
    key_dim, out_dim = (kv_rank, kv_rank) if absorbed else (nope_dim, value_dim)
    stored = 1.0 * kv_rank + rope_dim if absorbed else 1.0 * heads * (nope_dim + value_dim) + rope_dim
    return Work(
        operations={fma_key(precision): 2.0 * pairs * (1.0 * key_dim + rope_dim + out_dim), SPECIAL: pairs},
        read_bytes={
            "activations": bytes_of(queries * (key_dim + rope_dim), precision),
            "kv": bytes_of(cached * stored, kv_precision or precision),
        },
        written_bytes={"activations": bytes_of(queries * out_dim, precision)},
    )


def mla_projection_work(
    batch: Any,
    heads: Any,
    q_length: Any,
    kv_length: Any,
    kv_rank: Any,
    nope_dim: Any,
    value_dim: Any,
    precision: str,
    *,
    weight: str | None = None,
    kv_precision: str | None = None,
    absorbed: bool,
) -> Work:
    """The up-projections that go with :func:`mla_work`: W_UK [heads, nope_dim, kv_rank], W_UV [heads, kv_rank, value_dim].

    Absorbed: every query's nope part through W_UK, every output latent through W_UV, as one GEMM for each head: two
    launches. Plain: the latents of ``kv_length`` tokens (those whose keys and values do not exist yet) through both,
    as one GEMM.
    """
    weights = bytes_of(1.0 * heads * kv_rank * (1.0 * nope_dim + value_dim), weight or precision)
    tokens = 1.0 * batch * (q_length if absorbed else kv_length)
    operations = {fma_key(precision): 2.0 * tokens * heads * kv_rank * (1.0 * nope_dim + value_dim)}
    if absorbed:
        return Work(
            operations=operations,
            read_bytes={
                "activations": bytes_of(tokens * heads * (1.0 * nope_dim + kv_rank), precision),
                "weights": weights,
            },
            written_bytes={"activations": bytes_of(tokens * heads * (1.0 * kv_rank + value_dim), precision)},
            launches=2,
        )
    return Work(
        operations=operations,
        read_bytes={"kv": bytes_of(tokens * kv_rank, kv_precision or precision), "weights": weights},
        written_bytes={"kv": bytes_of(tokens * heads * (1.0 * nope_dim + value_dim), kv_precision or precision)},
    )


@problem("mla")
@dataclass(frozen=True, kw_only=True)
class MultiHeadLatentAttention(Problem):
    """Attention on latents (``absorbed``) or on the keys and values made from them; DeepSeek-V3's dimensions by default."""

    batch: int
    heads: int
    q_length: int
    kv_length: int
    kv_rank: int = 512
    rope_dim: int = 64
    nope_dim: int = 128
    value_dim: int = 128
    causal: bool = True
    absorbed: bool = True
    precision: str = "bfloat16"

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return mla_work(
            self.batch, self.heads, self.q_length, self.kv_length, self.kv_rank, self.rope_dim, self.nope_dim,
            self.value_dim, self.causal, self.precision, absorbed=self.absorbed,
        )  # fmt: skip

    @property
    def label(self) -> str:
        way = "absorbed" if self.absorbed else "plain"
        causal = " causal" if self.causal else ""
        return f"B{self.batch} H{self.heads} T{self.q_length} S{self.kv_length} r{self.kv_rank} {way}{causal} {self.precision}"
