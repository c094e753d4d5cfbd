"""Records as Parquet: scalars as columns, samples as lists, fixed parts as structs, free-form mappings as JSON text.

Reading a file back gives the same records. pyarrow is imported when it is used: ``import ridgeline.results.store``
stays cheap for commands that need no table.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from ridgeline.results.durable import StoreError, one_line, storage_error
from ridgeline.results.fact import SCHEMA_VERSION, StoredRecord
from ridgeline.results.record import KINDS, Record, RecordError, record_from_dict

if TYPE_CHECKING:
    import pyarrow as pa

GOOD = frozenset({"ok", "passed"})
"""Statuses of records that are as they should be."""

VERSION_KEY = b"ridgeline.schema_version"
"""Key of the Parquet metadata that holds the schema version of the records."""


@cache
def schema() -> pa.Schema:
    """Columns of ``records.parquet``: the fields of every kind of record; a kind leaves those of the others empty."""
    import pyarrow as pa

    columns: dict[str, pa.DataType] = {}
    for model in KINDS.values():
        for name, column in _fields(model).items():
            if columns.setdefault(name, column) != column:
                raise TypeError(f"two kinds of records give the column {name} different types")
    return pa.schema(list(columns.items()), metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()})


def _fields(model: type[BaseModel]) -> dict[str, pa.DataType]:
    return {name: _type(field.annotation) for name, field in model.model_fields.items()}


def _type(annotation: Any) -> pa.DataType:
    """The Parquet type of a field: structs for fixed parts, lists for tuples, JSON text for what holds mappings."""
    import pyarrow as pa

    if _holds_mapping(annotation):
        return pa.string()
    scalars = {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
    if annotation in scalars:
        return scalars[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return pa.string()
    if origin in (Union, UnionType):
        (inner,) = [argument for argument in arguments if argument is not NoneType]
        return _type(inner)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return pa.list_(_type(arguments[0]))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(_fields(annotation))
    raise TypeError(f"no Parquet type for {annotation}")


@cache
def _mappings(model: type[BaseModel]) -> tuple[str, ...]:
    """Fields that hold mappings, whose keys differ from record to record: structs would make files of other columns."""
    return tuple(name for name, field in model.model_fields.items() if _holds_mapping(field.annotation))


def _holds_mapping(annotation: Any) -> bool:
    if get_origin(annotation) is dict:
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(_holds_mapping(field.annotation) for field in annotation.model_fields.values())
    return get_origin(annotation) is not Literal and any(map(_holds_mapping, get_args(annotation)))


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
    for record, row in zip(records, rows, strict=True):
        unknown = set(row) - known
        if unknown:
            raise StoreError(f"{origin}: no column for {', '.join(sorted(unknown))}: add its kind to record.KINDS")
        for name in _mappings(type(record)):
            row[name] = None if row[name] is None else json.dumps(row[name], allow_nan=False)
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
        name = "kind"
        try:
            model = KINDS.get(row[name], StoredRecord)
            # Columns of other kinds are empty here; one that is none of ours was written by a newer schema or by hand.
            row = {key: value for key, value in row.items() if value is not None or key in model.model_fields}
            for name in _mappings(model):
                if row.get(name) is not None:
                    row[name] = json.loads(row[name])
            row = {key: value for key, value in row.items() if value is not None or _takes_none(model, key)}
            records.append(record_from_dict(row, f"{path}: row {number}"))
        except RecordError as error:
            raise StoreError(str(error)) from None
        except (TypeError, ValueError) as error:
            raise StoreError(f"{path}: row {number}: {name}: {one_line(error)}") from None
    return records


@cache
def _takes_none(model: type[BaseModel], name: str) -> bool:
    return NoneType in get_args(model.model_fields[name].annotation)


def count_records(path: Path) -> tuple[int, int]:
    """Rows of a Parquet file, and those of status ``ok`` or, of checks, ``passed``.

    Raises:
        StoreError: as :func:`read_parquet`, as far as the footer and the status column show it.
    """
    status = _read(path, ["status"]).column("status")
    return len(status), sum(1 for value in status.to_pylist() if value in GOOD)


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
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter for a footer whose names are no text
        raise StoreError(f"{path}: damaged: {one_line(error)}") from None
    except OSError as error:
        if error.errno is None:  # pyarrow raises a bare OSError for pages that do not decode
            raise StoreError(f"{path}: damaged: {one_line(error)}") from None
        raise storage_error(path, error) from None
