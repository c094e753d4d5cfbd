"""Recurrent cells with a dense recurrence: Elman, GRU, LSTM, sLSTM, in independent heads (FlashRNN, Poeppel et al. 2024).

A step adds R s_{t-1} of each head to the inputs W x_t, which a GEMM made for all steps beforehand, and applies the
cell. Steps wait for each other: however small their work, a device needs a synchronisation for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, Work, fma_key


@dataclass(frozen=True)
class Cell:
    """Counts of one unit of one cell in one step."""

    recurrent: int
    """Gates with a recurrent matrix."""
    inputs: int
    """Gates with an input W x."""
    biases: int
    states: int
    """Values carried from step to step."""
    operations: int
    """Additions, products and comparisons, those of inputs and biases included."""
    special: int


CELLS: Mapping[str, Cell] = {
    # h = tanh(R h + x + b)
    "elman": Cell(1, 1, 1, 1, 2, 1),
    # r, z = sigmoid(R h + x + b); g = R h + b; n = x + b; h = z h + (1 - z) tanh(n + r g)
    "gru": Cell(3, 3, 4, 1, 12, 3),
    # i, f, o = sigmoid(R h + x + b); z = tanh(R h + x + b); c = f c + i z; h = o tanh(c)
    "lstm": Cell(4, 4, 4, 2, 12, 5),
    # a = ln sigmoid(f) + m; m' = max(i, a); i' = exp(i - m'); f' = exp(a - m'); c = f' c + i' tanh(z);
    # n = max(f' n + i', 1); h = sigmoid(o) c / n (xLSTM, Beck et al. 2024, section 2.2)
    "slstm": Cell(4, 4, 4, 4, 21, 7),
}


def recurrent_cell_work(
    kind: str,
    batch: Any,
    length: Any,
    heads: Any,
    head_dim: Any,
    precision: str,
    *,
    state_precision: str = "float32",
) -> Work:
    """``length`` steps of ``batch`` sequences, ``heads`` heads of ``head_dim`` units each.

    2 D operations for each step, unit and recurrent gate, beside those of :data:`CELLS`. Recurrent matrices and biases
    are read once (an implementation that cannot keep them on the chip reads them every step); inputs of all gates are
    read, h is written at every step; all states are read before the first step and written after the last.

    Raises:
        ValueError: for a ``kind`` that is not in :data:`CELLS`.
    """
    if kind not in CELLS:
        raise ValueError(f"unknown cell {kind!r}: one of {', '.join(CELLS)}")
    cell, units = CELLS[kind], 1.0 * heads * head_dim
    steps = 1.0 * batch * length * units
    states = bytes_of(cell.states * batch * units, state_precision)
    return Work(
        operations={
            fma_key(precision): 2.0 * cell.recurrent * steps * head_dim,
            fma_key("float32", "vector"): cell.operations * steps,
            SPECIAL: cell.special * steps,
        },
        read_bytes={
            "activations": bytes_of(cell.inputs * steps, precision),
            "weights": bytes_of(cell.recurrent * units * head_dim + cell.biases * units, precision),
            "kv": states,
        },
        written_bytes={"activations": bytes_of(steps, precision), "kv": states},
    )


@problem("recurrent_cell")
@dataclass(frozen=True, kw_only=True)
class RecurrentCell(Problem):
    """h[batch, length, heads, head_dim] of inputs W x [batch, length, gates, heads, head_dim], from given states."""

    cell: str
    batch: int
    length: int
    heads: int
    head_dim: int
    precision: str = "float32"

    def check(self) -> None:
        if self.cell not in CELLS:
            raise ProblemError("cell", f"must be one of {', '.join(CELLS)}, not {self.cell!r}")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return recurrent_cell_work(self.cell, self.batch, self.length, self.heads, self.head_dim, self.precision)

    @property
    def label(self) -> str:
        return f"{self.cell} B{self.batch} T{self.length} H{self.heads} d{self.head_dim} {self.precision}"
