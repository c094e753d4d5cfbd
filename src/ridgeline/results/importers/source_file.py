"""Files of other tools: read whole, digested, and turned into a run of the store."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ridgeline.analytical.device import Device
from ridgeline.results.deposit import deposit
from ridgeline.results.durable import StoreError, one_line, storage_error
from ridgeline.results.record import Record
from ridgeline.results.run import RunManifest
from ridgeline.results.store import Store

MOST_BYTES = 2**30
"""Larger files are refused; a profiler's trace of a few calls has megabytes."""


@dataclass(frozen=True)
class SourceFile:
    """A file as it was found."""

    path: Path
    data: bytes
    digest: str
    """SHA-256 of the file, as it lies on the disk."""

    @property
    def name(self) -> str:
        """Its name, without the folder: that may name a person."""
        return self.path.name

    def text(self) -> str:
        """Its text.

        Raises:
            StoreError: where it is not UTF-8.
        """
        try:
            return self.data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise StoreError(f"{self.path}: not text: {one_line(error)}") from None

    def json(self) -> Any:
        """Its JSON.

        Raises:
            StoreError: where it is not JSON, or was cut off.
        """
        try:
            return json.loads(self.text())
        except (json.JSONDecodeError, RecursionError) as error:
            raise StoreError(f"{self.path}: not JSON, or cut off: {one_line(error)}") from None


def read_source(path: Path) -> SourceFile:
    """Read a file of another tool; one that is compressed with gzip is unpacked.

    Raises:
        StoreError: where it cannot be read, is larger than :data:`MOST_BYTES`, or is damaged.
    """
    try:
        with path.open("rb") as file:
            stored = file.read(MOST_BYTES + 1)
        data = stored
        if stored[:2] == b"\x1f\x8b":
            with gzip.open(path) as unpacked:
                data = unpacked.read(MOST_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise StoreError(f"{path}: damaged or cut off: {one_line(error)}") from None
    except OSError as error:
        raise storage_error(path, error) from None
    if max(len(stored), len(data)) > MOST_BYTES:
        raise StoreError(f"{path}: more than {MOST_BYTES // 2**20} MiB: profile fewer calls")
    return SourceFile(path, data, hashlib.sha256(stored).hexdigest())


def now_utc() -> str:
    """The time, ISO 8601, UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def known_import(store: Store, identity: str) -> str | None:
    """The run that an equal import made before, or ``None``.

    Raises:
        StoreError: where the store cannot be read.
    """
    for info in store.runs():
        if info.state == "finished":
            manifest = store.manifest(info.run_id)
            if manifest.imported and manifest.plan_digest == identity:
                return info.run_id
    return None


def store_import(
    store: Store, *, run_id: str, tool: str, identity: str, records: Sequence[Record], device: Device | None, name: str
) -> None:
    """Put imported records into the store as one finished run.

    Raises:
        StoreError: where the store cannot be written; it is then as it was.
    """
    manifest = RunManifest(
        run_id=run_id,
        suite=f"import {tool}",
        plan_digest=identity,
        planned=len(records),
        created_at=now_utc(),
        device=device.id if device is not None else "",
        device_name=name,
        environment={},
        imported=tool,
    )
    deposit(store, manifest, records, device)
