"""Embedding look-ups: rows gathered from a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.operators.moe import distinct_experts
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import Work, fma_key

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


def embedding_bag_work(
    bags: Any, per_bag: Any, vocabulary: Any, width: Any, precision: str, *, reduce: bool = True, distinct: Any = None
) -> Work:
    """``per_bag`` rows for each of ``bags`` bags, added up (``reduce``) or laid side by side.

    The sum takes per_bag - 1 additions for each value. Rows are read as in :func:`embedding_work`.
    """
    taken = 1.0 * bags * per_bag
    looked_up = embedding_work(taken, vocabulary, width, precision, distinct=distinct)
    if not reduce:
        return looked_up
    return Work(
        operations={fma_key(precision, "vector"): (taken - bags) * width},
        read_bytes=looked_up.read_bytes,
        written_bytes={"activations": bytes_of(1.0 * bags * width, precision)},
    )


@problem("embedding_bag")
@dataclass(frozen=True, kw_only=True)
class EmbeddingBag(Problem):
    """Y[bags, width]: sums of ``per_bag`` rows of a [vocabulary, width] table, drawn evenly with ``seed``.

    The structure's figure is ``distinct_rows``.
    """

    bags: int
    per_bag: int
    vocabulary: int
    width: int
    precision: str = "float32"
    seed: int = 1

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return self._work(structure.figure("distinct_rows"))

    def expected_work(self) -> Work:
        return self._work(None)

    def footprint_bytes(self) -> float:
        """The whole table lies in memory."""
        return float(self._work(float(self.vocabulary)).bytes)

    def _work(self, distinct: float | None) -> Work:
        return embedding_bag_work(
            self.bags, self.per_bag, self.vocabulary, self.width, self.precision, distinct=distinct
        )

    @property
    def label(self) -> str:
        return f"{self.bags}x{self.per_bag} of {self.vocabulary}x{self.width} {self.precision}"
