"""The one process that writes a run: it owns the lock, appends to the journal and turns it into Parquet at the end."""

from __future__ import annotations

import json
import os
from pathlib import Path

from filelock import FileLock

from ridgeline.analytical.device import Device
from ridgeline.results.columns import to_parquet
from ridgeline.results.durable import StoreError, storage_error, sync_folder, write_durably
from ridgeline.results.journal import Journal
from ridgeline.results.measurement import Measurement
from ridgeline.results.record import Record
from ridgeline.results.run import RunManifest

MANIFEST = "run.json"
DEVICE = "device.json"
JOURNAL = "journal.jsonl"
RECORDS = "records.parquet"
OWNER = "owner.lock"
SET_ASIDE = "journal.set-aside.jsonl"
"""The journal of a finished run, kept only where some of its lines were no records."""


class RunWriter:
    """A run that this process owns, made by :meth:`Store.create` or :meth:`Store.resume`.

    A context manager: leaving it releases the run, unfinished unless :meth:`finish` was called.

    Raises:
        StoreError: where the journal cannot be opened; the lock is then released.
    """

    def __init__(self, path: Path, manifest: RunManifest, device: Device, lock: FileLock) -> None:
        self.path = path
        self.manifest = manifest
        self.device = device
        self._lock = lock
        try:
            self._journal = Journal(path / JOURNAL)
        except BaseException:
            lock.release()
            raise
        self.done: set[tuple[str, int]] = {(m.content_key, m.process) for m in self.measurements}
        """(content_key, process) of every measurement in the journal."""

    @property
    def run_id(self) -> str:
        """Name of the run and of its folder."""
        return self.manifest.run_id

    @property
    def records(self) -> list[Record]:
        """Every record of the run so far, those of earlier processes included."""
        return self._journal.records

    @property
    def measurements(self) -> list[Measurement]:
        """Those of the records that are measurements."""
        return [record for record in self._journal.records if isinstance(record, Measurement)]

    def append(self, record: Record) -> None:
        """Store one record; it is on the disk when this returns.

        Raises:
            StoreError: where the disk is full or fails (what was stored before is kept), the record belongs to another
                run, or the run is closed.
        """
        if record.run_id != self.run_id:
            raise StoreError(f"{self.path}: a record of run {record.run_id!r} does not belong here")
        self._journal.append(record)
        if isinstance(record, Measurement):
            self.done.add((record.content_key, record.process))

    def set_device(self, device: Device) -> None:
        """Replace the device of the run, as when its ceilings were measured.

        Raises:
            StoreError: where it cannot be written; the earlier one is then kept.
        """
        self._check_open()
        write_durably(self.path / DEVICE, json.dumps(device.to_dict(), indent=1).encode())
        self.device = device

    def finish(self) -> None:
        """End the run: its journal becomes ``records.parquet``, and the run is released.

        Raises:
            StoreError: where the disk is full or fails; the journal is then kept and the run stays unfinished.
        """
        self._check_open()
        write_durably(self.path / RECORDS, to_parquet(self.records, str(self.path)))
        journal = self.path / JOURNAL
        try:
            if self._journal.set_aside:
                os.replace(journal, self.path / SET_ASIDE)
            else:
                journal.unlink()
            sync_folder(self.path)
        except OSError as error:
            raise storage_error(journal, error) from None
        self.close()

    def close(self) -> None:
        """Release the run. Without :meth:`finish` it stays unfinished and can be continued."""
        self._journal.close()
        self._lock.release()

    def _check_open(self) -> None:
        if not self._lock.is_locked:
            raise StoreError(f"{self.path}: the run is closed")

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
