"""The largest of many: selection, sampling from logits, and the verification of drafted tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, Work, fma_key

CHOICE_PRECISION = "int64"
"""Precision of a chosen index, as torch's."""


def top_k_work(rows: Any, width: Any, k: Any, precision: str, *, values: bool = True) -> Work:
    """The ``k`` largest of each of ``rows`` vectors of ``width``: width - 1 comparisons, the fewest that can tell.

    Every value but one must have lost or won against another (a heap or a radix pass does more: that is the
    implementation's). Numbers are written, and with ``values`` the values too.
    """
    rows, chosen = 1.0 * rows, 1.0 * rows * k
    return Work(
        operations={fma_key(precision, "vector"): rows * (1.0 * width - 1.0)},
        read_bytes={"activations": bytes_of(rows * width, precision)},
        written_bytes={
            "index": bytes_of(chosen, CHOICE_PRECISION),
            **({"activations": bytes_of(chosen, precision)} if values else {}),
        },
    )


def sampling_work(rows: Any, vocabulary: Any, precision: str, *, greedy: bool = False) -> Work:
    """One token from each row of logits.

    greedy: V - 1 comparisons. Else, with a temperature: V products, V - 1 comparisons, V differences and exponentials,
    V - 1 additions, and V comparisons of the running sum with a random number: 5 V - 2 operations.
    """
    rows, width = 1.0 * rows, 1.0 * vocabulary
    operations = {fma_key(precision, "vector"): rows * (width - 1.0 if greedy else 5.0 * width - 2.0)}
    if not greedy:
        operations[SPECIAL] = rows * width
    return Work(
        operations=operations,
        read_bytes={"activations": bytes_of(rows * width, precision)},
        written_bytes={"index": bytes_of(rows, CHOICE_PRECISION)},
    )


def speculative_verify_work(batch: Any, drafted: Any, vocabulary: Any, precision: str) -> Work:
    """Speculative sampling (Leviathan et al. 2023, algorithm 1) over ``drafted`` tokens of each sequence.

    Each drafted token compares u q with p: 2 operations on 2 values. Then one row, that of the first rejected token or
    of the one after the last, is drawn from max(p - q, 0): V differences, V comparisons, V - 1 additions and V
    comparisons of the running sum with a random number. Of the probabilities only those are read.
    """
    batch, width = 1.0 * batch, 1.0 * vocabulary
    return Work(
        operations={fma_key(precision, "vector"): batch * (2.0 * drafted + 4.0 * width - 1.0)},
        read_bytes={
            "activations": bytes_of(batch * (2.0 * drafted + 2.0 * width), precision),
            "index": bytes_of(batch * drafted, CHOICE_PRECISION),
        },
        written_bytes={"index": bytes_of(batch * (1.0 + drafted), CHOICE_PRECISION)},
    )


@problem("top_k")
@dataclass(frozen=True, kw_only=True)
class TopK(Problem):
    """Numbers and values of the ``k`` largest of each of ``rows`` vectors of ``width``."""

    rows: int
    width: int
    k: int
    precision: str = "float32"

    def check(self) -> None:
        if self.k > self.width:
            raise ProblemError("k", f"{self.k} largest of {self.width} cannot be")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return top_k_work(self.rows, self.width, self.k, self.precision)

    @property
    def label(self) -> str:
        return f"{self.rows}x{self.width} top{self.k} {self.precision}"
