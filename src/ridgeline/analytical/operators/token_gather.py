"""Decode over the tokens that a selector kept: a list of token ids for each query head.

What selects is counted apart (:mod:`~ridgeline.analytical.operators.attention_selector`).
"""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline.analytical.operators.moe import distinct_experts
from ridgeline.analytical.operators.sparse_attention import sparse_attention_work
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.work import Work


@problem("token_gather_attention")
@dataclass(frozen=True, kw_only=True)
class TokenGatherAttention(Problem):
    """Decode: each query head attends to a list of the ``kv_length`` tokens, drawn evenly with ``seed``.

    A list has ``kept`` tokens; with ``spread`` > 0 lists are ragged, as a global threshold leaves them (Squeezed
    Attention, Hooper et al. 2024): their lengths are whole numbers drawn evenly from ``kept`` (1 - spread) to ``kept``
    (1 + spread). Heads of a group may choose different tokens of their KV head. Figures of the structure, over all
    sequences: ``kept_keys``, the different tokens of each KV head, and ``kept_pairs``, the lengths of all lists.
    """

    batch: int
    q_heads: int
    kv_heads: int
    kv_length: int
    kept: int
    head_dim: int
    spread: float = 0.0
    precision: str = "float32"
    seed: int = 1

    def check(self) -> None:
        if self.q_heads % self.kv_heads:
            raise ProblemError("kv_heads", f"must divide q_heads: {self.q_heads} query heads, {self.kv_heads} KV heads")
        if self.kept > self.kv_length:
            raise ProblemError("kept", f"{self.kept} of {self.kv_length} tokens cannot be")
        if not 0.0 <= self.spread <= 1.0:
            raise ProblemError("spread", f"must be 0 to 1, not {self.spread:g}")
        if self.kept + self.widest > self.kv_length:
            raise ProblemError(
                "spread", f"lists of up to {self.kept + self.widest} of {self.kv_length} tokens cannot be"
            )

    @property
    def widest(self) -> int:
        """How far a list's length may be from ``kept``."""
        return round(self.kept * self.spread)

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return self._work(structure.figure("kept_keys"), structure.figure("kept_pairs"))

    def expected_work(self) -> Work:
        # Lengths are drawn apart from each other around their mean, so a token's chance to be in a list is kept / S.
        group = self.q_heads // self.kv_heads
        keys = self.batch * self.kv_heads * float(distinct_experts(self.kv_length, self.kept, group))
        return self._work(keys, float(self.batch * self.q_heads) * self.kept)

    def footprint_bytes(self) -> float:
        """All keys and values lie in memory."""
        pairs = float(self.batch * self.q_heads) * (self.kept + self.widest)
        return float(self._work(float(self.batch * self.kv_heads * self.kv_length), pairs).bytes)

    def _work(self, kept_keys: float, kept_pairs: float) -> Work:
        queries = float(self.batch * self.q_heads)
        # The index is where each list starts, where the last ends, and the tokens.
        return sparse_attention_work(
            queries, kept_pairs, kept_keys, kept_pairs + queries + 1.0, self.head_dim, self.precision
        )

    @property
    def label(self) -> str:
        heads = f"H{self.q_heads}" + (f"/{self.kv_heads}" if self.kv_heads != self.q_heads else "")
        ragged = f"+-{self.widest}" if self.widest else ""
        return f"B{self.batch} {heads} {self.kept}{ragged} of S{self.kv_length} d{self.head_dim} {self.precision}"
