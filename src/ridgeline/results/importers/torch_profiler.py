"""The torch profiler: the Chrome trace that ``export_chrome_trace`` writes, also compressed with gzip.

Complete events (``ph`` is ``X``) of category ``kernel`` are launches on a GPU; their ``dur`` is in microseconds (Trace
Event Format, "Duration Events"; ``displayTimeUnit`` is for viewers only). Its occupancy is an estimate from the
launch's registers and shared memory (Kineto, ``est. achieved occupancy %``), no counter, and is marked so.
"""

from __future__ import annotations

from typing import Any

from ridgeline.results.counters import LaunchCounters
from ridgeline.results.durable import StoreError
from ridgeline.results.importers.source_file import SourceFile
from ridgeline.results.importers.trace import Trace, launch

_MADE_BY = "not of the torch profiler: make it with `export_chrome_trace`"
_OCCUPANCY = "est. achieved occupancy %"
_OCCUPANCY_NOTE = "occupancy is torch-profiler's estimate from the launch, not counted"
_SHORT_NOTE = "launches of 0 µs, which the trace's resolution does not show, have no time"


def read_torch_profiler(source: SourceFile) -> Trace:
    """Read a trace.

    Raises:
        StoreError: where the file is no trace, is cut off, or holds no kernel of a GPU.
    """
    origin, values = str(source.path), source.json()
    events = values.get("traceEvents") if isinstance(values, dict) else values
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise StoreError(f"{origin}: no traceEvents: {_MADE_BY}")
    kernels: dict[str, list[LaunchCounters]] = {}
    notes: set[str] = set()
    for number, event in enumerate(events, start=1):
        if str(event.get("cat", "")).lower() != "kernel" or event.get("ph") != "X":
            continue
        where = f"{origin}: event {number}"
        name = event.get("name")
        if not isinstance(name, str):
            raise StoreError(f"{where}: a kernel without a name: {_MADE_BY}")
        kernels.setdefault(name, []).append(_launch(event, notes, where))
    if not kernels:
        raise StoreError(f"{origin}: no GPU kernel in it: profile with ProfilerActivity.CUDA on a GPU")
    return Trace("torch-profiler", kernels, tuple(sorted(notes)))


def _launch(event: dict[str, Any], notes: set[str], where: str) -> LaunchCounters:
    duration_us = event.get("dur")
    if not isinstance(duration_us, int | float) or isinstance(duration_us, bool):
        raise StoreError(f"{where}: dur is {duration_us!r}, not a number of microseconds")
    arguments = event.get("args", {})
    if not isinstance(arguments, dict):
        raise StoreError(f"{where}: args is no mapping: {_MADE_BY}")
    occupancy, registers = arguments.get(_OCCUPANCY), arguments.get("registers per thread")
    if isinstance(occupancy, int | float):
        notes.add(_OCCUPANCY_NOTE)
    if duration_us == 0:
        notes.add(_SHORT_NOTE)
    return launch(
        where,
        kernel_s=duration_us * 1e-6 if duration_us != 0 else None,
        occupancy_percent=occupancy if isinstance(occupancy, int | float) else None,
        registers_per_thread=registers if isinstance(registers, int) else None,
    )
