"""Sparse attention, the executor: attention over the blocks or the tokens that a selector kept.

What selects is counted apart (:mod:`~ridgeline.analytical.operators.attention_selector`). The executor's work depends
on what was kept: pairs decide the operations, different keys the bytes. Both are figures of the structure.
"""

from __future__ import annotations

from typing import Any

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
