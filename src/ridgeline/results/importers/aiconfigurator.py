"""Published kernel times of aiconfigurator's tables as ``published`` records, a run for each table."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.analytical.calibration.measured import SIZES, TableCheck, check_table
from ridgeline.analytical.calibration.public_tables import (
    DISTRIBUTION,
    FILES,
    LICENCE,
    PublicTable,
    PublicTableError,
    public_tables,
    require_data_root,
    source_version,
)
from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.limits import LimitError
from ridgeline.analytical.quantities import digest
from ridgeline.results.importers.source_file import known_import, now_utc, store_import
from ridgeline.results.published import Published
from ridgeline.results.store import Store, new_run_id

PUBLISHED_SUFFIX = "-published"
DEFAULT_LIMIT = 2000
"""Rows of a table that are imported unless more are asked for: a store keeps records, not columns, and all 12.6 M of them
would fill gigabytes. Calibration reads the tables themselves."""
_PRECISIONS = ("bfloat16", "float8_e4m3fn")


def import_aiconfigurator(
    store: Store,
    *,
    system: str | None = None,
    family: str | None = None,
    backend: str | None = None,
    version: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> list[tuple[str, int, bool]]:
    """Put rows of the installed tables into the store.

    Args:
        store: where.
        system, family, backend, version: only these; ``attention`` means both of its families.
        limit: rows of each table and precision, evenly over it.

    Returns:
        (run, records, whether it was written) of each table; ``False`` where the same rows were imported before.

    Raises:
        PublicTableError: where the tables are not installed, or none is left by what was asked for.
        StoreError: where the store cannot be written.
    """
    root = require_data_root()
    families = [f for f in FILES if f.split()[0] == family] if family == "attention" else [family]
    tables = [t for f in families for t in public_tables(root, family=f, system=system, backend=backend)]
    tables = [t for t in tables if t.device_id and version in (None, t.version)]
    if not tables:
        asked = ", ".join(v for v in (system, family, backend, version) if v)
        raise PublicTableError(f"no table of {asked}: leave out --version, or name another --backend")
    return [_import_table(store, root, table, limit) for table in tables]


def _import_table(store: Store, root: Path, table: PublicTable, limit: int) -> tuple[str, int, bool]:
    source = f"{DISTRIBUTION} {source_version(root)}".strip()
    identity = digest({"tool": DISTRIBUTION, "source": source, "table": table.relative, "limit": limit})
    known = known_import(store, identity)
    if known is not None:
        return known, 0, False
    device = catalogue().get(table.device_id)
    if device is None:
        raise PublicTableError(f"{table.device_id} is not in the catalogue")
    run_id = f"{new_run_id()}{PUBLISHED_SUFFIX}"
    records: list[Published] = []
    for precision in _PRECISIONS:
        try:
            checked = check_table(table, device, precision, limit)
        except LimitError:
            continue  # the device states no rate for it: there is no bound to judge its rows by
        if checked is not None:
            records += _records(checked, run_id, source)
    if not records:
        raise PublicTableError(f"{table.path}: no rows in {' or '.join(_PRECISIONS)}")
    store_import(
        store, run_id=run_id, tool=DISTRIBUTION, identity=identity, records=records, device=None, name=device.name
    )
    return run_id, len(records), True


def _records(checked: TableCheck, run_id: str, source: str) -> list[Published]:
    table, columns = checked.table, checked.columns
    now = now_utc()
    found = []
    for row in range(len(checked.rows)):
        seconds = float(columns["seconds"][row])
        if not (np.isfinite(seconds) and seconds > 0.0):
            continue  # no time: there is nothing to keep, and the gate's count names it
        power = float(columns["power_w"][row])
        problem = _problem(checked, row)
        found.append(
            Published(
                record_id=secrets.token_hex(8),
                run_id=run_id,
                started_at=now,
                source=source,
                source_file=table.relative,
                source_row=int(columns["row"][row]),
                licence=LICENCE,
                tool=table.backend,
                tool_version=table.version,
                kernel=str(columns["kernel"][row]),
                device_id=table.device_id,
                device_text=table.system,
                operator=table.family.split()[0],
                problem=problem,
                problem_label=_label(problem),
                seconds=seconds,
                power_w=power if np.isfinite(power) else None,
                quarantined=checked.gated.text(row),
            )
        )
    return found


def _problem(checked: TableCheck, row: int) -> dict[str, int | float | bool | str]:
    columns = checked.columns
    sizes: dict[str, Any] = {name: int(columns[name][row]) for name in SIZES[checked.table.family]}
    if checked.table.family != "gemm":
        sizes["causal"] = True
        if columns["window"][row] > 0.0:
            sizes["window"] = int(columns["window"][row])
    return {**sizes, "precision": checked.precision}


def _label(problem: dict[str, int | float | bool | str]) -> str:
    if "m" in problem:
        return f"{problem['m']}x{problem['n']}x{problem['k']} {problem['precision']}"
    heads = f"B{problem['batch']} H{problem['q_heads']}/{problem['kv_heads']} T{problem['q_length']}"
    window = f" window {problem['window']}" if "window" in problem else ""
    return f"{heads} S{problem['kv_length']} d{problem['head_dim']}{window} {problem['precision']}"
