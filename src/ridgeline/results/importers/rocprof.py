"""AMD: ``results.csv`` of rocprof (v1), and ``*_counter_collection.csv`` of rocprofv3.

rocprof has a row for every dispatch and a column for every counter, rocprofv3 a row for every counter of every
dispatch. Neither prints units; those of the derived counters are in their definitions (ROCm documentation, "MI200 and
MI300 performance counters and metrics"): ``FETCH_SIZE`` and ``WRITE_SIZE`` are kilobytes of 1024 bytes.
"""

from __future__ import annotations

from ridgeline.results.counters import LaunchCounters
from ridgeline.results.durable import StoreError
from ridgeline.results.importers.csv_table import read_rows
from ridgeline.results.importers.source_file import SourceFile
from ridgeline.results.importers.trace import Trace, launch
from ridgeline.results.importers.units import number

_MADE_BY = "not of rocprof: make it with `rocprof -i counters.txt`, or `rocprofv3 --pmc ... --output-format csv`"
_HIT_NOTE = "the L2 hit rate is TCC_HIT_sum over TCC_HIT_sum and TCC_MISS_sum"


def read_rocprof(source: SourceFile) -> Trace:
    """Read a file of rocprof or rocprofv3, told apart by their columns.

    Raises:
        StoreError: where it is of neither, is cut off, or holds no dispatch.
    """
    origin, text = str(source.path), source.text()
    if "Counter_Name" in text.split("\n", 1)[0]:
        tool, rows = "rocprofv3", _long(text, origin)
    else:
        tool, rows = "rocprof", _wide(text, origin)
    if not rows:
        raise StoreError(f"{origin}: no dispatch in it: cut off?")
    kernels: dict[str, list[LaunchCounters]] = {}
    notes: set[str] = set()
    for where, kernel, facts in rows:
        name = kernel.removesuffix(" [clone .kd]").removesuffix(".kd")
        kernels.setdefault(name, []).append(_launch(facts, notes, where))
    return Trace("rocprofv3" if tool == "rocprofv3" else "rocprof", kernels, tuple(sorted(notes)))


Row = tuple[str, str, dict[str, float]]
"""Where it stands, the kernel's name, and its numbers."""


def _wide(text: str, origin: str) -> list[Row]:
    header, rows = read_rows(text, ("Index", "KernelName"), origin, _MADE_BY)
    texts = {"KernelName", "sig", "obj"}
    found = []
    for index, fields in enumerate(rows, start=1):
        row, where = dict(zip(header, fields, strict=True)), f"{origin}: row {index}"
        values = {key: number(value, f"{where}: {key}") for key, value in row.items() if key not in texts}
        facts = {key: value for key, value in values.items() if value is not None}
        if "DurationNs" not in facts and "BeginNs" in facts and "EndNs" in facts:
            facts["DurationNs"] = facts["EndNs"] - facts["BeginNs"]
        facts["registers"] = facts.get("arch_vgpr", facts.get("vgpr", -1.0))
        found.append((where, row["KernelName"], facts))
    return found


def _long(text: str, origin: str) -> list[Row]:
    header, rows = read_rows(text, ("Dispatch_Id", "Kernel_Name", "Counter_Name", "Counter_Value"), origin, _MADE_BY)
    found: dict[tuple[str, str], Row] = {}
    for index, fields in enumerate(rows, start=1):
        row, where = dict(zip(header, fields, strict=True)), f"{origin}: row {index}"
        key = row.get("Process_Id", ""), row["Dispatch_Id"]
        _, kernel, facts = found.setdefault(key, (f"{origin}: dispatch {key[1]}", row["Kernel_Name"], {}))
        if kernel != row["Kernel_Name"]:
            raise StoreError(f"{where}: dispatch {key[1]} has two kernels")
        name = row["Counter_Name"]
        if name in facts:
            raise StoreError(f"{where}: {name} of dispatch {key[1]} occurs twice: import the passes one by one")
        value = number(row["Counter_Value"], f"{where}: Counter_Value")
        if value is not None:
            facts[name] = value
        if row.get("Start_Timestamp") and row.get("End_Timestamp"):
            # Whole nanoseconds since boot: as floats their difference would be off by a quarter of one after 26 days.
            try:
                facts["DurationNs"] = float(int(row["End_Timestamp"]) - int(row["Start_Timestamp"]))
            except ValueError:
                raise StoreError(f"{where}: its timestamps are not whole numbers") from None
        registers = number(row.get("VGPR_Count", ""), f"{where}: VGPR_Count")
        facts["registers"] = -1.0 if registers is None else registers
    return list(found.values())


def _launch(facts: dict[str, float], notes: set[str], where: str) -> LaunchCounters:
    read, written = facts.get("FETCH_SIZE"), facts.get("WRITE_SIZE")
    hit = facts.get("L2CacheHit")
    hits, misses = facts.get("TCC_HIT_sum"), facts.get("TCC_MISS_sum")
    if hit is None and hits is not None and misses is not None and hits + misses > 0.0:
        hit = 100.0 * hits / (hits + misses)
        notes.add(_HIT_NOTE)
    duration = facts.get("DurationNs")
    registers = facts["registers"]
    return launch(
        where,
        kernel_s=None if duration is None else duration * 1e-9,
        dram_read_bytes=None if read is None else read * 1024,
        dram_write_bytes=None if written is None else written * 1024,
        dram_bytes=None if read is None or written is None else (read + written) * 1024,
        l2_hit_percent=hit,
        occupancy_percent=facts.get("OccupancyPercent"),
        issue_percent=facts.get("VALUBusy"),
        registers_per_thread=None if registers < 0 else int(registers),
    )
