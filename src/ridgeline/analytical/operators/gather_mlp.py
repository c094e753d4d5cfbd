"""``gather_mlp``: a gated MLP that computes only the neurons that fire (CATS, CHESS, PowerInfer, CoreInfer).

What is known before what decides what is saved. *gate*: the gate product is dense, its result says which rows of W_up
and W_down are used (CATS, Lee et al. 2024; CHESS for up and down). *predicted*: a predictor, or a core
fixed for the sentence, says it beforehand, so that W_gate is gathered too (CoreInfer, Wang et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.operators.moe import distinct_experts
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, Work, fma_key

SELECTIONS = ("gate", "predicted")


def gather_gemm_work(m: Any, k: Any, pairs: Any, rows: Any, precision: str, *, weight: str | None = None) -> Work:
    """Products of ``pairs`` (row of X, row of W): 2 k operations each; ``rows`` different rows of W are read.

    X[m, k] is read, and an int32 number for each row of W that is gathered; ``pairs`` results are written.
    """
    pairs, k = 1.0 * pairs, 1.0 * k
    return Work(
        operations={fma_key(precision): 2.0 * pairs * k},
        read_bytes={
            "activations": bytes_of(m * k, precision),
            "weights": bytes_of(rows * k, weight or precision),
            "index": bytes_of(1.0 * rows, "int32"),
        },
        written_bytes={"activations": bytes_of(pairs, precision)},
    )


def gather_mlp_work(
    tokens: Any,
    hidden: Any,
    intermediate: Any,
    pairs: Any,
    neurons: Any,
    precision: str,
    *,
    selection: str = "gate",
    weight: str | None = None,
) -> Work:
    """SiLU-gated MLP of ``tokens`` tokens, where ``pairs`` (token, neuron) fire, of ``neurons`` different neurons.

    A pair takes 2 h operations for each of up, down and, if ``selection`` is predicted, gate; a dense gate takes
    2 T h f. SiLU of each gate value: a sigmoid and a product; a comparison with the threshold for a dense gate; a
    product with the up value for each pair. Read are X, the rows of ``neurons`` of the gathered weights and all of the
    dense one, and, if predicted, an int32 number for each neuron; written is Y.

    Raises:
        ValueError: for a ``selection`` that is not in :data:`SELECTIONS`.
    """
    if selection not in SELECTIONS:
        raise ValueError(f"unknown selection {selection!r}: one of {', '.join(SELECTIONS)}")
    tokens, pairs, neurons, hidden = 1.0 * tokens, 1.0 * pairs, 1.0 * neurons, 1.0 * hidden
    dense = selection == "gate"
    gates = tokens * intermediate if dense else pairs
    read = {
        "activations": bytes_of(tokens * hidden, precision),
        "weights": bytes_of(hidden * (2.0 * neurons + (intermediate if dense else neurons)), weight or precision),
    }
    if not dense:
        read["index"] = bytes_of(neurons, "int32")
    return Work(
        operations={
            fma_key(precision): 2.0 * hidden * (2.0 * pairs + gates),
            fma_key(precision, "vector"): (2.0 if dense else 1.0) * gates + pairs,
            SPECIAL: gates,
        },
        read_bytes=read,
        written_bytes={"activations": bytes_of(tokens * hidden, precision)},
    )


@problem("gather_mlp")
@dataclass(frozen=True, kw_only=True)
class GatherMlp(Problem):
    """Y[tokens, hidden] of an MLP of which a share ``active`` of the neurons fires for each token, drawn with ``seed``.

    With ``selection`` predicted, all tokens share one core of neurons; with gate each has its own. The structure's
    figures are ``pairs`` and ``neurons``.
    """

    tokens: int
    hidden: int
    intermediate: int
    active: float
    selection: str = "gate"
    precision: str = "float32"
    seed: int = 1

    def check(self) -> None:
        if not 0.0 <= self.active <= 1.0:
            raise ProblemError("active", f"must be 0 to 1, not {self.active:g}")
        if self.selection not in SELECTIONS:
            raise ProblemError("selection", f"must be one of {', '.join(SELECTIONS)}, not {self.selection!r}")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return self._work(structure.figure("pairs"), structure.figure("neurons"))

    def expected_work(self) -> Work:
        fire = self.active * self.intermediate
        tokens = self.tokens if self.selection == "gate" else 1
        return self._work(self.tokens * fire, float(distinct_experts(self.intermediate, fire, tokens)))

    def footprint_bytes(self) -> float:
        """All neurons lie in memory."""
        return float(self._work(0.0, float(self.intermediate)).bytes)

    def _work(self, pairs: float, neurons: float) -> Work:
        return gather_mlp_work(
            self.tokens, self.hidden, self.intermediate, pairs, neurons, self.precision, selection=self.selection
        )

    @property
    def label(self) -> str:
        shape = f"T{self.tokens} {self.hidden}x{self.intermediate}"
        return f"{shape} {self.active:.0%} {self.selection} {self.precision}"
