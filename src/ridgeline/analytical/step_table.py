"""A step on a device: seconds of bound and prediction, and bytes held, as sums of maxima of few polynomials.

Every count of a :class:`~ridgeline.analytical.step_form.StepForm` becomes seconds. Within one operation, a limit that no
point can make the longest is dropped; operations with a single limit left add up to one polynomial. numpy evaluates the
table that remains chunk by chunk; numba, where it is installed, evaluates the same table faster. Both use all threads.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ridgeline.analytical.calibration.three_parameters import ThreeParameters
from ridgeline.analytical.collectives import transfer_time
from ridgeline.analytical.device import Device
from ridgeline.analytical.limits import native_rate
from ridgeline.analytical.step_form import Counted, OperationForm, Points, StepForm, monomials

CHUNK_ROWS = 8192
"""Rows that numpy takes at a time, so that they stay in the second-level cache."""
BLOCK_ROWS = 512
"""Rows that the numba kernel takes at a time."""
SMALL_ROWS = 4 * CHUNK_ROWS
"""Fewer rows are done by one thread: starting another takes longer."""
NUMBA_ROWS = 20_000_000
"""From here on the numba kernel has compiled and caught up with numpy."""

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
            bound, predicted = operation_seconds(operation, self.device, self.parameters, self.substitute)
            bound_s += bound
            predicted_s += predicted


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
        parameters: constants by family of operations; those of the key ``""`` serve every other one.
        capacity_bytes: bytes that the step may hold; default all of the main memory.
        substitute: as in :func:`~ridgeline.analytical.limits.limits`.

    Raises:
        LimitError: for a precision that the device lacks.
        CollectiveError: where it states no link that a collective could take.
    """
    bound, predicted = [], []
    for operation in form.forms:
        by_unit, memory, link = _lines(operation, device, substitute)
        own = _of(parameters, operation.family)
        compute = list(by_unit.values())
        if not operation.fusible:
            bound.append([*compute, *memory, *link])
        slowed = [line / own.compute_share for line in shared(by_unit)] + [line / own.memory_share for line in memory]
        predicted.append([*slowed, *compute, *memory, *link])
        items = operation.items / _units(device)
        predicted.append([operation.launches * own.overhead_s + items * own.item_s])
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
    kernel = _numba_kernel() if chosen_engine(engine, len(points)) == "numba" else _numpy_kernel
    threads = len(os.sched_getaffinity(0))
    share = -(-len(points) // threads)
    parts = [slice(start, start + share) for start in range(0, len(points), share)]
    if len(points) < SMALL_ROWS:
        kernel(table, points, out)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda part: kernel(table, points.rows(part), out[:, part]), parts))
    return out


def chosen_engine(engine: Engine, rows: int) -> Engine:
    """``auto`` is numba where it is installed and ``rows`` are worth the seconds that it compiles, and numpy elsewhere."""
    if engine != "auto":
        return engine
    return "numba" if rows >= NUMBA_ROWS and importlib.util.find_spec("numba") is not None else "numpy"


Kernel = Callable[[Table, Points, Any], None]
"""Fills outputs, float64 [outputs, points], of some points. Both kernels let other threads run."""


def _numpy_kernel(table: Table, points: Points, out: Any) -> None:
    """Few passes over rows in the cache. No BLAS: it would spread so small a product over all threads."""
    selected = [np.flatnonzero(groups) for groups in table.selector]
    values = np.empty((len(table.lines), min(CHUNK_ROWS, len(points))))
    scratch = np.empty(values.shape[1])
    for start in range(0, len(points), CHUNK_ROWS):
        chunk = points.rows(slice(start, start + CHUNK_ROWS))
        rows, n = monomials(table.exponents, table.decays, chunk), len(chunk)
        term = scratch[:n]
        for line, whole in zip(table.lines, values, strict=True):
            value, used = whole[:n], np.flatnonzero(line)
            if not len(used):
                value.fill(0.0)
            for i, k in enumerate(used):
                np.multiply(rows[k], line[k], out=value if i == 0 else term)
                if i > 0:
                    value += term
        first = table.layers[0]
        longest = values[:first, :n]
        for size in table.layers[1:]:
            np.maximum(longest[:size], values[first : first + size, :n], out=longest[:size])
            first += size
        for total, groups in zip(out[:, start : start + n], selected, strict=True):
            total.fill(0.0)
            for group in groups:
                total += longest[group]


@functools.cache
def _numba_kernel() -> Kernel:
    """Compiled at first use (a second or two), for all tables."""
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
        size, polynomial, terms = BLOCK_ROWS, len(exponents), lines.shape[1]
        powers, longest, value = np.empty((terms, size)), np.empty((groups, size)), np.empty(size)
        for first in range(0, len(b), size):
            n = min(size, len(b) - first)
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
                rate = np.log(decays[k - polynomial])
                for r in range(n):
                    powers[k, r] = np.exp(rate * (b[first + r] * q[first + r]))
            for line in range(len(lines)):
                row = longest[line] if line < groups else value
                fresh = True
                for k in range(terms):
                    c = lines[line, k]
                    if c == 0.0:
                        continue
                    if fresh:
                        for r in range(n):
                            row[r] = c * powers[k, r]
                        fresh = False
                    else:
                        for r in range(n):
                            row[r] += c * powers[k, r]
                if fresh:
                    row[:n] = 0.0
                if line >= groups:
                    best = longest[group_of[line]]
                    for r in range(n):
                        best[r] = max(best[r], row[r])
            for output in range(len(out)):
                for r in range(n):
                    out[output, first + r] = 0.0
            for group in range(groups):
                for r in range(n):
                    out[output_of[group], first + r] += longest[group, r]

    whole, column, matrix = numba.int64[::1], numba.float64[::1], numba.float64[:, ::1]
    # Stated, so that it compiles once for a whole output and for a part of one.
    types = (
        numba.int64[:, ::1],
        column,
        matrix,
        whole,
        numba.int64,
        whole,
        column,
        column,
        column,
        numba.float64[:, :],
    )
    compiled: Callable[..., None] = numba.njit(numba.void(*types), nogil=True, fastmath={"contract"})(evaluate_rows)

    def kernel(table: Table, points: Points, out: Any) -> None:
        group_of = np.concatenate([np.arange(size) for size in table.layers])
        columns = [np.ascontiguousarray(column, dtype=np.float64) for column in points.columns]
        output_of = np.argmax(table.selector, axis=0)
        compiled(table.exponents, table.decays, table.lines, group_of, table.layers[0], output_of, *columns, out)

    return kernel


def shared(by_unit: Mapping[str, Any]) -> list[Any]:
    """Seconds of the units that a compute share is of: the matrix unit's, where it takes part."""
    return [by_unit["matrix"]] if "matrix" in by_unit else list(by_unit.values())


def _units(device: Device) -> float:
    """Multiprocessors that items of work are spread over."""
    return float(device.unit_count or 1)


def _of(parameters: Mapping[str, ThreeParameters], family: str) -> ThreeParameters:
    own = parameters.get(family)
    return parameters[""] if own is None else own


def _lines(form: OperationForm, device: Device, substitute: bool) -> tuple[dict[str, Line], list[Line], list[Line]]:
    """Lines of each unit, of main memory and of the link: coefficients of seconds."""
    by_unit: dict[str, Line] = {}
    for key, coefficients in form.operations.items():
        rate = native_rate(device, key, substitute=substitute)
        # A collective's sums are done while it waits for its link (architectures.step counts them so, too).
        if rate is not None and form.transfer is None:
            by_unit[rate.unit] = by_unit.get(rate.unit, 0.0) + coefficients / rate.value_per_s
    bandwidth = device.bandwidth(device.main_memory.name)
    memory = [] if bandwidth is None else [form.bytes / bandwidth.value_per_s]
    link = []
    if form.transfer is not None:
        # Latency and bytes over a bandwidth: two messages tell both.
        message = form.transfer.message_bytes
        at_0, at_1 = (
            float(transfer_time(dataclasses.replace(form.transfer, message_bytes=size), device)) for size in (0.0, 1e9)
        )
        line = message * ((at_1 - at_0) / 1e9)
        line[0] += at_0  # The first monomial is 1.
        link = [line * form.repeated]
    return by_unit, memory, link


def operation_seconds(
    operation: Counted, device: Device, parameters: Mapping[str, ThreeParameters], substitute: bool
) -> tuple[Any, Any]:
    """Bound and prediction of one operation by its formulas: what :func:`_lines` is for one that is no polynomial."""
    work, own = operation.work, _of(parameters, operation.family)
    by_unit: dict[str, Any] = {}
    for key, count in work.operations.items():
        rate = native_rate(device, key, substitute=substitute)
        if rate is not None and operation.transfer is None:
            by_unit[rate.unit] = by_unit.get(rate.unit, 0.0) + count / rate.value_per_s
    compute_s = functools.reduce(np.maximum, by_unit.values(), 0.0)
    bandwidth = device.bandwidth(device.main_memory.name)
    memory_s = 0.0 if bandwidth is None else work.bytes / bandwidth.value_per_s
    link_s = 0.0 if operation.transfer is None else transfer_time(operation.transfer, device)
    least = np.maximum(np.maximum(compute_s, memory_s), link_s)
    slowed = own.seconds(functools.reduce(np.maximum, shared(by_unit), 0.0), memory_s) - own.overhead_s
    each = work.launches * own.overhead_s + operation.items / _units(device) * own.item_s
    predicted = np.maximum(least, slowed) + each
    return (0.0 if operation.fusible else operation.count * least), operation.count * predicted


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
        np.ascontiguousarray(exponents[polynomial]),
        decays[used[len(exponents) :]],
        np.ascontiguousarray(lines[:, used]),
        tuple(map(len, layers)),
        selector,
    )
