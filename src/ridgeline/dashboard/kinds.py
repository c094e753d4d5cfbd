"""Records that are no measurements of a run: comparisons, timings of other tools, profiles; read once, kept as `data`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from ridgeline.dashboard import data
from ridgeline.results.comparison import Comparison, derived
from ridgeline.results.compile import CompiledCode
from ridgeline.results.counters import Counters
from ridgeline.results.imported import Imported
from ridgeline.results.published import Published
from ridgeline.results.record import Record
from ridgeline.results.serving import Serving
from ridgeline.results.store import RunInfo, Store, StoreError
from ridgeline.results.writer import RECORDS

REPLAY = "replay: scripted, not measured"
"""Said of every record whose times were read from a script instead of a clock."""


@dataclass(frozen=True)
class Origin:
    """Who took the numbers of a run."""

    contributed: bool
    """Somebody else measured it with Ridgeline and sent it."""
    imported: str
    """The tool whose file it was read from; empty for what Ridgeline measured."""

    @property
    def text(self) -> str:
        """``measured here``, ``contributed`` or ``imported from TOOL``."""
        parts = [f"imported from {self.imported}"] if self.imported else []
        parts += ["contributed"] if self.contributed else []
        return ", ".join(parts) or "measured here"


def is_replay(protocol: Any) -> bool:
    """Whether the clock of ``protocol`` was a script."""
    return isinstance(protocol, Mapping) and protocol.get("timer") == "replay"


def origin_of(info: RunInfo) -> Origin:
    """Origin of a run; of one whose manifest cannot be read, what the list of runs knows."""
    path = data.store_path()
    return _origin(str(path), info, data.fingerprint(path / "runs" / info.run_id, depth=1))


def kinds_of(info: RunInfo) -> frozenset[str]:
    """Kinds of records that a run holds; empty where it holds none or cannot be read."""
    path = data.store_path()
    return _kinds(str(path), info, data.fingerprint(path / "runs" / info.run_id, depth=1))


def comparisons_of(runs: Iterable[RunInfo]) -> list[dict[str, Any]]:
    """Stored and derived columns of all comparisons of ``runs``, in their order."""
    path = data.store_path()
    found: list[dict[str, Any]] = []
    for info in runs:
        if "comparison" in kinds_of(info):
            found += _comparisons(str(path), info, data.fingerprint(path / "runs" / info.run_id, depth=1))
    return found


def imported_of(runs: Iterable[RunInfo]) -> list[Imported]:
    """All timings that other tools took."""
    return [record for record in _of_kind(runs, "imported") if isinstance(record, Imported)]


def published_of(runs: Iterable[RunInfo]) -> list[Published]:
    """All times that others published."""
    return [record for record in _of_kind(runs, "published") if isinstance(record, Published)]


def profiles_of(runs: Iterable[RunInfo]) -> list[Counters]:
    """All profiles."""
    return [record for record in _of_kind(runs, "counters") if isinstance(record, Counters)]


def serving_of(runs: Iterable[RunInfo]) -> list[Serving]:
    """All serving runs that other tools measured."""
    return [record for record in _of_kind(runs, "serving") if isinstance(record, Serving)]


def compiled_of(runs: Iterable[RunInfo]) -> list[CompiledCode]:
    """All compiled code, in the order of ``runs``."""
    return [record for record in _of_kind(runs, "compile") if isinstance(record, CompiledCode)]


def _of_kind(runs: Iterable[RunInfo], kind: str) -> list[Record]:
    path = data.store_path()
    found: list[Record] = []
    for info in runs:
        if kind in kinds_of(info):
            found += _records(str(path), info, data.fingerprint(path / "runs" / info.run_id, depth=1))
    return found


@st.cache_data(max_entries=512, show_spinner=False)
def _origin(path: str, info: RunInfo, written: data.Fingerprint) -> Origin:
    try:
        return Origin(info.contributed, Store(Path(path)).manifest(info.run_id).imported)
    except StoreError:
        return Origin(info.contributed, "")


@st.cache_data(max_entries=512, show_spinner=False)
def _kinds(path: str, info: RunInfo, written: data.Fingerprint) -> frozenset[str]:
    file = Path(path) / "runs" / info.run_id / RECORDS
    if info.state == "damaged":
        return frozenset()
    if file.exists():
        # One column of the file: a page that only asks what a run holds does not read its samples.
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return frozenset(pq.read_table(file, columns=["kind"]).column("kind").to_pylist())
        except (pa.ArrowException, OSError, KeyError):
            return frozenset()
    try:
        return frozenset(record.kind for record in Store(Path(path)).records(info.run_id)[0])
    except StoreError:
        return frozenset()


@st.cache_data(max_entries=64, show_spinner="Reading the run")
def _records(path: str, info: RunInfo, written: data.Fingerprint) -> list[Record]:
    try:
        return Store(Path(path)).records(info.run_id)[0]
    except StoreError:
        return []


@st.cache_data(max_entries=64, show_spinner="Reading comparisons")
def _comparisons(path: str, info: RunInfo, written: data.Fingerprint) -> list[dict[str, Any]]:
    try:
        records = Store(Path(path)).records(info.run_id)[0]
    except StoreError:
        return []
    return [derived(record) for record in records if isinstance(record, Comparison)]
