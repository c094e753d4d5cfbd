"""CSV as profilers write it: strict, with the number of the line for messages."""

from __future__ import annotations

import csv
import io

from ridgeline.results.durable import StoreError


def read_rows(text: str, header_has: tuple[str, ...], origin: str, made_by: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table that begins where a line has all columns of ``header_has``.

    Args:
        text: the file. Lines before the header, and lines of ``==PROF==`` messages, are passed over.
        header_has: columns that tell the header.
        origin: the file, for messages.
        made_by: how such a file is made, for messages.

    Raises:
        StoreError: where there is no such header, or a row has not as many fields as it, as where the file is cut off.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("==")]
    begin = next((i for i, line in enumerate(lines) if set(header_has) <= set(_fields(line))), None)
    if begin is None:
        raise StoreError(f"{origin}: no line with the columns {', '.join(header_has)}: {made_by}")
    try:
        rows = list(csv.reader(io.StringIO("\n".join(lines[begin:])), strict=True))
    except csv.Error as error:
        raise StoreError(f"{origin}: not CSV, or cut off: {error}") from None
    header, body = [name.strip() for name in rows[0]], rows[1:]
    if len(set(header)) != len(header):
        raise StoreError(f"{origin}: a column occurs twice")
    for number, row in enumerate(body, start=1):
        if len(row) != len(header):
            raise StoreError(
                f"{origin}: row {number} has {len(row)} fields, not {len(header)}: cut off, or not of this tool"
            )
    return header, body


def _fields(line: str) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([line]), [])]
    except csv.Error:
        return []
