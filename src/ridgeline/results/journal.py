"""The journal: records as JSON lines, each on the disk before its measurement counts as done.

A process that is killed at any instant loses at most the line it was writing. One process writes a journal at a time;
the lock of the run sees to that.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import PydanticSerializationError, from_json

from ridgeline.results.durable import SetAside, StoreError, storage_error, sync_folder, write_all
from ridgeline.results.record import Record, RecordError, record_from_dict

TORN_SUFFIX = ".torn"
"""A line that was cut off is moved from ``journal.jsonl`` to ``journal.torn`` when the run continues."""


@dataclass(frozen=True)
class _Scan:
    records: list[Record]
    set_aside: list[SetAside]
    size: int
    """Bytes of whole lines; what follows them was cut off."""
    tail: bytes


def _scan(path: Path) -> _Scan:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise storage_error(path, error) from None
    records: list[Record] = []
    set_aside: list[SetAside] = []
    offset, number = 0, 0
    while offset < len(data):
        number += 1
        origin = f"{path}: line {number}"
        end = data.find(b"\n", offset)
        line = data[offset : end if end >= 0 else len(data)]
        last = end < 0 or end + 1 == len(data)
        try:
            values = from_json(line)
        except ValueError as error:
            values, broken = None, f"not JSON: {error}"
        else:
            broken = "no line end" if end < 0 else ""
        if broken and last:
            # Also where the bytes happen to be whole JSON: without its line end the record was never acknowledged.
            set_aside.append(SetAside(origin, f"cut off while it was written ({broken}); it will be measured again"))
            return _Scan(records, set_aside, offset, data[offset:])
        if broken:
            set_aside.append(SetAside(origin, broken))
        else:
            try:
                records.append(record_from_dict(values, origin))
            except RecordError as error:
                set_aside.append(SetAside(origin, str(error).removeprefix(f"{origin}: ")))
        offset = end + 1
    return _Scan(records, set_aside, offset, b"")


def read_journal(path: Path) -> tuple[list[Record], list[SetAside]]:
    """The records of a journal, and the lines that are none, each with its number and what is wrong.

    Raises:
        StoreError: where the file cannot be read.
    """
    scan = _scan(path)
    return scan.records, scan.set_aside


class Journal:
    """An append-only file of records, opened to begin or to continue it.

    Opening moves a last line that was cut off to ``journal.torn`` beside it, so that the next line starts whole.

    Raises:
        StoreError: where the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[Record] = []
        """Every record in the file, in order."""
        self.set_aside: list[SetAside] = []
        """Whole lines in the file that are no records."""
        self._length = 0
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            sync_folder(path.parent)
            scan = _scan(path)
            self.records, self.set_aside, self._length = scan.records, scan.set_aside, scan.size
            if scan.tail:
                self.set_aside.pop()  # the tail is dealt with here; what stays is in the file
                self._move_away(scan.tail)
        except OSError as error:
            self.close()
            raise storage_error(path, error) from None
        except StoreError:
            self.close()
            raise

    def _move_away(self, tail: bytes) -> None:
        with self.path.with_suffix(TORN_SUFFIX).open("ab") as torn:
            torn.write(tail + b"\n")
            torn.flush()
            os.fsync(torn.fileno())
        sync_folder(self.path.parent)
        os.ftruncate(self._fd, self._length)
        os.fsync(self._fd)

    def append(self, record: Record) -> None:
        """Write ``record`` as one line; when this returns, it is on the disk.

        Raises:
            StoreError: where it could not be written, or holds text that UTF-8 cannot. The file is cut back to the
                lines before it, and a later append may succeed.
        """
        if self._fd < 0:
            raise StoreError(f"{self.path}: the journal is closed")
        try:
            line = record.model_dump_json().encode() + b"\n"
        except PydanticSerializationError:
            # Lone surrogates: what decoding a program's output with errors="surrogateescape" leaves.
            raise StoreError(f"{self.path}: record {record.record_id}: its text is not valid Unicode") from None
        try:
            if os.fstat(self._fd).st_size != self._length:
                # An earlier append failed or was interrupted, and its bytes could not be taken back then.
                os.ftruncate(self._fd, self._length)
            write_all(self._fd, line, self._length)
            os.fsync(self._fd)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._length)
                os.fsync(self._fd)
            raise storage_error(self.path, error) from None
        self._length += len(line)
        self.records.append(record)

    def close(self) -> None:
        """Close the file; every appended record is on the disk already."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
