"""The sweep: bound, three-parameter prediction and memory fit of a whole model over millions of points.

Devices, models, precisions and layouts are outer loops of a few hundred combinations; sequences and lengths are
columns, taken in chunks that stay in the second-level cache (three times as fast as whole columns on the machine this
was written on). What is evaluated is a :class:`~ridgeline.analytical.step_form.StepForm`: every operation is counted,
by its own formula. numpy does it alone; numba, where it is installed, does the same table with both hardware threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ridgeline.analytical.step_form import Basis, DeviceStep, Points

CHUNK_ROWS = 8192
BLOCK_ROWS = 512
"""Rows that one thread of the numba kernel works on at a time: its monomials stay in the first-level cache."""

Engine = Literal["auto", "numpy", "numba"]


@dataclass(frozen=True)
class Table:
    """Sums of maxima of lines, all outputs in one matrix.

    ``lines`` holds one line of every group first, then a second line of the groups that have one, and so on, with the
    groups in descending order of their number of lines: so each layer of lines meets the first groups of the one before.
    """

    lines: Any
    """float64 [lines, monomials]."""
    layers: tuple[int, ...]
    """Lines in each layer."""
    selector: Any
    """float64 [outputs, groups]: 1 where a group is part of an output."""


def table(outputs: Sequence[Sequence[Sequence[Any]]]) -> Table:
    """The table of several outputs, each the sum over its groups of the group's longest line."""
    groups = [(group, output) for output, own in enumerate(outputs) for group in own]
    groups.sort(key=lambda item: -len(item[0]))
    layers = [[group[i] for group, _ in groups if len(group) > i] for i in range(len(groups[0][0]))]
    selector = np.zeros((len(outputs), len(groups)))
    for column, (_, output) in enumerate(groups):
        selector[output, column] = 1.0
    return Table(np.array([line for layer in layers for line in layer]), tuple(map(len, layers)), selector)


def evaluate(the_table: Table, basis: Basis, points: Points, engine: Engine = "auto") -> Any:
    """Outputs at ``points``, float64 [outputs, points].

    Raises:
        ModuleNotFoundError: for ``engine`` numba where it is not installed.
    """
    out = np.empty((len(the_table.selector), len(points)))
    if engine == "numba" or (engine == "auto" and _numba_installed()):
        order = np.cumsum([0, *the_table.layers])
        group_of = np.concatenate([np.arange(n) for n in the_table.layers])
        output_of = np.argmax(the_table.selector, axis=0)
        _numba_kernel()(
            the_table.lines, group_of, output_of, int(order[1]), np.array(basis.exponents), *_contiguous(points), out
        )
        return out
    for start in range(0, len(points), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        out[:, rows] = _evaluate_chunk(the_table, basis.monomials(points.rows(rows)))
    return out


def _evaluate_chunk(the_table: Table, monomials: Any) -> Any:
    values = the_table.lines @ monomials
    groups = values[: the_table.layers[0]]
    start = the_table.layers[0]
    for size in the_table.layers[1:]:
        np.maximum(groups[:size], values[start : start + size], out=groups[:size])
        start += size
    return the_table.selector @ groups


@dataclass(frozen=True)
class StepColumns:
    """What a step takes at each point."""

    bound_s: Any
    predicted_s: Any
    memory_bytes: Any
    fits: Any
    """Whether the memory that it needs is there: booleans."""


def evaluate_step(
    step: DeviceStep, memory_bytes: Callable[[Points], Any] | Any, capacity_bytes: float, points: Points,
    engine: Engine = "auto",
) -> StepColumns:
    """Bound, prediction and memory fit of one model on one device and layout.

    Args:
        memory_bytes: bytes that one device needs: coefficients over the basis of the step
            (:func:`memory_coefficients`), or a function of points where they are no polynomial.
        capacity_bytes: bytes that one device has for them.
    """
    polynomial = not callable(memory_bytes)
    outputs = [*step.outputs, *([[[memory_bytes]]] if polynomial else [])]
    basis = step.step.basis
    found = evaluate(_table_of(step, outputs), basis, points, engine)
    bound_s, predicted_s = found[0], found[1]
    needed = found[2] if polynomial else memory_bytes(points)  # type: ignore[operator]
    if step.step.opaque:
        for start in range(0, len(points), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            more_bound, more_predicted = step.opaque_s(points.rows(rows))
            bound_s[rows] += more_bound
            predicted_s[rows] += more_predicted
    return StepColumns(bound_s, predicted_s, needed, needed <= capacity_bytes)
