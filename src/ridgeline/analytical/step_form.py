"""A whole model's step as a short table of polynomials, so that millions of points cost little more than reading them.

The counts of nearly every operation are polynomials of the point (sequences, q_length, kv_length): a product of ``T``
tokens has ``2 T n k`` operations and ``c + d T`` bytes. This module finds those polynomials by asking the operations'
own formulas at a few small points, where the finite differences are exact in float64, and checks them against the
formulas on rows of the sweep. No formula is written a second time, and an operation that is no polynomial (a
window that only some rows reach) is left to its formula, row by row. One more family has a monomial of its own: how
many different rows of N are drawn, N (1 - (1 - k/N)^T), is a "decay" (1 - k/N)^T beside constants.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ridgeline.analytical.collectives import Transfer
from ridgeline.analytical.kernel_shape import KernelShape
from ridgeline.analytical.work import RateKey, Work

AGREEMENT = 1e-12
"""Largest relative difference between an operation's formula and its polynomial on the rows that are checked."""
DECAY_AGREEMENT = 1e-9
"""The same for a decay. Where few of many rows are drawn, N (1 - (1 - 1/N)^T) itself is only good to eleven digits."""
CHECKED_ROWS = 64


class Counted(Protocol):
    """An operation of a step, done ``count`` times (:class:`ridgeline.analytical.architectures.operations.Operation`)."""

    @property
    def name(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def work(self) -> Work: ...
    @property
    def count(self) -> Any: ...
    @property
    def fusible(self) -> bool: ...
    @property
    def transfer(self) -> Transfer | None: ...
    @property
    def items(self) -> Any: ...
    @property
    def kernel(self) -> KernelShape | None: ...


OperationsOf = Callable[[Any, Any, Any], Sequence[Counted]]
"""The operations of one step for columns of sequences, query lengths and key lengths."""
MemoryBytesOf = Callable[[Any, Any, Any], Any]
"""Bytes that one device must hold, for the same columns."""


@dataclass(frozen=True)
class Points:
    """Points of a step: float64 columns of one length."""

    sequences: Any
    q_length: Any
    kv_length: Any

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def columns(self) -> tuple[Any, Any, Any]:
        """The three columns in order."""
        return self.sequences, self.q_length, self.kv_length

    def rows(self, which: Any) -> Points:
        """Some of the points: a slice or an index column."""
        return Points(*(column[which] for column in self.columns))


@dataclass(frozen=True)
class Basis:
    """Monomials sequences^a q_length^b kv_length^c that the counts are sums of."""

    exponents: tuple[tuple[int, int, int], ...]
    decays: tuple[float, ...]
    """Further monomials decay^(sequences q_length)."""
    nodes: Points
    """Where the formulas are asked; row-major over the three variables' nodes."""
    inverse: Any
    """From values at the nodes to coefficients of the exponents: the inverse Vandermonde matrices of the three variables'
    nodes, multiplied out."""

    def monomials(self, points: Points) -> Any:
        """float64 [monomials, points]."""
        return monomials(self.exponents, self.decays, points)

    def coefficients(self, values: Any) -> Any:
        """Coefficients, float64 [monomials], of the polynomial through ``values`` at the nodes."""
        found = np.zeros(len(self.exponents) + len(self.decays))
        np.dot(self.inverse, np.broadcast_to(values, (len(self.nodes),)), out=found[: len(self.exponents)])
        return found

    def with_decays(self, values: Any, rows: Any) -> Any:
        """Coefficients of the sum of a constant, sequences, tokens and decays that fits ``values`` best.

        Args:
            values: positive, one for each row.
            rows: monomials, float64 [monomials, rows].
        """
        tokens = (1, 1, 0) if (1, 1, 0) in self.exponents else (1, 0, 0)
        wanted = [i for i, e in enumerate(self.exponents) if e in ((0, 0, 0), (1, 0, 0), tokens)]
        wanted += range(len(self.exponents), len(rows))
        truth = np.broadcast_to(values, rows.shape[1:])
        scale = np.max(rows[wanted], axis=1)
        relative = rows[wanted] / scale[:, None] / truth
        found = np.zeros(len(rows))
        found[wanted] = np.linalg.lstsq(relative.T, np.ones(len(truth)))[0] / scale
        return found


def monomials(exponents: Sequence[Sequence[int]], decays: Sequence[float], points: Points) -> Any:
    """sequences^a q_length^b kv_length^c of every (a, b, c), then the decays: float64 [monomials, points]."""
    out = np.ones((len(exponents) + len(decays), len(points)))
    for row, decay in zip(out[len(exponents) :], decays, strict=True):
        # exp of the logarithm: numpy's power takes five times as long.
        np.exp(np.log(decay) * (points.sequences * points.q_length), out=row)
    for row, powers in zip(out, exponents, strict=False):
        for column, power in zip(points.columns, powers, strict=True):
            for _ in range(power):
                row *= column
    return out


def basis_for(points: Points, decays: Sequence[float] = (), at_rows: bool = False) -> Basis:
    """The basis that fits ``points``: linear in sequences, quadratic in q_length, linear in kv_length.

    A variable that is the same in all rows is a constant of the basis; where every query is also a key (q_length =
    kv_length in all rows) kv_length follows q_length. Nodes are 1, 2, 3 times the largest number that divides all rows
    (a cache that is held in pages is linear in whole pages), where finite differences of counts are exact; ``at_rows``
    moves them to the smallest values of the rows, for formulas that are different there.
    """
    tied = bool(np.array_equal(points.q_length, points.kv_length))
    nodes, steps = [], []
    for column, degree in zip(points.columns, (1, 2, 0 if tied else 1), strict=True):
        low, step = float(np.min(column)), _common_step(column)
        steps.append(step)
        if low == float(np.max(column)):
            nodes.append(np.array([low]))
        else:
            nodes.append((low if at_rows else step) + step * np.arange(degree + 1.0))
    if not tied and len(nodes[2]) > 1:
        # Causal masks are aligned to the last key: a query without a key follows another formula.
        first = np.ceil(nodes[1][-1] / steps[2]) * steps[2]
        nodes[2] = np.maximum(nodes[2][0], first) + steps[2] * np.arange(2.0)
    grid = [column.reshape(-1) for column in np.meshgrid(*nodes, indexing="ij")]
    at = Points(grid[0], grid[1], grid[1] if tied else grid[2])
    a, b, c = (_inverse_vandermonde(each) for each in nodes)
    exponents = tuple(itertools.product(range(len(nodes[0])), range(len(nodes[1])), range(len(nodes[2]))))
    return Basis(exponents, tuple(decays), at, np.kron(a, np.kron(b, c)))


@dataclass(frozen=True)
class OperationForm:
    """Counts of one operation, all its repetitions together, as coefficients over a basis."""

    name: str
    family: str
    fusible: bool
    repeated: float
    operations: Mapping[RateKey, Any]
    bytes: Any
    launches: Any
    items: Any
    transfer: Transfer | None
    """What it sends each time, where it is a collective; its message is coefficients, too."""


@dataclass(frozen=True)
class StepForm:
    """A step of a model on a layout, for the points of one sweep; it knows no device."""

    basis: Basis
    forms: tuple[OperationForm, ...]
    opaque: tuple[int, ...]
    """Positions of the operations that are no polynomials."""
    operations_of: OperationsOf
    memory: Any
    """Coefficients of the bytes that one device must hold; ``None`` where they are no polynomial."""
    memory_bytes_of: MemoryBytesOf


def decay(population: float, drawn: float = 1.0) -> float:
    """The decay of how many of ``population`` are among ``drawn`` for each token: vocabulary rows, distinct experts."""
    return 1.0 - drawn / population


def step_form(
    operations_of: OperationsOf, memory_bytes_of: MemoryBytesOf, points: Points, decays: Sequence[float] = ()
) -> StepForm:
    """Find the polynomials of a step's counts, and check them on rows of ``points``.

    Args:
        decays: decays that counts of this model may hold (:func:`decay`).
    """
    checked = points.rows(_rows_to_check(points))
    truth, held = operations_of(*checked.columns), memory_bytes_of(*checked.columns)
    forms: dict[int, OperationForm] = {}
    opaque = tuple(range(len(truth)))
    memory = None
    for at_rows in (False, True):
        if at_rows and not opaque and memory is not None:
            break
        basis = basis_for(points, decays, at_rows)
        if opaque:
            at_nodes, rows = operations_of(*basis.nodes.columns), basis.monomials(checked)
            found = {i: _form(at_nodes[i], basis) for i in opaque}
            forms |= {i: form for i, form in found.items() if _agrees(form, truth[i], rows)}
            opaque = tuple(i for i in opaque if i not in forms)
        if memory is None:
            candidate = basis.coefficients(memory_bytes_of(*basis.nodes.columns))
            memory = candidate if _equal(candidate @ basis.monomials(checked), held) else None
    if opaque and decays:
        rows = basis.monomials(checked)
        found = {i: _form_with_decays(truth[i], basis, rows) for i in opaque}
        forms |= {i: form for i, form in found.items() if _agrees(form, truth[i], rows, DECAY_AGREEMENT)}
        opaque = tuple(i for i in opaque if i not in forms)
    ordered = tuple(forms[i] for i in sorted(forms))
    return StepForm(basis, ordered, opaque, operations_of, memory, memory_bytes_of)


def _form(operation: Counted, basis: Basis) -> OperationForm:
    return _counts(operation, basis.coefficients)


def _form_with_decays(operation: Counted, basis: Basis, rows: Any) -> OperationForm:
    def fitted(count: Any) -> Any:
        zero = not np.any(count)
        return np.zeros(len(rows)) if zero else basis.with_decays(count, rows)

    return _counts(operation, fitted)


def _counts(operation: Counted, coefficients: Callable[[Any], Any]) -> OperationForm:
    work = operation.work * operation.count
    transfer = operation.transfer
    if transfer is not None:
        transfer = dataclasses.replace(transfer, message_bytes=coefficients(transfer.message_bytes))
    return OperationForm(
        operation.name,
        operation.family,
        operation.fusible,
        float(operation.count),
        {key: coefficients(count) for key, count in work.operations.items()},
        coefficients(work.bytes),
        coefficients(work.launches),
        coefficients(operation.items * operation.count),
        transfer,
    )


def _agrees(form: OperationForm, operation: Counted, rows: Any, tolerance: float = AGREEMENT) -> bool:
    work = operation.work * operation.count
    pairs = [(form.operations[key], count) for key, count in work.operations.items()]
    pairs += [(form.bytes, work.bytes), (form.launches, work.launches), (form.items, operation.items * operation.count)]
    if form.transfer is not None and operation.transfer is not None:
        pairs.append((form.transfer.message_bytes, operation.transfer.message_bytes))
    return all(_equal(coefficients @ rows, truth, tolerance) for coefficients, truth in pairs)


def _equal(found: Any, truth: Any, tolerance: float = AGREEMENT) -> bool:
    # np.allclose says the same in five times the time, which is a third of what a sweep does once for each combination.
    return bool(np.all(np.abs(found - truth) <= tolerance * np.abs(truth)))


def _rows_to_check(points: Points) -> Any:
    """Rows where each column, and the products that counts are made of, are smallest and largest; and some others."""
    b, q, kv = points.columns
    measures = (b, q, kv, b * q, b * kv, b * q * kv, kv - q)
    extreme = [pick(measure) for measure in measures for pick in (np.argmin, np.argmax)]
    others = np.random.default_rng(0).integers(0, len(points), CHECKED_ROWS)
    return np.unique(np.concatenate([np.array(extreme, dtype=np.int64), others]))


def _common_step(column: Any) -> float:
    """The largest whole number that divides every value; 1.0 where the values are no whole numbers."""
    whole = np.asarray(column).astype(np.int64)
    return float(np.gcd.reduce(whole)) if np.array_equal(whole, column) else 1.0


def _inverse_vandermonde(nodes: Any) -> Any:
    """Of up to three evenly spaced nodes; their inverse holds multiples of 1 / (2 step^2), so rounding is taken off."""
    if len(nodes) == 1:
        return np.ones((1, 1))
    unit = 2.0 * (nodes[1] - nodes[0]) ** 2
    return np.round(np.linalg.inv(np.vander(nodes, increasing=True)) * unit) / unit
