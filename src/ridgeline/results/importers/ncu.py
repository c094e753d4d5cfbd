"""Nsight Compute: what ``ncu --csv`` prints as its details page and as its raw page.

The details page has a row for every metric of every launch, with its unit; the raw page a column for every metric, a
row of units, and a row for every launch. Metric names and units: Nsight Compute documentation, "Nsight Compute CLI"
(``--csv``, ``--page``, ``--print-units``) and "Profiling Guide" (Metrics Reference).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ridgeline.results.counters import LaunchCounters
from ridgeline.results.durable import StoreError
from ridgeline.results.importers.csv_table import read_rows
from ridgeline.results.importers.source_file import SourceFile
from ridgeline.results.importers.trace import Trace, launch
from ridgeline.results.importers.units import BYTES, BYTES_PER_S, PERCENT, REGISTERS, SECONDS, SECTORS, scaled

_MADE_BY = "not of ncu: make it with `ncu --csv --page raw` or `ncu --csv --page details`"
_RATE_NOTE = "DRAM bytes are ncu's throughput times its duration"
_SECTOR_NOTE = "L2 bytes are ncu's sectors times 32"

METRICS: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "gpu__time_duration.sum": ("kernel_s", SECONDS),
    "dram__bytes_read.sum": ("dram_read_bytes", BYTES),
    "dram__bytes_write.sum": ("dram_write_bytes", BYTES),
    "dram__bytes.sum": ("dram_bytes", BYTES),
    "dram__bytes.sum.per_second": ("dram_bytes_per_s", BYTES_PER_S),
    "lts__t_bytes.sum": ("l2_bytes", BYTES),
    "lts__t_sectors.sum": ("l2_sector_bytes", SECTORS),
    "lts__t_sector_hit_rate.pct": ("l2_hit_percent", PERCENT),
    "sm__warps_active.avg.pct_of_peak_sustained_active": ("occupancy_percent", PERCENT),
    "sm__inst_issued.avg.pct_of_peak_sustained_active": ("issue_percent", PERCENT),
    "smsp__issue_active.avg.pct_of_peak_sustained_active": ("issue_percent", PERCENT),
    "launch__registers_per_thread": ("registers_per_thread", REGISTERS),
}
"""Metrics that are read, what each becomes, and its units."""

LABELS: Mapping[tuple[str, str], str] = {
    ("GPU Speed Of Light Throughput", "Duration"): "gpu__time_duration.sum",
    ("Memory Workload Analysis", "Memory Throughput"): "dram__bytes.sum.per_second",
    ("Memory Workload Analysis", "L2 Hit Rate"): "lts__t_sector_hit_rate.pct",
    ("Occupancy", "Achieved Occupancy"): "sm__warps_active.avg.pct_of_peak_sustained_active",
    ("Compute Workload Analysis", "Issue Slots Busy"): "sm__inst_issued.avg.pct_of_peak_sustained_active",
    ("Launch Statistics", "Registers Per Thread"): "launch__registers_per_thread",
}
"""Section and label on the details page of metrics that it does not name by their own name."""


@dataclass
class _Launch:
    kernel: str
    facts: dict[str, float] = field(default_factory=dict)

    def take(self, metric: str, text: str, unit: str, where: str) -> None:
        """Keep the metric, where it is one that is read."""
        if metric in METRICS:
            name, units = METRICS[metric]
            value = scaled(text, unit.strip(), units, f"{where}: {metric}")
            if value is not None:
                self.facts[name] = value


def read_ncu(source: SourceFile) -> Trace:
    """Read a details or a raw page.

    Raises:
        StoreError: where the file is neither, is cut off, or has an unknown unit.
    """
    origin = str(source.path)
    header, rows = read_rows(source.text(), ("ID", "Kernel Name"), origin, _MADE_BY)
    long = "Metric Name" in header
    launches = _details(header, rows, origin) if long else _raw(header, rows, origin)
    if not any(entry.facts for entry in launches.values()):
        wanted = "gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum"
        raise StoreError(f"{origin}: holds none of the metrics that are read: take them with `ncu --metrics {wanted}`")
    kernels: dict[str, list[LaunchCounters]] = {}
    notes: set[str] = set()
    for key, entry in launches.items():
        kernels.setdefault(entry.kernel, []).append(_finish(entry.facts, notes, f"{origin}: launch {key}"))
    return Trace("ncu", kernels, tuple(sorted(notes)))


def _details(header: list[str], rows: list[list[str]], origin: str) -> dict[str, _Launch]:
    missing = {"Section Name", "Metric Unit", "Metric Value"} - set(header)
    if missing:
        raise StoreError(f"{origin}: no column {sorted(missing)[0]}: {_MADE_BY}")
    launches: dict[str, _Launch] = {}
    for number, fields in enumerate(rows, start=1):
        row = dict(zip(header, fields, strict=True))
        key = f"{row.get('Process ID', '')}/{row['ID']}"
        entry = launches.setdefault(key, _Launch(row["Kernel Name"]))
        if entry.kernel != row["Kernel Name"]:
            raise StoreError(f"{origin}: row {number}: launch {row['ID']} has two kernels")
        label = row["Section Name"], row["Metric Name"]
        entry.take(LABELS.get(label, label[1]), row["Metric Value"], row["Metric Unit"], f"{origin}: row {number}")
    return launches


def _raw(header: list[str], rows: list[list[str]], origin: str) -> dict[str, _Launch]:
    if not rows or rows[0][header.index("ID")].strip():
        raise StoreError(f"{origin}: no row of units below the header: {_MADE_BY}")
    units = dict(zip(header, rows[0], strict=True))
    if len(rows) == 1:
        raise StoreError(f"{origin}: no launch below the row of units: cut off?")
    launches: dict[str, _Launch] = {}
    for number, fields in enumerate(rows[1:], start=1):
        row = dict(zip(header, fields, strict=True))
        key = f"{row.get('Process ID', '')}/{row['ID']}"
        if key in launches:
            raise StoreError(f"{origin}: launch {row['ID']} occurs twice")
        launches[key] = entry = _Launch(row["Kernel Name"])
        for metric, text in row.items():
            entry.take(metric, text, units[metric], f"{origin}: launch {number}")
    return launches


def _finish(facts: dict[str, float], notes: set[str], where: str) -> LaunchCounters:
    """Sums and products of what ncu states, where it does not state the figure itself."""
    rate, sectors = facts.pop("dram_bytes_per_s", None), facts.pop("l2_sector_bytes", None)
    if "dram_read_bytes" in facts and "dram_write_bytes" in facts:
        facts.setdefault("dram_bytes", facts["dram_read_bytes"] + facts["dram_write_bytes"])
    if "dram_bytes" not in facts and rate is not None and "kernel_s" in facts:
        facts["dram_bytes"] = rate * facts["kernel_s"]
        notes.add(_RATE_NOTE)
    if "l2_bytes" not in facts and sectors is not None:
        facts["l2_bytes"] = sectors
        notes.add(_SECTOR_NOTE)
    return launch(where, **facts)
