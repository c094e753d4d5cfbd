"""``fma``: multiply-adds on values in registers; its fastest results are the arithmetic rates of a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import Work, fma_key


def fma_work(precision: str, unit: str, accumulators: Any, depth: Any, iterations: Any) -> Work:
    """``iterations`` times, each of ``accumulators`` accumulators receives the products of ``depth`` operand pairs.

    A multiply-add counts as two operations. The bytes are those of the accumulators, written once.
    """
    key = fma_key(precision, unit)
    return Work(
        operations={key: 2.0 * accumulators * depth * iterations},
        written_bytes={"activations": bytes_of(accumulators * 1.0, key.accumulator)},
    )


@problem("fma")
@dataclass(frozen=True, kw_only=True)
class Fma(Problem):
    """Peak multiply-add rate of ``unit`` (vector or matrix) in ``precision``: out[groups, chains, lanes].

    ``groups`` are threads of a CPU or programs of a GPU; ``depth`` is how many operand pairs one instruction or tile
    step adds into an accumulator: 1 for float32 FMA, 2 for AVX512-BF16, 4 for VNNI, the tile's K for a matrix unit.

    vector, float64 and float32: each accumulator of chain c starts at (c + 1) y[lane] and becomes acc x[lane] +
    y[lane], ``iterations`` times (depth 1). vector, bfloat16: starts at (c + 1) y[lane, 0] and receives the sum of the
    lane's products with alternating sign, twice +, then -, +, ... so that one product sum (odd iterations) or two
    (even) remain. vector, int8: starts at c + 1 and receives the lane's products, modulo 2^32.
    x and y are [lanes * depth], the same for every group and chain.
    matrix: out[group] = iterations * x[group] y[group], with x [groups, chains, depth] and y [groups, depth, lanes].
    """

    precision: str
    unit: str
    groups: int
    chains: int
    lanes: int
    depth: int
    iterations: int

    def check(self) -> None:
        if self.unit not in ("vector", "matrix"):
            raise ProblemError("unit", f"must be vector or matrix, not {self.unit!r}")

    @property
    def accumulators(self) -> int:
        """Independent accumulators of one launch."""
        return self.groups * self.chains * self.lanes

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return fma_work(self.precision, self.unit, float(self.accumulators), float(self.depth), float(self.iterations))

    @property
    def label(self) -> str:
        return f"{self.unit} {self.precision}"
