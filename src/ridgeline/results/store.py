"""The store: a folder of runs, each a folder that one process writes and any number of processes read.

``<store>/runs/<run_id>/`` holds ``run.json``, ``device.json``, ``owner.lock``, and ``journal.jsonl`` while the run
lasts or ``records.parquet`` when it has ended. Files are written beside their place and renamed into it; nothing is
rewritten. The lock is an flock: the kernel releases it when its owner dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock, Timeout
from pydantic import ValidationError
from pydantic_core import from_json

from ridgeline.analytical.catalogue import DeviceError, device_from_dict
from ridgeline.analytical.device import Device
from ridgeline.results.columns import GOOD, count_records, read_parquet
from ridgeline.results.durable import SetAside, StoreError, one_line, storage_error, sync_folder, write_durably
from ridgeline.results.fact import SCHEMA_VERSION
from ridgeline.results.journal import read_journal
from ridgeline.results.record import Record
from ridgeline.results.run import RunManifest
from ridgeline.results.writer import DEVICE, JOURNAL, MANIFEST, OWNER, RECORDS, SET_ASIDE, RunWriter

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DEFAULT_STORE", "RunInfo", "RunWriter", "SetAside", "Store", "StoreError", "new_run_id"]

DEFAULT_STORE = ".ridgeline"
VARIABLE = "RIDGELINE_STORE"
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LOCK_WAIT_S = 0.3
"""A reader that looks whether a run is alive holds its lock for microseconds; a writer waits that out."""


@dataclass(frozen=True)
class RunInfo:
    """What a list of runs shows of one run."""

    run_id: str
    suite: str
    created_at: str
    """UTC, ISO 8601."""
    state: Literal["finished", "running", "unfinished", "damaged"]
    planned: int
    """Measurements planned."""
    records: int
    """Measurements stored."""
    ok: int
    """Those stored with status ``ok``, or of checks ``passed``."""
    device: str
    device_name: str
    reason: str = ""
    """What is damaged or was set aside; one line."""
    contributed: bool = False
    """Whether somebody else measured it and sent it (``ridgeline store add``)."""


def new_run_id(now: datetime | None = None) -> str:
    """A run id that sorts by time, such as ``20261122T231500Z-7a120c3f``: five digits of microseconds, three random."""
    now = now or datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%SZ}-{now.microsecond:05x}{secrets.randbelow(4096):03x}"


class Store:
    """The runs under one folder.

    Args:
        path: the folder; without it ``$RIDGELINE_STORE``, then ``.ridgeline``. Nothing is created until a run is.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path or os.environ.get(VARIABLE) or DEFAULT_STORE).expanduser()

    @property
    def _runs(self) -> Path:
        return self.path / "runs"

    def _run_ids(self) -> list[str]:
        """Names of the run folders, newest first. A folder whose process died before it wrote anything is no run."""
        try:
            if not self._runs.exists() and (not self.path.exists() or self.path.is_dir()):
                return []
            with os.scandir(self._runs) as entries:
                names = [e.name for e in entries if RUN_ID.fullmatch(e.name) and e.is_dir()]
        except OSError as error:
            raise storage_error(self.path, error) from None
        return sorted((name for name in names if self._has_content(self._runs / name)), reverse=True)

    @staticmethod
    def _has_content(folder: Path) -> bool:
        try:
            files = (folder / name for name in (MANIFEST, RECORDS, JOURNAL))
            return any(file.exists() and (file.name != JOURNAL or file.stat().st_size > 0) for file in files)
        except OSError:
            return True  # unreadable: it is listed as damaged, with the reason

    def runs(self) -> list[RunInfo]:
        """All runs, newest first. A damaged run is listed with its reason.

        Raises:
            StoreError: where the store itself cannot be read.
        """
        return [self._info(run_id) for run_id in self._run_ids()]

    def run(self, run_id: str) -> RunInfo:
        """One run, by its id, a prefix that only it has, or ``latest``.

        Raises:
            StoreError: where there is no such run; names the newest few.
        """
        return self._info(self._resolve(run_id))

    def _resolve(self, run_id: str) -> str:
        names = self._run_ids()
        if not names:
            raise StoreError(f"{self.path}: no runs yet: `ridgeline run` makes one, --store chooses another store")
        if run_id == "latest":
            return names[0]
        if run_id in names:
            return run_id
        matching = [name for name in names if run_id and name.startswith(run_id)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise StoreError(f"{self.path}: {len(matching)} runs start with {run_id!r}: {_few(matching)}")
        raise StoreError(f"{self.path}: no run {run_id!r}: the newest are {_few(names)}")

    def _info(self, run_id: str) -> RunInfo:
        folder = self._runs / run_id
        try:
            manifest = _read_manifest(folder)
        except StoreError as error:
            return RunInfo(run_id, "", "", "damaged", 0, 0, 0, "", "", str(error))
        state: Literal["finished", "running", "unfinished", "damaged"]
        n_records, n_ok, reason = 0, 0, ""
        try:
            if _is_finished(folder):
                state, (n_records, n_ok) = "finished", count_records(folder / RECORDS)
                aside = _left_over(folder)
            else:
                # The lock before the journal: a run that ends in between is reported as running, which it was.
                state = "running" if _is_owned(folder) else "unfinished"
                records, aside = _read_records(folder)
                n_records, n_ok = len(records), sum(getattr(r, "status", "") in GOOD for r in records)
                state = "finished" if _is_finished(folder) else state
            reason = f"{aside[0].where}: {aside[0].reason}" if aside else ""
        except StoreError as error:
            state, reason = "damaged", str(error)
        m = manifest
        return RunInfo(
            run_id, m.suite, m.created_at, state, m.planned, n_records, n_ok, m.device, m.device_name, reason,
            bool(m.contributed),
        )  # fmt: skip

    def create(self, manifest: RunManifest, device: Device) -> RunWriter:
        """Begin a run and own it. ``manifest.run_id`` names it (:func:`new_run_id`).

        Raises:
            StoreError: where the store cannot be written or the run is there already.
        """
        folder = self._runs / manifest.run_id
        if not RUN_ID.fullmatch(manifest.run_id):
            raise StoreError(f"{manifest.run_id!r}: not a run id: use letters, digits, '.', '_' and '-'")
        try:
            self._runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(self.path, error) from None
        try:
            # Of two processes that want the same id, the kernel lets one make the folder.
            folder.mkdir()
        except FileExistsError:
            raise StoreError(f"{folder}: this run is there already: take another run id") from None
        except OSError as error:
            raise storage_error(self.path, error) from None
        writer = None
        try:
            lock = _take(folder)
            if lock is None:
                raise StoreError(f"{folder}: another process took this run: take another run id")
            writer = RunWriter(folder, manifest, device, lock)
            writer.set_device(device)
            # Last: only with run.json is it a run that another process may list or continue.
            write_durably(folder / MANIFEST, manifest.model_dump_json(indent=1).encode())
            sync_folder(self._runs)
        except BaseException as error:
            if writer is not None:
                writer.close()
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise storage_error(folder, error) from None
            raise
        return writer

    def resume(self, plan_digest: str) -> RunWriter | None:
        """Continue the newest unfinished run of this plan that no live process owns, and own it; ``None`` without one.

        Raises:
            StoreError: where the store cannot be read or written.
        """
        for run_id in self._run_ids():
            folder = self._runs / run_id
            try:
                manifest = _read_manifest(folder)
                if manifest.plan_digest != plan_digest or _is_finished(folder):
                    continue
                device = _read_device(folder)
            except StoreError:
                continue  # damaged: `runs` says so; it cannot be continued
            lock = _take(folder)
            if lock is None:
                continue
            try:
                if not _is_finished(folder):  # it may have ended before the lock was ours
                    return RunWriter(folder, manifest, device, lock)
            except BaseException:
                lock.release()
                raise
            lock.release()
        return None

    def records(self, run_id: str | None = None) -> tuple[list[Record], list[SetAside]]:
        """The records of one run, or of all from the oldest to the newest, and what was set aside.

        Raises:
            StoreError: where the store, or the one run that was asked for, cannot be read.
        """
        if run_id is not None:
            folder = self._runs / self._resolve(run_id)
            _read_manifest(folder)
            return _read_records(folder)
        records: list[Record] = []
        set_aside: list[SetAside] = []
        for name in reversed(self._run_ids()):
            try:
                _read_manifest(self._runs / name)
                found, aside = _read_records(self._runs / name)
            except StoreError as error:
                set_aside.append(SetAside(name, str(error)))
            else:
                records += found
                set_aside += aside
        return records, set_aside

    def device(self, run_id: str) -> Device:
        """The device of a run, with the ceilings measured in it.

        Raises:
            StoreError: where there is no such run or its ``device.json`` does not validate.
        """
        return _read_device(self._runs / self._resolve(run_id))

    def manifest(self, run_id: str) -> RunManifest:
        """What a run was asked to do, where and with which software.

        Raises:
            StoreError: where there is no such run or its ``run.json`` does not validate.
        """
        return _read_manifest(self._runs / self._resolve(run_id))

    def query(self, sql: str) -> pd.DataFrame:
        """The answer to ``sql`` over the view ``records``: every record of every finished run, read in place.

        Raises:
            StoreError: where the store cannot be read or the query is wrong.
        """
        import duckdb

        from ridgeline.results.columns import schema

        files = [str(self._runs / run.run_id / RECORDS) for run in self.runs() if run.state == "finished"]
        with duckdb.connect(":memory:") as connection:
            try:
                if files:
                    # read_parquet takes patterns: a bracket in the store's own path must mean itself.
                    names = ", ".join("'" + re.sub(r"([*?\[])", r"[\1]", f).replace("'", "''") + "'" for f in files)
                    source = f"read_parquet([{names}], union_by_name = true)"
                else:
                    connection.register("no_records", schema().empty_table())
                    source = "no_records"
                connection.execute(f"CREATE VIEW records AS SELECT * FROM {source}")
                return connection.execute(sql).df()
            except duckdb.Error as error:
                raise StoreError(f"{self.path}: {one_line(error)}") from None


def _few(names: list[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _is_finished(folder: Path) -> bool:
    return (folder / RECORDS).exists()


def _is_owned(folder: Path) -> bool:
    """Whether a live process owns the run. A shared lock on a read-only file: readers need no right to write."""
    try:
        fd = os.open(folder / OWNER, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _take(folder: Path) -> FileLock | None:
    """Own the run, or ``None`` where a live process does."""
    # Not thread-local: the thread that finishes a run need not be the one that began it.
    lock = FileLock(folder / OWNER, thread_local=False)
    try:
        lock.acquire(timeout=_LOCK_WAIT_S, poll_interval=0.02)
    except Timeout:
        return None
    except OSError as error:
        raise storage_error(folder, error) from None
    return lock


def _read_records(folder: Path) -> tuple[list[Record], list[SetAside]]:
    if not _is_finished(folder):
        try:
            return read_journal(folder / JOURNAL)
        except StoreError:
            if not _is_finished(folder):  # the run ended between the two looks
                raise
    return read_parquet(folder / RECORDS), _left_over(folder)


def _left_over(folder: Path) -> list[SetAside]:
    path = folder / SET_ASIDE
    return [SetAside(str(path), "lines that were no records when the run finished")] if path.exists() else []


def _read_manifest(folder: Path) -> RunManifest:
    path = folder / MANIFEST
    values = _read_json(path)
    version = values.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: schema {version} is newer than this Ridgeline reads ({SCHEMA_VERSION}): upgrade ridgeline"
        )
    try:
        return RunManifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"{path}: {where}: {first['msg']}") from None


def _read_device(folder: Path) -> Device:
    try:
        return device_from_dict(_read_json(folder / DEVICE), str(folder / DEVICE))
    except DeviceError as error:
        raise StoreError(str(error)) from None


def _read_json(path: Path) -> dict[str, object]:
    try:
        values = from_json(path.read_bytes())
    except OSError as error:
        raise storage_error(path, error) from None
    except ValueError as error:
        raise StoreError(f"{path}: damaged: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise StoreError(f"{path}: damaged: not a JSON object")
    return values
