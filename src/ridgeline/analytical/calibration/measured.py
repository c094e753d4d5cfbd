"""Measured rows of the public tables, past the gate, as models take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.analytical.calibration.gate import Gated, gate
from ridgeline.analytical.calibration.public_tables import PublicTable, public_tables, read_table
from ridgeline.analytical.calibration.shapes import Rows, rows_of
from ridgeline.analytical.calibration.splits import group_ids
from ridgeline.analytical.device import Device
from ridgeline.analytical.limits import LimitError, cache_bytes

SIZES: Mapping[str, tuple[str, ...]] = {
    "gemm": ("m", "n", "k"),
    "attention prefill": ("batch", "q_heads", "kv_heads", "q_length", "kv_length", "head_dim"),
    "attention decode": ("batch", "q_heads", "kv_heads", "q_length", "kv_length", "head_dim"),
}


@dataclass(frozen=True, kw_only=True)
class TableCheck:
    """What the gate said of a table, in one precision."""

    table: PublicTable
    precision: str
    columns: Mapping[str, Any]
    """Of the rows in that precision."""
    gated: Gated
    rows: Rows
    """All of them, quarantined ones included."""
    larger: int
    """Rows whose working set exceeds the last-level cache."""
    under_bound: int
    """Those of them that lie under the bound."""
    under_warm_bound: int
    """Those that lie under the bound that holds in any state of the cache."""

    @property
    def passed(self) -> Rows:
        """The rows that are fit to calibrate on."""
        return self.rows.take(self.gated.passed)


def check_table(table: PublicTable, device: Device, precision: str, limit: int | None = None) -> TableCheck | None:
    """Read a table and put its rows of one precision through the gate; ``None`` where it has none.

    Args:
        table: which.
        device: with its ceilings.
        precision: of the operands and of what is stored.
        limit: at most so many rows, evenly over the table.

    Raises:
        PublicTableError: for a table that cannot be read.
        LimitError: where the device lacks the precision.
    """
    columns = read_table(table)
    # A GEMM that quantises its weights in blocks is another kernel than one that does not: only plain formats here.
    plain = {"bfloat16": "bfloat16", "fp8": "float8_e4m3fn"}
    own = [
        precision == a == w and plain.get(f) == precision
        for a, w, f in zip(columns["precision"], columns["stored"], columns["format"], strict=True)
    ]
    chosen = np.flatnonzero(own)
    if limit is not None and len(chosen) > limit:
        chosen = chosen[np.linspace(0, len(chosen) - 1, limit).astype(int)]
    if len(chosen) == 0:
        return None
    columns = {name: values[chosen] for name, values in columns.items()}
    columns["software"] = np.full(len(chosen), table.backend, dtype=object)
    sane = {name: np.maximum(columns[name], 1.0) for name in SIZES[table.family]}
    rows = rows_of(table.family, {**columns, **sane}, device, precision)
    labels = group_ids(columns["window"]) if "window" in columns else None
    result = gate(
        {name: columns[name] for name in SIZES[table.family]},
        rows.seconds,
        rows.warm_bound_s,
        rows.working_set_bytes,
        cache_bytes(device),
        labels=labels,
        variant=group_ids(columns["kernel"].astype(str)),
        version_agrees=columns["version_agrees"],
    )
    large = rows.working_set_bytes > cache_bytes(device)
    return TableCheck(
        table=table,
        precision=precision,
        columns=columns,
        gated=result,
        rows=rows,
        larger=int(np.count_nonzero(large)),
        under_bound=int(np.count_nonzero(large & (rows.seconds < rows.bound_s))),
        under_warm_bound=int(np.count_nonzero(large & (rows.seconds < rows.warm_bound_s))),
    )


def measured_rows(
    root: Path, devices: Mapping[str, Device], family: str, system: str, precision: str = "bfloat16",
    limit: int | None = None, backend: str | None = None,
) -> Rows | None:  # fmt: skip
    """Rows of every clean table of a family on a system, past the gate; ``None`` where there are none.

    Args:
        root: from :func:`~ridgeline.analytical.calibration.public_tables.require_data_root`.
        devices: the catalogue.
        family, system: which.
        precision: of operands and stored values.
        limit: at most so many rows of each table.
        backend: only this software's.
    """
    parts = []
    for table in public_tables(root, family=family, system=system, backend=backend, clean=True):
        device = devices.get(table.device_id)
        if device is None:
            continue
        try:
            checked = check_table(table, device, precision, limit)
        except LimitError:
            return None
        if checked is not None:
            parts.append(checked.passed)
    return concatenate(parts) if parts else None


def concatenate(parts: list[Rows]) -> Rows:
    """Rows of several tables of one family after one another."""
    first = parts[0]
    names = [name for name in first.__dataclass_fields__ if name != "family"]
    return Rows(family=first.family, **{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})
