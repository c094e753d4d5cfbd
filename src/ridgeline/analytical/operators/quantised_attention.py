"""``quantised_attention``: attention with Q K^T in integers and P V in eight bits (SageAttention2, Zhang et al. 2024).

Quantising the inputs is a pass of its own, :func:`~ridgeline.analytical.operators.integer_gemm.quantise_work`: it reads
Q, K and V once and may be fused with what makes them, so it is no part of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.operators.attention import attended_keys, attention_pairs
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, RateKey, Work, fma_key

SCALE_PRECISION = "float32"
"""Precision of a scale of a row, a channel or a group."""


def quantised_attention_work(
    batch: Any,
    q_heads: Any,
    kv_heads: Any,
    q_length: Any,
    kv_length: Any,
    head_dim: Any,
    causal: bool,
    *,
    scores: str = "int8",
    values: str = "float8_e4m3fn",
    output: str = "bfloat16",
    q_group: Any = 32,
    k_group: Any = 64,
    accumulator: str = "float32",
) -> Work:
    """2 d operations in ``scores`` precision and 2 d in ``values`` precision for each unmasked pair; one exponential.

    Q and K are stored in ``scores``, V in ``values``, O in ``output``. A float32 scale for each ``q_group`` queries and
    each ``k_group`` keys of a head, and one for each channel of V (none if V is float16 or bfloat16).

    Args:
        accumulator: of P V, as in the rate keys; integer scores accumulate in int32.
    """
    pairs = 1.0 * batch * q_heads * attention_pairs(q_length, kv_length, causal)
    queries, keys = 1.0 * batch * q_heads * q_length, 1.0 * batch * kv_heads * attended_keys(q_length, kv_length)
    scales = queries / q_group + keys / k_group
    if values not in ("float16", "bfloat16"):
        scales = scales + 1.0 * batch * kv_heads * head_dim
    value_key = RateKey("matrix", values, values, "int32" if values.startswith("int") else accumulator)
    operations = {fma_key(scores): 2.0 * pairs * head_dim}
    operations[value_key] = operations.get(value_key, 0.0) + 2.0 * pairs * head_dim
    operations[SPECIAL] = pairs
    return Work(
        operations=operations,
        read_bytes={
            "activations": bytes_of(queries * head_dim, scores),
            "kv": bytes_of(keys * head_dim, scores) + bytes_of(keys * head_dim, values),
            "scales": bytes_of(scales, SCALE_PRECISION),
        },
        written_bytes={"activations": bytes_of(queries * head_dim, output)},
    )


@problem("quantised_attention")
@dataclass(frozen=True, kw_only=True)
class QuantisedAttention(Problem):
    """O of quantised Q, K, V as in ``attention``; groups of 32 queries and 64 keys share a scale.

    ``precision`` is that of O.
    """

    batch: int
    q_heads: int
    kv_heads: int
    q_length: int
    kv_length: int
    head_dim: int
    causal: bool = False
    scores: str = "int8"
    values: str = "float16"
    precision: str = "float32"

    def check(self) -> None:
        if self.q_heads % self.kv_heads:
            raise ProblemError("kv_heads", f"must divide q_heads: {self.q_heads} query heads, {self.kv_heads} KV heads")
        if self.scores not in ("int8", "int4", "float8_e4m3fn"):
            raise ProblemError("scores", f"must be int8, int4 or float8_e4m3fn, not {self.scores!r}")
        if self.values not in ("int8", "float8_e4m3fn", "float16", "bfloat16", "float32"):
            raise ProblemError("values", f"must be int8 or a float of at most 32 bits, not {self.values!r}")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return quantised_attention_work(
            self.batch, self.q_heads, self.kv_heads, self.q_length, self.kv_length, self.head_dim, self.causal,
            scores=self.scores, values=self.values, output=self.precision,
        )  # fmt: skip

    @property
    def label(self) -> str:
        heads = f"H{self.q_heads}" + (f"/{self.kv_heads}" if self.kv_heads != self.q_heads else "")
        causal = " causal" if self.causal else ""
        shape = f"B{self.batch} {heads} T{self.q_length} S{self.kv_length} d{self.head_dim}"
        return f"{shape}{causal} {self.scores}/{self.values} {self.precision}"
