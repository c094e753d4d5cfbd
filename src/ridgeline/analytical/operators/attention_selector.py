"""Sparse attention, the selectors: what it costs to find out which keys matter, before the executor runs.

Each ends in a choice: the k largest (:func:`~ridgeline.analytical.operators.top_k.top_k_work`) or a comparison with a
threshold. A static pattern (S2-Attention) has no selector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.operators.top_k import top_k_work
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, Work, fma_key

LIST_PRECISION = "int32"
"""Precision of a token's number in a list, as the executor reads it."""
LABEL_PRECISIONS = ("float32", "float16", "bfloat16", "int8")


def _lists(queries: Any, length: Any) -> dict[str, Any]:
    return {"index": bytes_of(1.0 * queries * length, LIST_PRECISION)}


def label_channel_selector_work(
    batch: Any, q_heads: Any, kv_heads: Any, kv_length: Any, channels: Any, kept: Any, precision: str, label: str,
    *, scaled: bool = False,
) -> Work:  # fmt: skip
    """Double Sparsity (Yang et al. 2024): approximate scores from ``channels`` of the key's channels.

    2 r operations for each query head and token, on a cache of ``label`` precision that is read once for each KV head;
    then the ``kept`` largest of kv_length. Scores stay on the chip.

    Args:
        scaled: the cache's channels have a float32 scale each, which goes into the query: r products a query head. Their
            zero points add the same to every score of a query, and so have no part in a choice.
    """
    queries = 1.0 * batch * q_heads
    scores = queries * kv_length
    operations = {
        fma_key(precision): 2.0 * scores * channels,
        **top_k_work(queries, kv_length, kept, "float32", values=False).operations,
    }
    read = {
        "activations": bytes_of(queries * channels, precision),
        "kv": bytes_of(1.0 * batch * kv_heads * kv_length * channels, label),
    }
    if scaled:
        vector = fma_key("float32", "vector")
        operations[vector] = operations[vector] + queries * channels
        read["scales"] = bytes_of(1.0 * kv_heads * channels, "float32")
    return Work(operations=operations, read_bytes=read, written_bytes=_lists(queries, kept))


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


def hierarchical_centroid_selector_work(
    batch: Any, q_heads: Any, kv_heads: Any, kv_length: Any, coarse: Any, centroids: Any, passed: Any, scored: Any,
    read: Any, head_dim: Any, precision: str,
) -> Work:  # fmt: skip
    """Squeezed Attention's hierarchical lookup: ``coarse`` clusters of the ``centroids`` first, then what they leave.

    Scores as in :func:`centroid_selector_work`, of the coarse clusters and of the ``scored`` centroids whose coarse
    cluster passed its threshold. The denominator has the scored centroids in place of the coarse clusters that passed:
    one subtraction each. Each centroid names its coarse cluster (int32).

    Args:
        passed: coarse clusters above the threshold, over all sequences and query heads.
        scored: centroids of those, over all sequences and query heads.
        read: different centroids read, over all sequences and KV heads.
    """
    queries, groups = 1.0 * batch * q_heads, 1.0 * batch * kv_heads
    scores = queries * coarse + scored
    return Work(
        operations={
            fma_key(precision): 2.0 * scores * head_dim,
            # Two comparisons with thresholds, two denominators of which the second starts from the first.
            fma_key("float32", "vector"): 4.0 * scores - queries + passed,
            SPECIAL: scores + 2.0 * queries,
        },
        read_bytes={
            "activations": bytes_of(queries * head_dim, precision),
            "kv": bytes_of((groups * coarse + read) * head_dim, precision),
            "index": bytes_of(groups * (1.0 * kv_length + 2.0 * centroids + coarse), "int32"),
        },
        written_bytes={"index": bytes_of(queries * kv_length, "bool")},
    )


def codebook_selector_work(
    batch: Any, q_heads: Any, kv_heads: Any, kv_length: Any, codes: Any, head_dim: Any, kept: Any, precision: str,
    *, always: Any = 0,
) -> Work:  # fmt: skip
    """A2ATS (He et al. 2025): scores of ``codes`` codewords, gathered by each token's 16-bit code, then the largest.

    2 d operations for each query head and codeword; the codebook of a KV head serves all sequences.

    Args:
        always: tokens that are kept whatever their score (attention sinks and the local window); their codes are not
            read. They are listed with the ``kept`` others.
    """
    queries = 1.0 * batch * q_heads
    return Work(
        operations={
            fma_key(precision): 2.0 * queries * codes * head_dim,
            **top_k_work(queries, kv_length - always, kept, "float32", values=False).operations,
        },
        read_bytes={
            "activations": bytes_of(queries * head_dim, precision),
            "kv": bytes_of(1.0 * kv_heads * codes * head_dim, precision),
            "index": bytes_of(1.0 * batch * kv_heads * (kv_length - always), "int16"),
        },
        written_bytes=_lists(queries, 1.0 * kept + always),
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


def _check_heads(q_heads: int, kv_heads: int) -> None:
    if q_heads % kv_heads:
        raise ProblemError("kv_heads", f"must divide q_heads: {q_heads} query heads, {kv_heads} KV heads")


def _heads(q_heads: int, kv_heads: int) -> str:
    return f"H{q_heads}" + (f"/{kv_heads}" if kv_heads != q_heads else "")


@problem("label_channel_selector")
@dataclass(frozen=True, kw_only=True)
class LabelChannelSelector(Problem):
    """The ``kept`` tokens with the largest scores on ``channels`` label channels, for each query head (Double Sparsity).

    Scores are q[channels] . labels[token], with the channels of the KV head; of equal scores the earlier token wins.
    ``label`` is the precision of the label cache [batch, kv_heads, kv_length, channels]; int8 has a scale a channel.
    """

    batch: int
    q_heads: int
    kv_heads: int
    kv_length: int
    head_dim: int
    channels: int
    kept: int
    label_precision: str = "float32"
    precision: str = "float32"

    def check(self) -> None:
        _check_heads(self.q_heads, self.kv_heads)
        if self.channels > self.head_dim:
            raise ProblemError("channels", f"{self.channels} of {self.head_dim} channels cannot be")
        if self.kept > self.kv_length:
            raise ProblemError("kept", f"{self.kept} of {self.kv_length} tokens cannot be")
        if self.label_precision not in LABEL_PRECISIONS:
            raise ProblemError(
                "label_precision", f"must be one of {', '.join(LABEL_PRECISIONS)}, not {self.label_precision!r}"
            )

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return label_channel_selector_work(
            self.batch, self.q_heads, self.kv_heads, self.kv_length, self.channels, self.kept, self.precision,
            self.label_precision, scaled=self.label_precision == "int8",
        )  # fmt: skip

    @property
    def label(self) -> str:
        heads = _heads(self.q_heads, self.kv_heads)
        shape = f"B{self.batch} {heads} {self.kept} of S{self.kv_length} by {self.channels} of d{self.head_dim}"
        return f"{shape} {self.label_precision}"


@problem("centroid_selector")
@dataclass(frozen=True, kw_only=True)
class CentroidSelector(Problem):
    """A mask of tokens whose cluster's score is above a threshold, for each query head (Squeezed Attention).

    The score of cluster c is exp(q.c / sqrt(d)) / sum over c' of N_c' exp(q.c' / sqrt(d)), with N its size. The threshold
    is one number for all heads, the quantile of calibration scores that keeps ``kept`` of the tokens. Keys and their
    clusters are random here, drawn with ``seed``.
    """

    batch: int
    q_heads: int
    kv_heads: int
    kv_length: int
    head_dim: int
    centroids: int
    kept: float
    precision: str = "float32"
    seed: int = 1

    def check(self) -> None:
        _check_heads(self.q_heads, self.kv_heads)
        if self.centroids > self.kv_length:
            raise ProblemError("centroids", f"{self.centroids} clusters of {self.kv_length} tokens cannot be")
        if not 0.0 < self.kept < 1.0:
            raise ProblemError("kept", f"must be between 0 and 1, not {self.kept:g}")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return centroid_selector_work(
            self.batch, self.q_heads, self.kv_heads, self.kv_length, self.centroids, self.head_dim, self.precision
        )

    @property
    def label(self) -> str:
        heads = _heads(self.q_heads, self.kv_heads)
        shape = f"B{self.batch} {heads} S{self.kv_length} d{self.head_dim} {self.centroids} centroids"
        return f"{shape} {self.kept:.0%} kept"


@problem("codebook_selector")
@dataclass(frozen=True, kw_only=True)
class CodebookSelector(Problem):
    """``sinks`` first, ``window`` last and the ``kept`` best other tokens, for each query head (A2ATS).

    A token's score is that of its codeword, q . codebook[code]; of equal scores the earlier token wins, and tokens of one
    codeword are equal.
    """

    batch: int
    q_heads: int
    kv_heads: int
    kv_length: int
    head_dim: int
    codes: int
    kept: int
    sinks: int = 8
    window: int = 64
    precision: str = "float32"

    def check(self) -> None:
        _check_heads(self.q_heads, self.kv_heads)
        if self.codes > 32768:
            raise ProblemError("codes", f"a code has 16 bits with a sign: up to 32768, not {self.codes}")
        if self.kept + self.always > self.kv_length:
            raise ProblemError("kept", f"{self.kept} beside {self.always} others of {self.kv_length} tokens cannot be")

    @property
    def always(self) -> int:
        """Tokens that are kept whatever their score."""
        return self.sinks + self.window

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return codebook_selector_work(
            self.batch, self.q_heads, self.kv_heads, self.kv_length, self.codes, self.head_dim, self.kept,
            self.precision, always=self.always,
        )  # fmt: skip

    @property
    def label(self) -> str:
        heads = _heads(self.q_heads, self.kv_heads)
        shape = f"B{self.batch} {heads} {self.kept}+{self.always} of S{self.kv_length} d{self.head_dim}"
        return f"{shape} {self.codes} codes"
