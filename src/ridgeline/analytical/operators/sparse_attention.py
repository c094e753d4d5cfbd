"""Sparse attention, the executor: attention over the blocks or the tokens that a selector kept.

What selects is counted apart (:mod:`~ridgeline.analytical.operators.attention_selector`). The executor's work depends
on what was kept: pairs decide the operations, different keys the bytes. Both are figures of the structure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.operators.attention import attention_pairs
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


def strided_blocks(block_rows: Any, local: Any, stride: Any, shift: Any = 0) -> Any:
    """Blocks that one head of S2-Attention keeps (Lin et al. 2024), causal, of block_rows^2 / 2.

    Each block row keeps the ``local`` last blocks up to its own, and of the earlier ones every ``stride``-th: those at
    columns c with (c + ``shift``) a multiple of ``stride``. Heads have different shifts.
    """
    rows, s = np.asarray(block_rows, dtype=np.float64), np.asarray(stride, dtype=np.float64)
    # Rows look back at 0, 1, ... columns beyond their local ones; a column counts from the row on that has it in reach.
    beyond = np.maximum(np.maximum(rows - local, 0.0) - (-np.asarray(shift)) % s, 0.0)
    full = np.floor(beyond / s)
    strided = s * full * (full + 1.0) / 2.0 + (beyond - s * full) * (full + 1.0)
    return (attention_pairs(block_rows, block_rows, True, local) + strided)[()]


@problem("block_sparse_attention")
@dataclass(frozen=True, kw_only=True)
class BlockSparseAttention(Problem):
    """Prefill over kept ``block`` x ``block`` tiles of the score matrix, listed for each query head (CSR).

    Blocks that the causal mask leaves at all are kept with ``density`` each, drawn with ``seed``; those that hold the
    diagonal are always kept. Figures of the structure: ``kept_blocks``, ``kept_pairs``, ``kept_keys``.
    """

    batch: int
    q_heads: int
    kv_heads: int
    length: int
    head_dim: int
    block: int
    density: float
    causal: bool = True
    precision: str = "float32"
    seed: int = 1

    def check(self) -> None:
        if self.q_heads % self.kv_heads:
            raise ProblemError("kv_heads", f"must divide q_heads: {self.q_heads} query heads, {self.kv_heads} KV heads")
        if not 0.0 <= self.density <= 1.0:
            raise ProblemError("density", f"must be 0 to 1, not {self.density:g}")
        if self.length % self.block:
            raise ProblemError("block", f"must divide length: length={self.length}, block={self.block}")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return self._work(*(structure.figure(name) for name in ("kept_blocks", "kept_pairs", "kept_keys")))

    def expected_work(self) -> Work:
        blocks, size = self.length // self.block, float(self.block)
        # Blocks off the diagonal that the mask leaves, and pairs inside a kept diagonal block.
        others = blocks * (blocks - 1.0) / (2.0 if self.causal else 1.0)
        on_diagonal = float(attention_pairs(size, size, self.causal))
        heads = float(self.batch * self.q_heads)
        # The diagonal keeps every key: some query of its own block sees it.
        return self._work(
            heads * (blocks + self.density * others),
            heads * (blocks * on_diagonal + self.density * others * size * size),
            float(self.batch * self.kv_heads * self.length),
        )

    def _work(self, kept_blocks: float, kept_pairs: float, kept_keys: float) -> Work:
        heads, block_rows = self.batch * self.q_heads, self.length // self.block
        return sparse_attention_work(
            float(heads * self.length), kept_pairs, kept_keys, kept_blocks + heads * (block_rows + 1.0),
            self.head_dim, self.precision,
        )  # fmt: skip

    @property
    def label(self) -> str:
        heads = f"H{self.q_heads}" + (f"/{self.kv_heads}" if self.kv_heads != self.q_heads else "")
        shape = f"B{self.batch} {heads} S{self.length} d{self.head_dim}"
        return f"{shape} {self.density:.0%} of {self.block}x{self.block} {self.precision}"
