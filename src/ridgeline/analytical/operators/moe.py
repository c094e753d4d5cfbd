"""Mixture of experts: which experts a batch touches, the router, the dispatch, and the grouped GEMM.

Every token goes to ``top_k`` of ``experts`` experts (Shazeer et al. 2017). What the router decides is data: the number
of *distinct* experts that get a token sets the weight bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, Work, fma_key

EXPERT_INDEX_PRECISION = "int32"
"""Precision of an expert's or a row's number."""


def distinct_experts(experts: Any, top_k: Any, tokens: Any) -> Any:
    """Expected number of experts that get at least one of ``tokens`` tokens: E (1 - (1 - k/E)^T).

    Exact on average for routers that give each token a uniformly drawn set of k different experts, independent of the
    other tokens. Real routers prefer some experts: they touch fewer.
    """
    e, k, t = (np.asarray(x, dtype=np.float64) for x in (experts, top_k, tokens))
    return (e * (1.0 - (1.0 - k / e) ** t))[()]


def moe_routing_work(tokens: Any, experts: Any, top_k: Any, hidden: Any, precision: str) -> Work:
    """Router of ``tokens`` tokens: scores = X[tokens, hidden] W[hidden, experts], softmax, the ``top_k`` largest.

    The product counts 2 T h E operations. Softmax as in :func:`~ridgeline.analytical.operators.softmax.softmax_work`;
    finding the largest takes at least E - 1 comparisons a token. Scores stay on the chip; written are, for each of
    the T k choices, a float32 weight and the int32 number of the expert.
    """
    tokens, experts, hidden = 1.0 * tokens, 1.0 * experts, 1.0 * hidden
    return Work(
        operations={
            fma_key(precision): 2.0 * tokens * experts * hidden,
            fma_key("float32", "vector"): tokens * (5.0 * experts - 3.0),
            SPECIAL: tokens * (experts + 1.0),
        },
        read_bytes={
            "activations": bytes_of(tokens * hidden, precision),
            "weights": bytes_of(hidden * experts, precision),
        },
        written_bytes={
            "activations": bytes_of(tokens * top_k, "float32"),
            "index": bytes_of(tokens * top_k, EXPERT_INDEX_PRECISION),
        },
    )


def moe_gemm_work(
    tokens: Any,
    experts: Any,
    top_k: Any,
    n: Any,
    k: Any,
    precision: str,
    *,
    weight: str | None = None,
    output: str | None = None,
    distinct: Any = None,
    gathered: bool = False,
    combined: bool = False,
) -> Work:
    """Grouped GEMM: each of ``tokens`` x ``top_k`` rows times the [k, n] weight of its expert.

    2 T top_k n k operations; the weights of every distinct expert read once.

    Args:
        weight: stored precision of the experts' weights; default ``precision``.
        output: precision of the result; default ``precision``.
        distinct: experts that get at least one row, where it is known; default :func:`distinct_experts`.
        gathered: the input has one row a token, which its experts share (first GEMM of a fused MoE), instead of one row
            for each choice.
        combined: the output has one row a token, the weighted sum of its experts' (last GEMM of a fused MoE): 2 top_k - 1
            more operations for each value, and the float32 weights of the choices read.
    """
    rows, n, k = 1.0 * tokens * top_k, 1.0 * n, 1.0 * k
    touched = distinct_experts(experts, top_k, tokens) if distinct is None else distinct
    operations = {fma_key(precision): 2.0 * rows * n * k}
    activations = bytes_of((1.0 * tokens if gathered else rows) * k, precision)
    if combined:
        operations[fma_key("float32", "vector")] = (2.0 * rows - tokens) * n
        activations = activations + bytes_of(rows, "float32")
    return Work(
        operations=operations,
        read_bytes={
            "activations": activations,
            "weights": bytes_of(touched * n * k, weight or precision),
            "index": bytes_of(rows, EXPERT_INDEX_PRECISION),
        },
        written_bytes={
            "activations": bytes_of((1.0 * tokens if combined else rows) * n, output or precision),
        },
    )


def moe_dispatch_work(tokens: Any, top_k: Any, hidden: Any, precision: str) -> Work:
    """Gather of each token's vector to the rows of its ``top_k`` choices: no arithmetic, each vector read once."""
    rows = 1.0 * tokens * top_k
    return Work(
        read_bytes={
            "activations": bytes_of(1.0 * tokens * hidden, precision),
            "index": bytes_of(rows, EXPERT_INDEX_PRECISION),
        },
        written_bytes={"activations": bytes_of(rows * hidden, precision)},
    )


def moe_combine_work(tokens: Any, top_k: Any, hidden: Any, precision: str) -> Work:
    """Weighted sum of the ``top_k`` rows of each token: ``top_k`` products and one addition less for each value."""
    rows = 1.0 * tokens * top_k
    return Work(
        operations={fma_key("float32", "vector"): (2.0 * rows - tokens) * hidden},
        read_bytes={
            "activations": bytes_of(rows * hidden, precision) + bytes_of(rows, "float32"),
            "index": bytes_of(rows, EXPERT_INDEX_PRECISION),
        },
        written_bytes={"activations": bytes_of(1.0 * tokens * hidden, precision)},
    )


def moe_einsum_dispatch_work(tokens: Any, experts: Any, capacity: Any, hidden: Any, precision: str) -> Work:
    """Dispatch as a product with a one-hot mask [tokens, experts, capacity] (GShard, Lepikhin et al. 2020, algorithm 2).

    2 T E C h operations, all but a T-th of them with zeros: what :func:`moe_dispatch_work` saves.
    """
    slots = 1.0 * experts * capacity
    return Work(
        operations={fma_key(precision): 2.0 * tokens * slots * hidden},
        read_bytes={"activations": bytes_of(1.0 * tokens * hidden + tokens * slots, precision)},
        written_bytes={"activations": bytes_of(slots * hidden, precision)},
    )


@problem("moe_gemm")
@dataclass(frozen=True, kw_only=True)
class MoeGemm(Problem):
    """Y[tokens * top_k, n]: the row of each of a token's ``top_k`` experts times the [k, n] weight of that expert.

    Experts are drawn evenly with ``seed``, a set of different ones for each token. The structure's figure is
    ``distinct_experts``.
    """

    tokens: int
    experts: int
    top_k: int
    n: int
    k: int
    precision: str = "bfloat16"
    seed: int = 1

    def check(self) -> None:
        if self.top_k > self.experts:
            raise ProblemError("top_k", f"{self.top_k} different experts of {self.experts} cannot be")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return self._work(structure.figure("distinct_experts"))

    def expected_work(self) -> Work:
        return self._work(None)

    def footprint_bytes(self) -> float:
        """All experts lie in memory, those that get no token too."""
        return float(self._work(float(self.experts)).bytes)

    def _work(self, distinct: float | None) -> Work:
        return moe_gemm_work(self.tokens, self.experts, self.top_k, self.n, self.k, self.precision, distinct=distinct)

    @property
    def label(self) -> str:
        return f"T{self.tokens} top{self.top_k}/{self.experts} {self.n}x{self.k} {self.precision}"
