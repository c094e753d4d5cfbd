"""What the pages show of the store: read once, kept until a file of the store changes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st

from ridgeline.analytical.device import Device
from ridgeline.results import views
from ridgeline.results.run import RunManifest
from ridgeline.results.store import RunInfo, Store, StoreError
from ridgeline.results.views_counters import COUNTERS_SUFFIX

Fingerprint = tuple[tuple[str, int, int], ...]
"""Name, size and modification time of files: equal fingerprints mean that nothing was written."""


@dataclass(frozen=True)
class RunView:
    """One run as the pages show it: what could be read, and what could not and why."""

    info: RunInfo
    frame: pd.DataFrame
    device: Device | None
    manifest: RunManifest | None
    problems: tuple[str, ...]
    """What was set aside or could not be read; a line each."""

    @property
    def cases(self) -> pd.DataFrame:
        """The measured cases, without the measurements that only looked for a ceiling."""
        return self.frame[self.frame["role"] == "case"]


def store_path(arguments: Sequence[str] | None = None) -> Path:
    """The store of this server: ``--store PATH`` after ``--`` on its command line, else as :class:`Store` chooses."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for position, argument in enumerate(arguments):
        if argument == "--store" and position + 1 < len(arguments):
            return Path(arguments[position + 1])
        if argument.startswith("--store="):
            return Path(argument.removeprefix("--store="))
    return Store(None).path


def load_runs() -> list[RunInfo]:
    """All runs, newest first.

    Raises:
        StoreError: where the store itself cannot be read.
    """
    path = store_path()
    return _runs(str(path), fingerprint(path / "runs", depth=2))


def load_run(info: RunInfo) -> RunView:
    """One run; whatever of it is damaged is named in ``problems``."""
    path = store_path()
    # Profiles lie in runs of their own and are joined to this one's rows.
    profiles = tuple(
        (f"{folder.name}/{name}", size, time)
        for folder in sorted((path / "runs").glob(f"*{COUNTERS_SUFFIX}"))
        for name, size, time in fingerprint(folder, depth=1)
    )
    return _run(str(path), info, fingerprint(path / "runs" / info.run_id, depth=1) + profiles)


@st.cache_data(max_entries=4, show_spinner=False)
def _runs(path: str, written: Fingerprint) -> list[RunInfo]:
    return Store(Path(path)).runs()


@st.cache_data(max_entries=16, show_spinner="Reading the run")
def _run(path: str, info: RunInfo, written: Fingerprint) -> RunView:
    store = Store(Path(path))
    problems: list[str] = []
    device: Device | None = None
    manifest: RunManifest | None = None
    try:
        frame = views.frame(store, info.run_id)
        problems += [f"{item['where']}: {item['reason']}" for item in frame.attrs.get("set_aside", [])]
    except StoreError as error:
        frame = pd.DataFrame(columns=list(views.COLUMNS))
        problems.append(str(error))
    try:
        device = store.device(info.run_id)
    except StoreError as error:
        problems.append(str(error))
    try:
        manifest = store.manifest(info.run_id)
    except StoreError as error:
        problems.append(str(error))
    return RunView(info, frame, device, manifest, tuple(dict.fromkeys(problems)))


def fingerprint(folder: Path, depth: int) -> Fingerprint:
    """Of all files below ``folder``; what cannot be looked at counts as absent."""
    found: list[tuple[str, int, int]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir() and depth > 1:
                    found += [(f"{entry.name}/{n}", s, t) for n, s, t in fingerprint(Path(entry.path), depth - 1)]
                    found.append((entry.name, 0, 0))
                elif entry.is_file():
                    status = entry.stat()
                    found.append((entry.name, status.st_size, status.st_mtime_ns))
    except OSError:
        return tuple(sorted(found))
    return tuple(sorted(found))
