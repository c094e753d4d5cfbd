"""Block-sparse prefill: attention over listed blocks of keys, and over listed single keys, of each 64-row block.

Three patterns say what is listed: blocks drawn at random, the local and strided blocks of S2-Attention, or the columns
and diagonals ("lines") of MInference. The lists are an index that the executor reads; what makes it is counted and timed
apart (:mod:`~ridgeline.analytical.operators.attention_selector`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.operators.attention import attention_pairs
from ridgeline.analytical.operators.sparse_attention import sparse_attention_work
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import Work

PATTERNS = ("random", "strided", "lines")

SINK_COLUMNS = 30
"""First columns that a line selector always keeps (microsoft/MInference, ``vertical_and_slash_kernel``)."""
LOCAL_DIAGONALS = 100
"""Last diagonals that it always keeps, the main one among them (the same)."""

_NEEDS = {"random": ("density",), "strided": ("local", "stride"), "lines": ("columns", "diagonals")}
_TAKES = {**_NEEDS, "strided": ("local", "stride", "dense_heads")}


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


def strided_columns(columns: Any, stride: Any, shift: Any = 0) -> Any:
    """How many of the first ``columns`` block columns c have (c + ``shift``) a multiple of ``stride``."""
    n, s = np.asarray(columns, dtype=np.float64), np.asarray(stride, dtype=np.float64)
    return np.maximum(np.ceil((n - (-np.asarray(shift)) % s) / s), 0.0)[()]


def strided_shifts(q_heads: int, kv_heads: int, stride: int, dense_heads: int = 0) -> tuple[int | None, ...]:
    """Shift of each KV head of S2-Attention; ``None`` for a dense one. Query heads of a group share theirs.

    KV head h is shifted by h max(1, stride // q_heads), and the last ``dense_heads`` KV heads are dense (linxihui/dkernel
    at 44c51bd, ``get_sparse_attn_mask``).
    """
    step = max(1, stride // q_heads)
    return tuple(h * step if h < kv_heads - dense_heads else None for h in range(kv_heads))


def strided_kv_tokens(length: Any, block: Any, local: Any, stride: Any, shift: Any = 0) -> Any:
    """Tokens that the cache of one KV head still needs after ``length`` tokens: its local blocks and its strided ones.

    S2-Attention (Lin et al. 2024) drops the rest: a block that has left the local ones comes back only if it is strided.
    """
    n, b = np.asarray(length, dtype=np.float64), np.asarray(block, dtype=np.float64)
    behind = np.maximum(np.ceil(n / b) - local, 0.0)  # blocks that are local no longer
    return (n - behind * b + strided_columns(behind, stride, shift) * b)[()]


@problem("block_sparse_attention")
@dataclass(frozen=True, kw_only=True)
class BlockSparseAttention(Problem):
    """O[batch, q_heads, q_length, d] over ``block`` keys at a time, listed for each query head and ``block`` queries.

    The queries are the last ``q_length`` of ``length`` tokens: all by default, fewer for a chunk of a prefill, which
    must begin at a block. Query t sees what is listed, up to its own key if ``causal``. By ``pattern``:

    - ``random``: blocks of the score matrix that the mask leaves at all are kept with ``density`` each; those that hold the
      diagonal are always kept.
    - ``strided``: S2-Attention (Lin et al. 2024): the ``local`` last blocks, and of the earlier ones every ``stride``-th,
      shifted from KV head to KV head (:func:`strided_shifts`); the last ``dense_heads`` KV heads keep all.
    - ``lines``: MInference (Jiang et al. 2024), which Qwen2.5-1M prefills with: ``columns`` keys that all queries see and
      ``diagonals`` distances that every query looks back. The first 30 columns and distances 0 to 99 are among them,
      the rest is drawn. Each distance asks for ``block`` keys of a block of queries; blocks may begin at any key.

    What is drawn is drawn with ``seed``, for each sequence and query head. Figures of the structure: ``kept_blocks``,
    ``kept_pairs`` and ``kept_keys``; of ``lines`` also ``kept_columns``, the single keys listed over all blocks of rows.
    """

    batch: int
    q_heads: int
    kv_heads: int
    length: int
    head_dim: int
    block: int
    density: float | None = None
    causal: bool = True
    precision: str = "float32"
    seed: int = 1
    pattern: str = "random"
    local: int | None = None
    stride: int | None = None
    dense_heads: int | None = None
    columns: int | None = None
    diagonals: int | None = None
    q_length: int | None = None

    def check(self) -> None:
        if self.q_heads % self.kv_heads:
            raise ProblemError("kv_heads", f"must divide q_heads: {self.q_heads} query heads, {self.kv_heads} KV heads")
        if self.pattern not in PATTERNS:
            raise ProblemError("pattern", f"unknown pattern {self.pattern!r}: one of {', '.join(PATTERNS)}")
        for name in _NEEDS[self.pattern]:
            if getattr(self, name) is None:
                raise ProblemError(name, f"pattern {self.pattern} needs it")
        for name in {name for names in _TAKES.values() for name in names} - set(_TAKES[self.pattern]):
            if getattr(self, name) is not None:
                raise ProblemError(name, f"pattern {self.pattern} does not take it")
        if self.density is not None and not 0.0 <= self.density <= 1.0:
            raise ProblemError("density", f"must be 0 to 1, not {self.density:g}")
        if self.pattern != "random" and not self.causal:
            raise ProblemError("causal", f"pattern {self.pattern} is causal")
        if self.dense_heads is not None and self.dense_heads > self.kv_heads:
            raise ProblemError("dense_heads", f"{self.dense_heads} of {self.kv_heads} KV heads cannot be dense")
        for name in ("columns", "diagonals", "q_length"):
            if (getattr(self, name) or 0) > self.length:
                raise ProblemError(name, f"{getattr(self, name)} of {self.length} tokens cannot be")
        if self.past % self.block:
            raise ProblemError("q_length", f"must begin at a block: {self.past} tokens before it, block={self.block}")

    @property
    def queries(self) -> int:
        """Queries of one head and sequence."""
        return self.length if self.q_length is None else self.q_length

    @property
    def past(self) -> int:
        """Tokens before the first query."""
        return self.length - self.queries

    @property
    def block_rows(self) -> int:
        """Blocks of queries; the last may be partial."""
        return -(-self.queries // self.block)

    @property
    def block_columns(self) -> int:
        """Blocks of keys; the last may be partial."""
        return -(-self.length // self.block)

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        names = ("kept_blocks", "kept_pairs", "kept_keys", *(("kept_columns",) if self.pattern == "lines" else ()))
        return self._work(*(structure.figure(name) for name in names))

    def expected_work(self) -> Work:
        """Exact on average of ``random``, exact of ``strided``, and of ``lines`` as if no drawn line met another."""
        return self._work(*{"random": self._random, "strided": self._strided, "lines": self._lines}[self.pattern]())

    def _random(self) -> tuple[float, float, float]:
        b, n = float(self.block), float(self.block_rows)
        first, last = self.block_columns - n, self.queries - (n - 1.0) * b  # blocks before; queries of the last block
        blocks = n * first + n * (n + 1.0) / 2.0 if self.causal else n * self.block_columns
        pairs = float(attention_pairs(self.queries, self.length, self.causal))
        ends = attention_pairs(np.array([b, last]), np.array([b, last]), self.causal)
        diagonal = (n - 1.0) * float(ends[0]) + float(ends[1])
        density = self.density or 0.0
        # Some query of its own block sees a key, so the diagonal keeps all keys that are not past.
        past = self.past * (1.0 - (1.0 - density) ** (n * (self.q_heads // self.kv_heads)))
        heads = float(self.batch * self.q_heads)
        return (
            heads * (n + density * (blocks - n)),
            heads * (diagonal + density * (pairs - diagonal)),
            self.batch * self.kv_heads * (self.queries + past),
        )

    def _strided(self) -> tuple[float, float, float]:
        assert self.local is not None
        assert self.stride is not None
        local, b, n = min(self.local, self.block_columns), float(self.block), float(self.block_rows)
        first, rows = self.block_columns - self.block_rows, self.block_columns
        last = self.queries - (n - 1.0) * b
        found = np.zeros(3)
        for shift in strided_shifts(self.q_heads, self.kv_heads, self.stride, self.dense_heads or 0):
            # A dense head is one whose local blocks reach back to the beginning.
            reach, moved = (local, shift) if shift is not None else (rows, 0)
            ends = np.array([first, rows - 1, rows])
            before, but_last, upto = strided_blocks(ends, np.minimum(reach, np.maximum(ends, 1)), self.stride, moved)
            blocks = upto - before
            # Every block but the diagonal's is seen whole; those of the last row only by the queries that are there.
            pairs = (blocks - n) * b * b - (upto - but_last - 1.0) * (b - last) * b
            pairs += (n - 1.0) * b * (b + 1.0) / 2.0 + last * (last + 1.0) / 2.0
            far = max(first - reach + 1, 0)
            keys = self.queries + b * (first - far + strided_columns(far, self.stride, moved))
            found += [blocks, pairs, keys]
        group = self.q_heads // self.kv_heads
        blocks, pairs, keys = (float(x) for x in self.batch * found)
        return group * blocks, group * pairs, keys

    def _lines(self) -> tuple[float, float, float, float]:
        assert self.columns is not None
        assert self.diagonals is not None
        b, s = float(self.block), float(self.length)
        start = self.past + b * np.arange(self.block_rows)  # position of each row block's first query
        queries = np.minimum(b, s - start)
        near, sinks = min(self.diagonals, LOCAL_DIAGONALS), min(self.columns, SINK_COLUMNS)
        # The local diagonals are a band from here on, up to the diagonal.
        band = np.maximum(start - (near - 1.0), 0.0)
        band_blocks = np.ceil((start + b - band) / b)
        band_pairs = queries * (start - band) + queries * (queries + 1.0) / 2.0
        reached = np.clip((start + b - near) / max(s - near, 1.0), 0.0, 1.0)  # share of distances that meet a key
        far = (self.diagonals - near) * reached
        drawn = (self.columns - sinks) * np.maximum(band - sinks, 0.0) / max(s - sinks, 1.0)
        columns = np.minimum(sinks, band) + drawn
        keys = s - band[0]
        group, n = self.q_heads // self.kv_heads, float(self.block_rows)
        keys += band[0] * (1.0 - (1.0 - min(b / s, 1.0)) ** ((self.diagonals - near) * group * n))
        heads = float(self.batch * self.q_heads)
        return (
            heads * float((band_blocks + far).sum()),
            heads * float((band_pairs + (far * b + columns) * queries).sum()),
            self.batch * self.kv_heads * float(keys),
            heads * float(columns.sum()),
        )

    def _work(self, kept_blocks: float, kept_pairs: float, kept_keys: float, kept_columns: float = 0.0) -> Work:
        heads = float(self.batch * self.q_heads)
        lists = 2 if self.pattern == "lines" else 1
        return sparse_attention_work(
            heads * self.queries, kept_pairs, kept_keys,
            kept_blocks + kept_columns + lists * heads * (self.block_rows + 1.0), self.head_dim, self.precision,
        )  # fmt: skip

    def footprint_bytes(self) -> float:
        """All keys and values lie in memory, read or not."""
        work = self.expected_work()
        unread = self._cache_bytes() - float(work.read_bytes["kv"])
        return float(work.bytes) + max(unread, 0.0)

    def _cache_bytes(self) -> float:
        return float(bytes_of(2.0 * self.batch * self.kv_heads * self.length * self.head_dim, self.precision))

    @property
    def dense_pairs(self) -> float:
        """Pairs of dense attention of the same shape, over all sequences and query heads: what a density is a share of."""
        return self.batch * self.q_heads * float(attention_pairs(self.queries, self.length, self.causal))

    @property
    def label(self) -> str:
        heads = f"H{self.q_heads}" + (f"/{self.kv_heads}" if self.kv_heads != self.q_heads else "")
        queries = f" T{self.queries}" if self.past else ""
        kept = {
            "random": f"{self.density or 0.0:.0%}",
            "strided": f"local {self.local} stride {self.stride}"
            + (f" dense {self.dense_heads}" if self.dense_heads else ""),
            "lines": f"{self.columns} columns {self.diagonals} diagonals",
        }[self.pattern]
        shape = f"B{self.batch} {heads}{queries} S{self.length} d{self.head_dim}"
        return f"{shape} {kept} of {self.block}x{self.block} {self.precision}"


def strided_kv_bytes(problem: BlockSparseAttention) -> float:
    """Bytes of keys and values that are kept after ``length`` tokens where each KV head drops what it needs no more.

    Raises:
        ProblemError: for a pattern other than ``strided``.
    """
    if problem.pattern != "strided" or problem.local is None or problem.stride is None:
        raise ProblemError("pattern", f"only a strided pattern is known to need a block no more, not {problem.pattern}")
    tokens = 0.0
    for shift in strided_shifts(problem.q_heads, problem.kv_heads, problem.stride, problem.dense_heads or 0):
        if shift is None:
            tokens += problem.length
        else:
            tokens += float(strided_kv_tokens(problem.length, problem.block, problem.local, problem.stride, shift))
    return float(bytes_of(2.0 * problem.batch * tokens * problem.head_dim, problem.precision))
