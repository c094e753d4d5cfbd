"""``paged_attention``: a decode step over sequences of different lengths whose keys and values lie in pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.operators.attention import PAGE_TABLE_PRECISION
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bits, bytes_of
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
) -> Work:
    """One query a head and sequence: ``keys`` cached tokens and ``pages`` pages of all ``batch`` sequences together.

    4 d operations and one exponential for each query head and key. The lengths of the sequences and the numbers of
    their pages are read (int32). What fills up the last pages is not compulsory.
    """
    queries, keys = 1.0 * batch * q_heads, 1.0 * keys
    return Work(
        operations={fma_key(precision): 4.0 * q_heads * keys * head_dim, SPECIAL: q_heads * keys},
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
    """O[batch, q_heads, head_dim] of one query a sequence; lengths drawn evenly from 1 to ``kv_length`` with ``seed``.

    Figures of the structure: ``keys`` and ``pages``, over all sequences.
    """

    batch: int
    q_heads: int
    kv_heads: int
    kv_length: int
    head_dim: int
    page: int
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

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return self._work(structure.figure("keys"), structure.figure("pages"))

    def expected_work(self) -> Work:
        # Of the lengths 1 to S = q p + r, p need 1 page, p need 2, ... and r need q + 1.
        full, rest = divmod(self.kv_length, self.page)
        pages = (self.page * full * (full + 1) / 2.0 + rest * (full + 1)) / self.kv_length
        return self._work(self.batch * (self.kv_length + 1) / 2.0, self.batch * pages)

    def footprint_bytes(self) -> float:
        """As if all sequences were of the greatest length."""
        pages = -(-self.kv_length // self.page)
        return float(self._work(float(self.batch * pages * self.page), float(self.batch * pages)).bytes)

    def _work(self, keys: float, pages: float) -> Work:
        return paged_attention_work(
            self.batch, self.q_heads, self.kv_heads, keys, pages, self.head_dim, self.precision,
            kv_precision=self.kv_precision or None,
        )  # fmt: skip

    @property
    def label(self) -> str:
        heads = f"H{self.q_heads}" + (f"/{self.kv_heads}" if self.kv_heads != self.q_heads else "")
        stored = f" kv {self.kv_precision}" if self.kv_precision else ""
        return f"B{self.batch} {heads} S1-{self.kv_length} p{self.page} d{self.head_dim} {self.precision}{stored}"
