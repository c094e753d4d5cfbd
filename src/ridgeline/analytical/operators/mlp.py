"""Two products in a row: a fused MLP, and a weight of low rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.operators.activation import ACTIVATIONS, activation_work
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import Work, fma_key


def fused_mlp_work(
    tokens: Any, hidden: Any, intermediate: Any, activation: str, precision: str, *, weight: str | None = None
) -> Work:
    """Y = act(X W_up) W_down, or act(X W_gate) * (X W_up) W_down for a gated ``activation`` of ``ACTIVATIONS``.

    2 T h f operations for each of two or three weights. What lies between them stays on the chip: written by no one,
    read by no one. Apart, the same is two GEMMs and an activation.
    """
    products = 1.0 + ACTIVATIONS[activation].inputs
    tokens, area = 1.0 * tokens, 1.0 * hidden * intermediate
    between = activation_work(tokens, intermediate, precision, activation)
    return Work(
        operations={fma_key(precision): 2.0 * products * tokens * area, **between.operations},
        read_bytes={
            "activations": bytes_of(tokens * hidden, precision),
            "weights": bytes_of(products * area, weight or precision),
        },
        written_bytes={"activations": bytes_of(tokens * hidden, precision)},
    )


def low_rank_gemm_work(
    m: Any, n: Any, k: Any, rank: Any, precision: str, *, weight: str | None = None, output: str | None = None
) -> Work:
    """Y[m, n] = (X[m, k] U[k, r]) V[r, n]: 2 m r (k + n) operations; the m x r values between stay on the chip."""
    m, factors = 1.0 * m, 1.0 * rank * (1.0 * k + n)
    return Work(
        operations={fma_key(precision): 2.0 * m * factors},
        read_bytes={"activations": bytes_of(m * k, precision), "weights": bytes_of(factors, weight or precision)},
        written_bytes={"activations": bytes_of(m * n, output or precision)},
    )


@problem("fused_mlp")
@dataclass(frozen=True, kw_only=True)
class FusedMlp(Problem):
    """Y[tokens, hidden] of an MLP with ``intermediate`` neurons, gated where its ``activation`` is."""

    tokens: int
    hidden: int
    intermediate: int
    activation: str = "silu_and_mul"
    precision: str = "bfloat16"

    def check(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ProblemError("activation", f"must be one of {', '.join(ACTIVATIONS)}, not {self.activation!r}")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return fused_mlp_work(self.tokens, self.hidden, self.intermediate, self.activation, self.precision)

    @property
    def label(self) -> str:
        return f"T{self.tokens} {self.hidden}x{self.intermediate} {self.activation} {self.precision}"


@problem("low_rank_gemm")
@dataclass(frozen=True, kw_only=True)
class LowRankGemm(Problem):
    """Y[m, n] = (X[m, k] U[k, rank]) V[rank, n]."""

    m: int
    n: int
    k: int
    rank: int
    precision: str = "float32"

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return low_rank_gemm_work(self.m, self.n, self.k, self.rank, self.precision)

    @property
    def label(self) -> str:
        return f"{self.m}x{self.n}x{self.k} r{self.rank} {self.precision}"
