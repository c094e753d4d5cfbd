"""``paged_attention``: a decode step, or a few queries, over sequences of different lengths whose KV cache is in pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridgeline.analytical.operators.attention import PAGE_TABLE_PRECISION, attention_pairs, pages
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bits, bytes_of, digest
from ridgeline.analytical.work import SPECIAL, Work, fma_key


def paged_attention_work(
    batch: Any,
    q_heads: Any,
    kv_heads: Any,
    keys: Any,
    pages: Any,
    head_dim: Any,
    precision: str,
    *,
    kv_precision: str | None = None,
    q_length: Any = 1,
    pairs: Any = None,
) -> Work:
    """``q_length`` queries a head and sequence; ``keys`` cached tokens and ``pages`` pages of all sequences together.

    4 d operations and one exponential for each query head and unmasked (query, key) pair. ``pairs`` counts those of one
    head over all sequences; with one query a sequence, the default, they are the ``keys``. The lengths of the sequences
    and the numbers of their pages are read (int32). What fills up the last pages is not compulsory.
    """
    queries, keys = 1.0 * batch * q_heads * q_length, 1.0 * keys
    pairs = q_heads * (keys if pairs is None else 1.0 * pairs)
    return Work(
        operations={fma_key(precision): 4.0 * pairs * head_dim, SPECIAL: pairs},
        read_bytes={
            "activations": bytes_of(queries * head_dim, precision),
            "kv": bytes_of(2.0 * kv_heads * keys * head_dim, kv_precision or precision),
            "index": bytes_of(1.0 * pages + batch, PAGE_TABLE_PRECISION),
        },
        written_bytes={"activations": bytes_of(queries * head_dim, precision)},
    )


@problem("paged_attention")
@dataclass(frozen=True, kw_only=True)
class PagedAttention(Problem):
    """O[batch, q_heads, q_length, head_dim] over sequences whose lengths are drawn evenly from 1 to ``kv_length``.

    Of a sequence with L cached tokens, query t of T sees key s where s <= t + L - T (bottom-right causal: the last query
    sees all keys); a query that sees no key gives zeros. ``seed`` is that of the lengths.
    Figures of the structure: ``keys``, ``pages`` and ``pairs``, over all sequences; ``pairs`` of one head.
    """

    batch: int
    q_heads: int
    kv_heads: int
    kv_length: int
    head_dim: int
    page: int
    q_length: int = 1
    precision: str = "float32"
    kv_precision: str = ""
    """What keys and values are stored in; default ``precision``."""
    seed: int = 1

    def check(self) -> None:
        if self.q_heads % self.kv_heads:
            raise ProblemError("kv_heads", f"must divide q_heads: {self.q_heads} query heads, {self.kv_heads} KV heads")
        if self.kv_precision:
            try:
                bits(self.kv_precision)
            except ValueError as error:
                raise ProblemError("kv_precision", str(error)) from None

    def lengths(self) -> NDArray[np.int64]:
        """[batch]: cached tokens of each sequence."""
        return np.random.default_rng(self.seed).integers(1, self.kv_length, self.batch, endpoint=True, dtype=np.int64)

    def structure_of(self, lengths: NDArray[np.int64]) -> Structure:
        """Figures of sequences of these lengths, and their digest."""
        figures = {
            "keys": float(lengths.sum()),
            "pages": float(pages(lengths, self.page).sum()),
            "pairs": float(attention_pairs(self.q_length, lengths, True).sum()),
        }
        return Structure(figures, digest(lengths.tolist()))

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return self._work(structure.figure("keys"), structure.figure("pages"), structure.figure("pairs"))

    def expected_work(self) -> Work:
        # Of the lengths 1 to S = q p + r, p need 1 page, p need 2, ... and r need q + 1.
        full, rest = divmod(self.kv_length, self.page)
        held = (self.page * full * (full + 1) / 2.0 + rest * (full + 1)) / self.kv_length
        # A length L has L (L + 1) / 2 pairs up to T; beyond, T (T + 1) / 2 and T for each further key.
        t, short = float(self.q_length), float(min(self.q_length, self.kv_length))
        more = self.kv_length - short
        pairs = short * (short + 1.0) * (short + 2.0) / 6.0 + more * t * (t + 1.0) / 2.0 + t * more * (more + 1.0) / 2.0
        keys = (self.kv_length + 1) / 2.0
        return self._work(self.batch * keys, self.batch * held, self.batch * pairs / self.kv_length)

    def footprint_bytes(self) -> float:
        """As if all sequences were of the greatest length."""
        held = -(-self.kv_length // self.page)
        return float(self._work(float(self.batch * held * self.page), float(self.batch * held), 0.0).bytes)

    def _work(self, keys: float, held: float, pairs: float) -> Work:
        return paged_attention_work(
            self.batch, self.q_heads, self.kv_heads, keys, held, self.head_dim, self.precision,
            kv_precision=self.kv_precision or None, q_length=self.q_length, pairs=pairs,
        )  # fmt: skip

    @property
    def label(self) -> str:
        heads = f"H{self.q_heads}" + (f"/{self.kv_heads}" if self.kv_heads != self.q_heads else "")
        queries = f" T{self.q_length}" if self.q_length > 1 else ""
        stored = f" kv {self.kv_precision}" if self.kv_precision else ""
        return f"B{self.batch} {heads}{queries} S1-{self.kv_length} p{self.page} d{self.head_dim} {self.precision}{stored}"
