"""Attention with other shapes of mask or state: a tree of drafted tokens, splits of the keys, one step of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of, digest
from ridgeline.analytical.work import SPECIAL, Work, fma_key


def tree_attention_work(
    batch: Any,
    q_heads: Any,
    kv_heads: Any,
    context: Any,
    nodes: Any,
    ancestor_pairs: Any,
    head_dim: Any,
    precision: str,
    *,
    kv_precision: str | None = None,
) -> Work:
    """``nodes`` drafted tokens in a tree (Medusa, Cai et al. 2024), after ``context`` tokens.

    Every node sees the context, its ancestors and itself: ``ancestor_pairs`` counts the last two, over all nodes (sum of
    depths, the roots' being 1). A chain has n (n + 1) / 2: it is causal attention. The mask is a constant of
    n^2 bits and is read once.
    """
    pairs = 1.0 * batch * q_heads * (1.0 * nodes * context + ancestor_pairs)
    queries, keys = 1.0 * batch * q_heads * nodes, 1.0 * batch * kv_heads * (1.0 * context + nodes)
    return Work(
        operations={fma_key(precision): 4.0 * pairs * head_dim, SPECIAL: pairs},
        read_bytes={
            "activations": bytes_of(queries * head_dim, precision),
            "kv": bytes_of(2.0 * keys * head_dim, kv_precision or precision),
            "index": 1.0 * nodes * nodes / 8.0,
        },
        written_bytes={"activations": bytes_of(queries * head_dim, precision)},
    )


def split_kv_combine_work(batch: Any, q_heads: Any, q_length: Any, value_dim: Any, splits: Any) -> Work:
    """What an implementation adds that splits the keys in ``splits`` parts (FlashDecoding, Dao et al. 2023).

    Each part writes its output and its log-sum-exp in float32, and a second launch reads them: the largest of s
    (s - 1 comparisons), s differences and exponentials, s - 1 additions, a reciprocal, s products for the weights, and
    s d_v products and (s - 1) d_v additions. The output of the whole is then written in its place; the one that
    :func:`~ridgeline.analytical.operators.attention.attention_work` counts is this one, so it is not counted here.
    """
    rows, s, d = 1.0 * batch * q_heads * q_length, 1.0 * splits, 1.0 * value_dim
    partial = bytes_of(rows * s * (d + 1.0), "float32")
    return Work(
        operations={
            fma_key("float32", "vector"): rows * (4.0 * s - 2.0 + (2.0 * s - 1.0) * d),
            SPECIAL: rows * (s + 1.0),
        },
        read_bytes={"scratch": partial},
        written_bytes={"scratch": partial},
    )


def continual_attention_work(streams: Any, heads: Any, window: Any, head_dim: Any, precision: str) -> Work:
    """One step of retroactive continual attention (Hedegaard et al. 2022) over ``window`` tokens.

    The n - 1 queries that stay drop the oldest key and gain the newest: each takes, for either, 2 d operations for the
    score, an exponential, 2 d for the value and an addition to its row sum. The new query attends to all n keys: 4 d
    operations, an exponential and an addition each (but one). All n outputs are divided by their sums (a reciprocal and
    d products). Read and written are the n - 1 rows of A V and their sums in float32; read, in ``precision``, the stored
    queries and keys and values, with those of the oldest token.
    """
    rows, n, d = 1.0 * streams * heads, 1.0 * window, 1.0 * head_dim
    kept = n - 1.0
    sums = bytes_of(rows * kept * (d + 1.0), "float32")
    return Work(
        operations={
            fma_key(precision): rows * (8.0 * d * kept + 4.0 * d * n),
            fma_key("float32", "vector"): rows * (2.0 * kept + kept + n * d),
            SPECIAL: rows * (2.0 * kept + n + n),
        },
        read_bytes={
            # Queries: all n. Keys and values: all n, and the oldest, which leaves.
            "activations": bytes_of(rows * n * d, precision),
            "kv": bytes_of(2.0 * rows * (n + 1.0) * d, precision) + sums,
        },
        written_bytes={
            "activations": bytes_of(rows * n * d, precision),
            "kv": bytes_of(rows * (d + 1.0) * n, "float32"),
        },
    )


@problem("tree_attention")
@dataclass(frozen=True, kw_only=True)
class TreeAttention(Problem):
    """Verification of a tree of ``nodes`` drafted tokens after ``context`` tokens, the same tree for every sequence.

    O[batch, q_heads, nodes, head_dim] of Q, a query a node, and of K, V[batch, kv_heads, context + nodes, head_dim]: the
    context's keys, then those of the nodes. The tree is drawn with ``seed``: each node but the first hangs on one of those before it, all alike (a random
    recursive tree). The structure's figure is ``ancestor_pairs``: nodes seen by nodes, themselves included.
    """

    batch: int
    q_heads: int
    kv_heads: int
    context: int
    nodes: int
    head_dim: int
    precision: str = "float32"
    seed: int = 1

    def check(self) -> None:
        if self.q_heads % self.kv_heads:
            raise ProblemError("kv_heads", f"must divide q_heads: {self.q_heads} query heads, {self.kv_heads} KV heads")

    def ancestors(self) -> NDArray[np.bool_]:
        """[nodes, nodes]: whether the node of the row sees that of the column, an ancestor or itself."""
        random = np.random.default_rng(self.seed)
        sees = np.eye(self.nodes, dtype=np.bool_)
        for node in range(1, self.nodes):
            sees[node] |= sees[random.integers(node)]
        return sees

    def structure_of(self, ancestors: NDArray[np.bool_]) -> Structure:
        """Figures of a tree with these :meth:`ancestors`, and its digest."""
        figures = {"ancestor_pairs": float(ancestors.sum())}
        return Structure(figures, digest([np.flatnonzero(row).tolist() for row in ancestors]))

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return self._work(structure.figure("ancestor_pairs"))

    def expected_work(self) -> Work:
        # Node i has 1 / (i - 1) of each earlier one's expected depth: the harmonic number H_{i-1}, and itself.
        return self._work(sum(1.0 + sum(1.0 / j for j in range(1, i)) for i in range(1, self.nodes + 1)))

    def _work(self, ancestor_pairs: float) -> Work:
        return tree_attention_work(
            self.batch, self.q_heads, self.kv_heads, self.context, self.nodes, ancestor_pairs,
            self.head_dim, self.precision,
        )  # fmt: skip

    @property
    def label(self) -> str:
        heads = f"H{self.q_heads}" + (f"/{self.kv_heads}" if self.kv_heads != self.q_heads else "")
        return f"B{self.batch} {heads} {self.nodes} after S{self.context} d{self.head_dim} {self.precision}"
