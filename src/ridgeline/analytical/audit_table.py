"""Someone else's benchmark table, held against the bounds: columns by their usual names, verdicts by line.

The table is a CSV file with a header. Rows are judged in columns (:mod:`ridgeline.analytical.audit`), one group for
each precision; a row keeps the number of its line, so that a finding can be looked up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.analytical import audit
from ridgeline.analytical.benchmark_table import AuditError, BenchmarkTable, read_benchmark
from ridgeline.analytical.device import Device
from ridgeline.analytical.limits import LimitError
from ridgeline.analytical.quantities import BITS
from ridgeline.analytical.work import Work

UNREADABLE = "bad row: a cell that is needed cannot be read"
OTHER_UNITS = "wrong units: the table as a whole is in another unit of time"


@dataclass(frozen=True)
class Finding:
    """A row that is not as its label says."""

    line: int
    cause: str
    measured_s: float | None
    """``None`` where the time is no positive number."""
    bound_s: float | None
    times_faster: float | None
    """Bound over measured time; ``None`` where one of them is missing."""
    impossible: bool
    """False where operands in the cache explain it."""


@dataclass(frozen=True)
class Audit:
    """What an audit found."""

    device: str
    operator: str
    columns: Mapping[str, str]
    """Parameter to the column (or ``= value``) that it was read from."""
    rows: int
    findings: tuple[Finding, ...]
    not_judged: Mapping[str, int]
    """Reason to rows for which the device states no bound."""
    unit_factor: float | None
    """What all times must be multiplied by, where the table as a whole is in another unit."""
    median_of_bound: float | None
    """Median over the judged rows of bound over measured time: how close to the roof the table says it came."""

    @property
    def impossible(self) -> int:
        """Rows that no cache explains."""
        return sum(f.impossible for f in self.findings)

    @property
    def counts(self) -> dict[str, int]:
        """Findings by cause."""
        totals: dict[str, int] = {}
        for finding in self.findings:
            totals[finding.cause] = totals.get(finding.cause, 0) + 1
        return totals


def audit_table(
    path: Path,
    operator: str,
    device: Device,
    *,
    mapping: Mapping[str, str] | None = None,
    values: Mapping[str, str] | None = None,
    time_unit: str | None = None,
) -> Audit:
    """Judge every row of the CSV file at ``path``.

    Args:
        operator: gemm, attention or stream (:data:`~ridgeline.analytical.benchmark_table.OPERATORS`).
        device: where the table says it was measured; its physical ceilings judge (:func:`audit.physical`).
        mapping: column to parameter (``time`` and ``precision`` included), over what is guessed.
        values: parameter to the value of every row, for what no column says; or to the parameter that it equals.
        time_unit: ``s``, ``ms``, ``us`` or ``ns``; default what the column's name ends in.

    Raises:
        AuditError: for a file that cannot be read, an unknown operator, column or unit, a parameter without a column,
            or a table of which the device can judge no row.
    """
    table = read_benchmark(path, operator, mapping=mapping, values=values, time_unit=time_unit)
    lines, measured_s, parsed = table.lines, table.measured_s, table.parameters
    where = audit.physical(device)
    bound_s = np.full(len(lines), np.nan)
    cause = np.full(len(lines), "", dtype=object)
    impossible = np.zeros(len(lines), dtype=bool)
    not_judged: dict[str, int] = {}
    missing = ~np.all([np.isfinite(column) for column in (*parsed.values(), measured_s)], axis=0)
    for precision in dict.fromkeys(table.precisions):
        at = np.flatnonzero([p == precision for p in table.precisions])
        columns = {name: np.where(missing[at], 1.0, column[at]) for name, column in parsed.items()}
        try:
            bounds, verdicts = _judged(table, columns, precision, where, measured_s[at])
        except LimitError as error:
            not_judged[str(error)] = len(at)
            continue
        bound_s[at] = np.where(missing[at], np.nan, bounds)
        cause[at] = [UNREADABLE if gone else verdicts.cause(i) for i, gone in enumerate(missing[at])]
        impossible[at] = verdicts.impossible | missing[at]
    if sum(not_judged.values()) == len(lines):
        raise AuditError(f"{path}: {'; '.join(not_judged)}")

    factor = audit.unit_factor(measured_s, np.where(missing, 0.0, bound_s))
    if factor is not None and factor > 1.0:
        cause = np.where(impossible & np.isfinite(bound_s) & (measured_s > 0.0), OTHER_UNITS, cause)
    return Audit(
        device=device.id,
        operator=operator,
        columns=table.sources,
        rows=len(lines),
        findings=_findings(lines, cause, measured_s, bound_s, impossible),
        not_judged=not_judged,
        unit_factor=factor,
        median_of_bound=_median(bound_s, measured_s),
    )


def _judged(
    table: BenchmarkTable, columns: Mapping[str, Any], precision: str, device: Device, measured_s: Any
) -> tuple[Any, audit.Verdicts]:
    if precision not in BITS:
        raise LimitError(f"unknown precision {precision!r}: one of {', '.join(BITS)}, or a usual short name of one")

    def work_of(other: str) -> Work:
        return table.operator.work(columns, other)

    others = {}
    if "causal" in columns and np.any(columns["causal"] == 0.0):
        masked = {**columns, "causal": np.ones_like(columns["causal"])}
        others["wrong label: possible with a causal mask"] = table.operator.work(masked, precision)
    bounds = audit.bound_s(work_of(precision), device)
    explained = audit.explanations(work_of, precision, device, others)
    return bounds, audit.judge(measured_s, bounds, sizes=[columns[s] for s in table.sizes], explanations=explained)


def _findings(lines: Sequence[int], cause: Any, measured_s: Any, bound_s: Any, impossible: Any) -> tuple[Finding, ...]:
    found = []
    for row in np.flatnonzero(cause != ""):
        time = float(measured_s[row]) if np.isfinite(measured_s[row]) and measured_s[row] > 0.0 else None
        # A row without a size has no bound, whatever the formulas make of the rest of it.
        has_bound = np.isfinite(bound_s[row]) and bound_s[row] > 0.0 and cause[row] not in (audit.BAD_SIZE, UNREADABLE)
        least = float(bound_s[row]) if has_bound else None
        times = None if time is None or least is None else least / time
        found.append(Finding(lines[int(row)], str(cause[row]), time, least, times, bool(impossible[row])))
    return tuple(found)


def _median(bound_s: Any, measured_s: Any) -> float | None:
    judged = np.isfinite(bound_s) & np.isfinite(measured_s) & (measured_s > 0.0)
    return float(np.median(bound_s[judged] / measured_s[judged])) if judged.any() else None
