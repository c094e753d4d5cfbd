"""Sparse attention, the executor: attention over the blocks or the tokens that a selector kept.

What selects is counted apart (:mod:`~ridgeline.analytical.operators.attention_selector`). The executor's work depends
on what was kept: pairs decide the operations, different keys the bytes. Both are figures of the structure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.operators.moe import distinct_experts
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, Work, fma_key

INDEX_PRECISION = "int32"
"""Precision of a number of a block or a token, and of where a row starts."""


def sparse_attention_work(
    queries: Any,
    kept_pairs: Any,
    kept_keys: Any,
    index_entries: Any,
    head_dim: Any,
    precision: str,
    *,
    value_dim: Any = None,
    kv_precision: str | None = None,
) -> Work:
    """2 (d + d_v) operations and one exponential for each kept pair.

    Args:
        queries: query vectors, over all sequences and query heads. All are read, and an output is written for each.
        kept_pairs: unmasked (query, key) pairs inside what was kept, over all sequences and query heads.
        kept_keys: different keys kept, over all sequences and KV heads: what is read of K and V.
        index_entries: int32 numbers that say what is kept: of blocks and row starts, or of tokens.
        value_dim: head dimension of V; default ``head_dim``.
        kv_precision: what K and V are stored in; default ``precision``.
    """
    value_dim = head_dim if value_dim is None else value_dim
    return Work(
        operations={fma_key(precision): 2.0 * kept_pairs * (1.0 * head_dim + value_dim), SPECIAL: 1.0 * kept_pairs},
        read_bytes={
            "activations": bytes_of(1.0 * queries * head_dim, precision),
            "kv": bytes_of(1.0 * kept_keys * (1.0 * head_dim + value_dim), kv_precision or precision),
            "index": bytes_of(1.0 * index_entries, INDEX_PRECISION),
        },
        written_bytes={"activations": bytes_of(1.0 * queries * value_dim, precision)},
    )


@problem("token_gather_attention")
@dataclass(frozen=True, kw_only=True)
class TokenGatherAttention(Problem):
    """Decode: each query head attends to ``kept`` of ``kv_length`` tokens, drawn evenly with ``seed``.

    Heads of a group may choose different tokens of their KV head: the structure's figure is ``kept_keys``, the different
    ones over all sequences and KV heads.
    """

    batch: int
    q_heads: int
    kv_heads: int
    kv_length: int
    kept: int
    head_dim: int
    precision: str = "float32"
    seed: int = 1

    def check(self) -> None:
        if self.q_heads % self.kv_heads:
            raise ProblemError("kv_heads", f"must divide q_heads: {self.q_heads} query heads, {self.kv_heads} KV heads")
        if self.kept > self.kv_length:
            raise ProblemError("kept", f"{self.kept} of {self.kv_length} tokens cannot be")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return self._work(structure.figure("kept_keys"))

    def expected_work(self) -> Work:
        group = self.q_heads // self.kv_heads
        return self._work(self.batch * self.kv_heads * float(distinct_experts(self.kv_length, self.kept, group)))

    def footprint_bytes(self) -> float:
        """All keys and values lie in memory."""
        return float(self._work(float(self.batch * self.kv_heads * self.kv_length)).bytes)

    def _work(self, kept_keys: float) -> Work:
        queries = float(self.batch * self.q_heads)
        return sparse_attention_work(
            queries, queries * self.kept, kept_keys, queries * self.kept, self.head_dim, self.precision
        )

    @property
    def label(self) -> str:
        heads = f"H{self.q_heads}" + (f"/{self.kv_heads}" if self.kv_heads != self.q_heads else "")
        return f"B{self.batch} {heads} {self.kept} of S{self.kv_length} d{self.head_dim} {self.precision}"
