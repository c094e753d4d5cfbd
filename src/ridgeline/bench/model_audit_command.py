"""``ridgeline model audit``: someone else's benchmark table, held against what the hardware could do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ridgeline.analytical.audit_table import Audit

EXIT_IMPOSSIBLE = 1
SHOWN = 20
"""Findings of each cause that the text names; --json names them all."""


def audit(
    table: Annotated[Path, typer.Argument(help="CSV file with a header: one measurement per row.")],
    operator: Annotated[str, typer.Option("--operator", help="gemm, attention or stream.")],
    device: Annotated[str, typer.Option("--device", help="Id, other name or TOML file of a device.")],
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="COLUMN=PARAMETER, where the name does not tell; repeatable.")
    ] = None,
    values: Annotated[
        list[str] | None, typer.Option("--set", help="PARAMETER=VALUE of every row, such as q_length=1; repeatable.")
    ] = None,
    time_unit: Annotated[
        str | None, typer.Option("--time-unit", help="s, ms, us or ns (default: what the column's name says).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Check a benchmark table against the bounds. Impossible rows are named with their likely cause; exit code 1."""
    from ridgeline.analytical.audit_table import audit_table
    from ridgeline.analytical.catalogue import find_device

    found = audit_table(
        table,
        operator,
        find_device(device),
        mapping=_pairs(mapping or [], "--map", "COLUMN=PARAMETER"),
        values=_pairs(values or [], "--set", "PARAMETER=VALUE"),
        time_unit=time_unit,
    )
    if json:
        import json as json_module

        document = {**dataclasses.asdict(found), "counts": found.counts, "impossible": found.impossible}
        print(json_module.dumps(document, indent=1, allow_nan=False))
    else:
        _show(table, found)
    if found.impossible:
        raise typer.Exit(EXIT_IMPOSSIBLE)


def _show(table: Path, found: Audit) -> None:
    print(f"{table}: {found.rows} rows of {found.operator} on {found.device}")
    print("read as: " + ", ".join(f"{p} {c if c.startswith('=') else f'from {c}'}" for p, c in found.columns.items()))
    if found.unit_factor is not None:
        slower = "short" if found.unit_factor > 1.0 else "long"
        times = found.unit_factor if found.unit_factor > 1.0 else 1.0 / found.unit_factor
        print(f"the times as a whole look {times:.0f} times too {slower}: check the unit of time (--time-unit)")
    for reason, rows in found.not_judged.items():
        print(f"not judged, {rows} rows: {reason}")
    for cause, rows in found.counts.items():
        own = [f for f in found.findings if f.cause == cause]
        verdict = "impossible" if own[0].impossible else "possible"
        print(f"{verdict}, {rows} rows: {cause}")
        for finding in own[:SHOWN]:
            print(f"  line {finding.line}{_faster(finding.measured_s, finding.bound_s)}")
        if rows > SHOWN:
            print(f"  and {rows - SHOWN} more (--json names them all)")
    if found.median_of_bound is not None:
        print(f"median row reaches {100.0 * found.median_of_bound:.1f} % of its bound")
    print(f"{found.impossible} impossible rows of {found.rows}")


def _faster(measured_s: float | None, bound_s: float | None) -> str:
    if measured_s is None or bound_s is None:
        return ""
    times = bound_s / measured_s
    return f": {1e6 * measured_s:.4g} us where {1e6 * bound_s:.4g} us is the least ({times:.3g} times faster)"


def _pairs(texts: list[str], option: str, form: str) -> dict[str, str]:
    from ridgeline.analytical.benchmark_table import AuditError

    pairs = {}
    for text in texts:
        left, separator, right = text.rpartition("=")
        if not (separator and left and right):
            raise AuditError(f"{option} {text}: must be {form}")
        pairs[left.strip()] = right.strip()
    return pairs
