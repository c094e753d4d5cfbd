"""Embedding look-ups: rows gathered from a table."""

from __future__ import annotations

from typing import Any

from ridgeline.analytical.operators.moe import distinct_experts
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import Work

INDEX_PRECISION = "int64"
"""Precision of a token's number, as torch's."""


def embedding_work(
    tokens: Any, vocabulary: Any, width: Any, precision: str, *, output: str | None = None, distinct: Any = None
) -> Work:
    """One row of ``width`` for each of ``tokens`` tokens: no arithmetic.

    Each different row is read once. How many are different depends on the tokens: ``distinct`` states it; default is
    the expectation for tokens drawn evenly from ``vocabulary``, V (1 - (1 - 1/V)^T). Text repeats more than that.
    """
    rows = distinct_experts(vocabulary, 1, tokens) if distinct is None else distinct
    return Work(
        read_bytes={
            "weights": bytes_of(1.0 * rows * width, precision),
            "index": bytes_of(1.0 * tokens, INDEX_PRECISION),
        },
        written_bytes={"activations": bytes_of(1.0 * tokens * width, output or precision)},
    )
