"""Records as Parquet: scalars as columns, samples as lists, fixed parts as structs, free-form mappings as JSON text.

Reading a file back gives the same records. pyarrow is imported when it is used: ``import ridgeline.results.store``
stays cheap for commands that need no table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ridgeline.results.durable import StoreError, one_line, storage_error
from ridgeline.results.record import SCHEMA_VERSION, Record, RecordError, record_from_dict

if TYPE_CHECKING:
    import pyarrow as pa

VERSION_KEY = b"ridgeline.schema_version"
"""Key of the Parquet metadata that holds the schema version of the records."""

_JSON_TEXT = ("problem", "structure_figures")
"""Mappings whose keys differ from operator to operator: as structs they would make files of different columns."""


def schema() -> pa.Schema:
    """Columns of ``records.parquet``."""
    import pyarrow as pa

    text, real, whole = pa.string(), pa.float64(), pa.int64()
    columns: dict[str, pa.DataType] = {
        "kind": text,
        "schema_version": whole,
        "record_id": text,
        "run_id": text,
        "started_at": text,
        "role": text,
        "case_id": text,
        "content_key": text,
        "operator": text,
        "implementation": text,
        "baseline": text,
        "problem": text,
        "problem_label": text,
        "papers": pa.list_(text),
        "structure_figures": text,
        "structure_digest": text,
        "placement": pa.struct({"device": text, "torch_device": text, "unit": text, "ranks": whole}),
        "protocol": pa.struct({"timer": text, "cache": text, "threads": whole, "version": whole}),
        "process": whole,
        "status": text,
        "reason": text,
        "samples_s": pa.list_(pa.list_(real)),
        "launches_per_sample": whole,
        "error_relative": real,
        "error_worst": real,
        "error_tolerance": real,
        "rows_checked": whole,
        "prepare_s": real,
        "working_set_bytes": real,
        "peak_memory_bytes": real,
        "roofs_beside": pa.list_(pa.struct({"limit": text, "values_per_s": pa.list_(real)})),
        "interference": pa.struct({"steal_s": real, "involuntary_switches": whole}),
        "energy_j": real,
        "energy_reason": text,
    }
    return pa.schema(list(columns.items()), metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()})


def to_parquet(records: list[Record], origin: str) -> bytes:
    """A Parquet file of ``records``, with page checksums.

    Raises:
        StoreError: where a record has a field or a value that the columns cannot hold.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = schema()
    known = set(columns.names)
    rows = [record.model_dump(mode="python") for record in records]
    for row in rows:
        unknown = set(row) - known
        if unknown:
            raise StoreError(f"{origin}: no column for {', '.join(sorted(unknown))}: add it to columns.schema()")
        for name in _JSON_TEXT:
            row[name] = json.dumps(row[name], allow_nan=False)
    sink = pa.BufferOutputStream()
    try:
        table = pa.Table.from_pylist(rows, schema=columns)
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    except (pa.ArrowException, OverflowError) as error:
        raise StoreError(f"{origin}: {one_line(error)}") from None
    return bytes(sink.getvalue().to_pybytes())


def read_parquet(path: Path) -> list[Record]:
    """The records of a Parquet file.

    Raises:
        StoreError: for a file that cannot be read, is truncated or damaged, was written by a newer schema, or holds a
            row that is no record.
    """
    table = _read(path, None)
    rows = table.to_pylist()
    records = []
    for number, row in enumerate(rows, start=1):
        try:
            for name in _JSON_TEXT:
                if name in row:
                    row[name] = json.loads(row[name])
            records.append(record_from_dict(row, f"{path}: row {number}"))
        except RecordError as error:
            raise StoreError(str(error)) from None
        except (TypeError, ValueError) as error:
            raise StoreError(f"{path}: row {number}: {name}: {one_line(error)}") from None
    return records


def count_records(path: Path) -> tuple[int, int]:
    """Rows of a Parquet file, and those of status ``ok``.

    Raises:
        StoreError: as :func:`read_parquet`, as far as the footer and the status column show it.
    """
    status = _read(path, ["status"]).column("status")
    return len(status), sum(1 for value in status.to_pylist() if value == "ok")


def _read(path: Path, columns: list[str] | None) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            version = (file.schema_arrow.metadata or {}).get(VERSION_KEY)
            if version is None or not version.isdigit():
                raise StoreError(f"{path}: not a file of records: it states no schema version")
            if int(version) > SCHEMA_VERSION:
                raise StoreError(
                    f"{path}: schema {int(version)} is newer than this Ridgeline reads ({SCHEMA_VERSION}): "
                    "upgrade ridgeline"
                )
            return file.read(columns=columns)
    except pa.ArrowException as error:
        raise StoreError(f"{path}: damaged: {one_line(error)}") from None
    except OSError as error:
        if error.errno is None:  # pyarrow raises a bare OSError for pages that do not decode
            raise StoreError(f"{path}: damaged: {one_line(error)}") from None
        raise storage_error(path, error) from None
