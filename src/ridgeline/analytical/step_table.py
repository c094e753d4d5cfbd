"""A step on a device: seconds of bound and prediction, and bytes held, as sums of maxima of few polynomials.

Every count of a :class:`~ridgeline.analytical.step_form.StepForm` becomes seconds. Within one operation, a limit that no
point can make the longest is dropped; operations with a single limit left add up to one polynomial. numpy evaluates the
table that remains with one matrix product for each chunk; numba, where it is installed, the same table on all threads.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ridgeline.analytical.device import Device
from ridgeline.analytical.limits import LimitError, limits, native_rate
from ridgeline.analytical.step_form import OperationForm, Points, StepForm, monomials
from ridgeline.analytical.three_parameters import ThreeParameters

CHUNK_ROWS = 8192
"""Rows that numpy takes at a time, so that they stay in the second-level cache."""
BLOCK_ROWS = 512
"""Rows that a thread of the numba kernel takes at a time."""

Engine = Literal["auto", "numpy", "numba"]
Line = Any
"""Coefficients over a basis, float64 [monomials]."""


@dataclass(frozen=True)
class Table:
    """Sums of maxima of lines, all outputs in one matrix.

    ``lines`` holds a first line of every group, then a second line of the groups that have one, and so on, groups in
    descending order of their lines: so each layer of lines meets the first groups of the layer before.
    """

    exponents: Any
    """int64 [monomials, 3]: powers of sequences, q_length, kv_length."""
    decays: Any
    """float64 [decays]: further monomials."""
    lines: Any
    """float64 [lines, monomials and decays]."""
    layers: tuple[int, ...]
    """Lines in each layer."""
    selector: Any
    """float64 [outputs, groups]: 1 where a group is part of an output."""


@dataclass(frozen=True)
class StepColumns:
    """What a step takes at each point; columns of one length."""

    bound_s: Any
    predicted_s: Any
    memory_bytes: Any
    """Bytes that each device must hold."""
    fits: Any
    """Whether it can hold them: booleans."""


@dataclass(frozen=True)
class DeviceStep:
    """A step on a device; its columns come from :meth:`columns`."""

    form: StepForm
    device: Device
    parameters: Mapping[str, ThreeParameters]
    capacity_bytes: float
    substitute: bool
    table: Table

    def columns(self, points: Points, engine: Engine = "auto") -> StepColumns:
        """Bound, prediction and memory fit at ``points``.

        Raises:
            ModuleNotFoundError: for engine numba where it is not installed.
        """
        found = evaluate(self.table, points, engine)
        bound_s, predicted_s = found[0], found[1]
        held = found[2] if self.form.memory is not None else self.form.memory_bytes_of(*points.columns)
        if self.form.opaque:
            for start in range(0, len(points), CHUNK_ROWS):
                rows = slice(start, start + CHUNK_ROWS)
                self._add_opaque(points.rows(rows), bound_s[rows], predicted_s[rows])
        return StepColumns(bound_s, predicted_s, held, held <= self.capacity_bytes)

    def _add_opaque(self, points: Points, bound_s: Any, predicted_s: Any) -> None:
        """Add the operations that are no polynomials, by their formulas."""
        operations = self.form.operations_of(*points.columns)
        for operation in (operations[i] for i in self.form.opaque):
            terms = limits(operation.work, self.device, substitute=self.substitute)
            own = _of(self.parameters, operation.name)
            bound_s += operation.count * terms.overlapped_s
            predicted_s += operation.count * own.seconds(terms, operation.work.launches)


def on_device(
    form: StepForm,
    device: Device,
    parameters: Mapping[str, ThreeParameters],
    capacity_bytes: float | None = None,
    *,
    substitute: bool = False,
) -> DeviceStep:
    """The step on ``device``.

    Args:
        parameters: constants by operation name; those of the key ``""`` serve every other operation.
        capacity_bytes: bytes that the step may hold; default all of the main memory.
        substitute: as in :func:`~ridgeline.analytical.limits.limits`.

    Raises:
        LimitError: for a precision that the device lacks, or links where it states none.
    """
    bound, predicted = [], []
    for operation in form.forms:
        compute, memory, link = _seconds(operation, device, substitute)
        own = _of(parameters, operation.name)
        bound.append([*compute, *memory, *link])
        predicted.append(
            [
                *(line / own.compute_efficiency for line in compute),
                *(line / own.memory_efficiency for line in memory),
                *(line / own.link_efficiency for line in link),
            ]
        )
        predicted.append([operation.launches * own.overhead_s])
    outputs = [_groups(bound), _groups(predicted)]
    if form.memory is not None:
        outputs.append([[form.memory]])
    capacity = device.main_memory.capacity_bytes if capacity_bytes is None else capacity_bytes
    return DeviceStep(form, device, parameters, capacity, substitute, _table(form, outputs))


def evaluate(table: Table, points: Points, engine: Engine = "auto") -> Any:
    """Outputs at ``points``, float64 [outputs, points].

    Raises:
        ModuleNotFoundError: for engine numba where it is not installed.
    """
    out = np.empty((len(table.selector), len(points)))
    if engine == "numba" or (engine == "auto" and numba_installed()):
        group_of = np.concatenate([np.arange(size) for size in table.layers])
        columns = [np.ascontiguousarray(column, dtype=np.float64) for column in points.columns]
        output_of = np.argmax(table.selector, axis=0)
        _numba_kernel()(table.exponents, table.decays, table.lines, group_of, table.layers[0], output_of, *columns, out)
        return out
    for start in range(0, len(points), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        _evaluate_chunk(table, monomials(table.exponents, table.decays, points.rows(rows)), out[:, rows])
    return out


def numba_installed() -> bool:
    """Whether numba can be imported (it comes with ``ridgeline[run]``)."""
    return importlib.util.find_spec("numba") is not None


def _evaluate_chunk(table: Table, rows: Any, out: Any) -> None:
    """Few passes over rows in the cache. No BLAS: it would spread so small a product over all threads."""
    values = np.empty((len(table.lines), rows.shape[1]))
    term = np.empty(rows.shape[1])
    for line, value in zip(table.lines, values, strict=True):
        used = np.flatnonzero(line)
        np.multiply(rows[used[0]], line[used[0]], out=value) if len(used) else value.fill(0.0)
        for k in used[1:]:
            np.multiply(rows[k], line[k], out=term)
            value += term
    start = table.layers[0]
    longest = values[:start]
    for size in table.layers[1:]:
        np.maximum(longest[:size], values[start : start + size], out=longest[:size])
        start += size
    for total, groups in zip(out, table.selector, strict=True):
        np.sum(longest[groups != 0.0], axis=0, out=total)


@functools.cache
def _numba_kernel() -> Callable[..., None]:
    """Compiled at first use (about two seconds), for all tables."""
    import numba

    def evaluate_rows(
        exponents: Any,
        decays: Any,
        lines: Any,
        group_of: Any,
        groups: int,
        output_of: Any,
        b: Any,
        q: Any,
        kv: Any,
        out: Any,
    ) -> None:
        # Loops, not array expressions: each of those would become a parallel region of its own, slow to compile.
        size, polynomial, terms = BLOCK_ROWS, len(exponents), lines.shape[1]
        for block in numba.prange((len(b) + size - 1) // size):
            first = block * size
            n = min(size, len(b) - first)
            powers = np.empty((terms, size))
            longest = np.empty((groups, size))
            value = np.empty(size)
            for k in range(polynomial):
                for r in range(n):
                    power = 1.0
                    for _ in range(exponents[k, 0]):
                        power *= b[first + r]
                    for _ in range(exponents[k, 1]):
                        power *= q[first + r]
                    for _ in range(exponents[k, 2]):
                        power *= kv[first + r]
                    powers[k, r] = power
            for k in range(polynomial, terms):
                for r in range(n):
                    powers[k, r] = decays[k - polynomial] ** (b[first + r] * q[first + r])
            for line in range(len(lines)):
                for r in range(n):
                    value[r] = 0.0
                for k in range(terms):
                    c = lines[line, k]
                    if c != 0.0:
                        for r in range(n):
                            value[r] += c * powers[k, r]
                group = group_of[line]
                for r in range(n):
                    longest[group, r] = value[r] if line < groups else max(longest[group, r], value[r])
            for output in range(len(out)):
                for r in range(n):
                    out[output, first + r] = 0.0
            for group in range(groups):
                for r in range(n):
                    out[output_of[group], first + r] += longest[group, r]

    kernel: Callable[..., None] = numba.njit(parallel=True, fastmath={"contract"}, nogil=True)(evaluate_rows)
    return kernel


def _of(parameters: Mapping[str, ThreeParameters], name: str) -> ThreeParameters:
    own = parameters.get(name)
    return parameters[""] if own is None else own


def _seconds(form: OperationForm, device: Device, substitute: bool) -> tuple[list[Line], list[Line], list[Line]]:
    """Lines of the units, of main memory and of the link: coefficients of seconds."""
    by_unit: dict[str, Any] = {}
    for key, coefficients in form.operations.items():
        rate = native_rate(device, key, substitute=substitute)
        if rate is not None:
            by_unit[rate.unit] = by_unit.get(rate.unit, 0.0) + coefficients / rate.value_per_s
    memory, link = [], []
    bandwidth = device.bandwidth(device.main_memory.name)
    if bandwidth is not None:
        memory.append(form.bytes / bandwidth.value_per_s)
    if np.any(form.link_bytes):
        if not device.links:
            raise LimitError(
                f"{device.id} states no link, and {form.name} passes bytes over one: add [[links]] to a device file"
            )
        link.append(form.link_bytes / max(each.per_direction_bytes_per_s for each in device.links))
    return list(by_unit.values()), memory, link


def _groups(operations: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """Groups of lines with the dominated lines dropped, and all groups of one line summed into the first."""
    single: Any = 0.0
    groups = []
    for lines in operations:
        kept = _undominated(lines)
        if len(kept) == 1:
            single = single + kept[0]
        elif kept:
            groups.append(kept)
    return [[single], *groups] if np.ndim(single) else groups


def _undominated(lines: Sequence[Line]) -> list[Line]:
    """Lines without those that another one exceeds in every coefficient: monomials are never negative."""
    kept: list[Line] = []
    for line in lines:
        if any(np.all(other >= line) for other in kept):
            continue
        kept = [other for other in kept if not np.all(line >= other)]
        kept.append(line)
    return kept


def _table(form: StepForm, outputs: Sequence[Sequence[Sequence[Line]]]) -> Table:
    groups = [(group, output) for output, own in enumerate(outputs) for group in own]
    groups.sort(key=lambda item: -len(item[0]))
    longest = len(groups[0][0])
    layers = [[group[i] for group, _ in groups if len(group) > i] for i in range(longest)]
    selector = np.zeros((len(outputs), len(groups)))
    for column, (_, output) in enumerate(groups):
        selector[output, column] = 1.0
    lines = np.array([line for layer in layers for line in layer])
    used = np.any(lines != 0.0, axis=0)
    exponents, decays = np.array(form.basis.exponents), np.array(form.basis.decays)
    polynomial = used[: len(exponents)]
    return Table(
        exponents[polynomial], decays[used[len(exponents) :]], lines[:, used], tuple(map(len, layers)), selector
    )
