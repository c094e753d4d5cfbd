"""Sparse attention, the selectors: what it costs to find out which keys matter, before the executor runs.

Each ends in a choice: the k largest (:func:`~ridgeline.analytical.operators.top_k.top_k_work`) or a comparison with a
threshold. A static pattern (S2-Attention) has no selector.
"""

from __future__ import annotations

from typing import Any

from ridgeline.analytical.operators.top_k import top_k_work
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, Work, fma_key


def label_channel_selector_work(
    batch: Any, q_heads: Any, kv_heads: Any, kv_length: Any, channels: Any, kept: Any, precision: str, label: str
) -> Work:
    """Double Sparsity (Yang et al. 2024): approximate scores from ``channels`` of the key's channels.

    2 r operations for each query head and token, on a cache of ``label`` precision that is read once for each KV head;
    then the ``kept`` largest of kv_length. Scores stay on the chip.
    """
    queries = 1.0 * batch * q_heads
    scores = queries * kv_length
    chosen = top_k_work(queries, kv_length, kept, "float32", values=False)
    return Work(
        operations={fma_key(precision): 2.0 * scores * channels, **chosen.operations},
        read_bytes={
            "activations": bytes_of(queries * channels, precision),
            "kv": bytes_of(1.0 * batch * kv_heads * kv_length * channels, label),
        },
        written_bytes=chosen.written_bytes,
    )


def centroid_selector_work(
    batch: Any, q_heads: Any, kv_heads: Any, kv_length: Any, centroids: Any, head_dim: Any, precision: str
) -> Work:
    """Squeezed Attention (Hooper et al. 2024): scores of clusters of keys against a threshold.

    For each query head and centroid: 2 d operations, an exponential, a product with the cluster's size, an addition to
    the denominator (but one), a product with its reciprocal and a comparison; then each key looks up its cluster's
    answer (int32) once for each KV head. One byte a key and query head says whether it is kept.
    """
    queries, c = 1.0 * batch * q_heads, 1.0 * centroids
    scores = queries * c
    return Work(
        operations={
            fma_key(precision): 2.0 * scores * head_dim,
            fma_key("float32", "vector"): 4.0 * scores - queries,
            SPECIAL: scores + queries,
        },
        read_bytes={
            "activations": bytes_of(queries * head_dim, precision),
            "kv": bytes_of(1.0 * batch * kv_heads * c * head_dim, precision),
            "index": bytes_of(1.0 * batch * kv_heads * (kv_length + c), "int32"),
        },
        written_bytes={"index": bytes_of(queries * kv_length, "bool")},
    )


def codebook_selector_work(
    batch: Any, q_heads: Any, kv_heads: Any, kv_length: Any, codes: Any, head_dim: Any, kept: Any, precision: str
) -> Work:
    """A2ATS (He et al. 2025): scores of ``codes`` codewords, gathered by each token's 16-bit code, then the largest.

    2 d operations for each query head and codeword; the codebook of a KV head serves all sequences.
    """
    queries = 1.0 * batch * q_heads
    chosen = top_k_work(queries, kv_length, kept, "float32", values=False)
    return Work(
        operations={fma_key(precision): 2.0 * queries * codes * head_dim, **chosen.operations},
        read_bytes={
            "activations": bytes_of(queries * head_dim, precision),
            "kv": bytes_of(1.0 * kv_heads * codes * head_dim, precision),
            "index": bytes_of(1.0 * batch * kv_heads * kv_length, "int16"),
        },
        written_bytes=chosen.written_bytes,
    )


def accumulated_score_selector_work(batch: Any, heads: Any, kept: Any) -> Work:
    """H2O (Zhang et al. 2023, algorithm 1): scores of a step added to those so far, the smallest evicted.

    One addition for each of ``kept`` tokens and kept - 1 comparisons; float32 scores read and written in place, those
    of the step read from attention; one int32 written for each head.
    """
    rows, scores = 1.0 * batch * heads, 1.0 * batch * heads * kept
    return Work(
        operations={fma_key("float32", "vector"): 2.0 * scores - rows},
        read_bytes={"kv": bytes_of(scores, "float32"), "activations": bytes_of(scores, "float32")},
        written_bytes={"kv": bytes_of(scores, "float32"), "index": bytes_of(rows, "int32")},
    )


def line_selector_work(
    batch: Any, q_heads: Any, kv_heads: Any, kv_length: Any, last_queries: Any, head_dim: Any, precision: str
) -> Work:
    """Vertical lines and slashes (MInference, Jiang et al. 2024, algorithm 2), from the last queries' attention.

    For each query head, ``last_queries`` queries score all keys: 2 d operations, and a softmax of 4 - 2 / S operations
    and 1 + 1 / S special functions a score. Each score is added to its column and to its diagonal (2). Then the largest
    of each: two selections over S columns and S diagonals. Sums stay on the chip; the choice is counted in
    comparisons, what is written depends on how many lines are kept and is left to the executor's index.
    """
    rows = 1.0 * batch * q_heads * last_queries
    scores, heads = rows * kv_length, 1.0 * batch * q_heads
    return Work(
        operations={
            fma_key(precision): 2.0 * scores * head_dim,
            fma_key("float32", "vector"): 6.0 * scores - 2.0 * rows + 2.0 * heads * (1.0 * kv_length - 1.0),
            SPECIAL: scores + rows,
        },
        read_bytes={
            "activations": bytes_of(rows * head_dim, precision),
            "kv": bytes_of(1.0 * batch * kv_heads * kv_length * head_dim, precision),
        },
    )
