"""Measurements as text for other programs: CSV and JSON, with the stored names of columns."""

from __future__ import annotations

import csv
import io
import json

from ridgeline.results.store import Store
from ridgeline.results.views import COLUMNS, rows


def export_csv(store: Store, run_id: str | None = None) -> str:
    """A header and a line for every measurement; an empty field is a missing value, parts and lists are JSON text.

    Raises:
        StoreError: where the store, or the run that was asked for, cannot be read.
    """
    sink = io.StringIO()
    writer = csv.DictWriter(sink, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows(store, run_id):
        writer.writerow({k: json.dumps(v) if isinstance(v, dict | list | tuple) else v for k, v in row.items()})
    return sink.getvalue()


def export_json(store: Store, run_id: str | None = None) -> str:
    """One JSON list with an object for every measurement.

    Raises:
        StoreError: where the store, or the run that was asked for, cannot be read.
    """
    return json.dumps(rows(store, run_id), indent=1, allow_nan=False) + "\n"
