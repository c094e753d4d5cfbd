"""Putting a whole run into a store at once: all of it, or nothing.

The run is written into a folder that no reader looks at and renamed into its place. What a crash leaves there is
removed by the next deposit: the folder's lock, which the kernel releases with its owner, tells it from a live one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ridgeline.analytical.device import Device
from ridgeline.results.columns import to_parquet
from ridgeline.results.durable import StoreError, storage_error, sync_folder, write_durably
from ridgeline.results.record import Record
from ridgeline.results.run import RunManifest
from ridgeline.results.store import RUN_ID, Store
from ridgeline.results.writer import DEVICE, MANIFEST, RECORDS

INCOMING = ".incoming-"


def deposit(store: Store, manifest: RunManifest, records: Sequence[Record], device: Device | None) -> None:
    """Write a finished run.

    Args:
        store: where; it is created if need be.
        manifest: names the run.
        records: all of this run.
        device: with its ceilings; ``None`` where nothing describes it, as for the timings of other tools.

    Raises:
        StoreError: where the run is there already or the store cannot be written; the store is then as it was.
    """
    if not RUN_ID.fullmatch(manifest.run_id):  # it becomes a folder: it may come from somebody else's file
        raise StoreError(f"{manifest.run_id!r}: not a run id: use letters, digits, '.', '_' and '-'")
    runs = store.path / "runs"
    place = runs / manifest.run_id
    parquet = to_parquet(list(records), str(place))
    created = [folder for folder in (store.path, runs) if not folder.exists()]
    try:
        with _incoming(runs) as folder:
            if device is not None:
                write_durably(folder / DEVICE, json.dumps(device.to_dict(), indent=1).encode())
            write_durably(folder / RECORDS, parquet)
            write_durably(folder / MANIFEST, manifest.model_dump_json(indent=1).encode())
            sync_folder(folder)
            if place.exists():
                raise StoreError(f"{place}: this run is there already")
            os.rename(folder, place)
            sync_folder(runs)
    except OSError as error:
        _remove_empty(created)
        raise storage_error(store.path, error) from None
    except StoreError:
        _remove_empty(created)
        raise


@contextlib.contextmanager
def _incoming(runs: Path) -> Iterator[Path]:
    """A locked folder that readers pass over; whatever is left of it is removed."""
    runs.mkdir(parents=True, exist_ok=True)
    _sweep(runs)
    folder = runs / f"{INCOMING}{secrets.token_hex(8)}"
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def left_behind(runs: Path) -> list[Path]:
    """Folders of deposits whose process died."""
    found = []
    for folder in sorted(runs.glob(f"{INCOMING}*")):
        try:
            fd = os.open(folder, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.append(folder)
        except OSError:
            continue
        finally:
            os.close(fd)
    return found


def _sweep(runs: Path) -> None:
    for folder in left_behind(runs):
        shutil.rmtree(folder, ignore_errors=True)


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()
