"""What stands in a store beside our measurements: timings of other tools, and profiles. Each has a table of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ridgeline.results.counters import Counters
from ridgeline.results.imported import Imported
from ridgeline.results.published import Published
from ridgeline.results.store import Store
from ridgeline.results.views_counters import figures


def other_rows(store: Store, run_id: str | None) -> list[dict[str, Any]]:
    """Records of other kinds than measurements, as stored; ``kind`` tells them from ours."""
    return [
        r.model_dump(mode="json") for r in store.records(run_id)[0] if isinstance(r, Imported | Counters | Published)
    ]


def print_other_kinds(store: Store, run_id: str | None, rows: Sequence[Mapping[str, Any]], console: Console) -> bool:
    """Print a table for each other kind of record, and one that puts counted bytes beside modelled ones.

    Args:
        store: what to show.
        run_id: the run, or ``None`` for all.
        rows: the measurements that are shown, from :func:`ridgeline.results.views.rows`.
        console: where.

    Returns:
        whether there was anything to print.
    """
    records, _ = store.records(run_id)
    imported = [r for r in records if isinstance(r, Imported)]
    profiles = [r for r in records if isinstance(r, Counters)]
    published = [r for r in records if isinstance(r, Published)]
    counted = [row for row in rows if row["counter_tools"]]
    if imported:
        console.print(_imported_table(imported))
    if published:
        console.print(_published_table(published))
    if profiles:
        console.print(_profile_table(profiles))
    if counted:
        console.print(_counted_table(counted))
    return bool(imported or published or profiles or counted)


def _table(title: str, left: Sequence[str], right: Sequence[str], last: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left")
    for name in (*left, *right, *last):
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _imported_table(records: Sequence[Imported]) -> Table:
    title = "Imported timings: taken by other tools, not checked by Ridgeline, never compared with its own"
    table = _table(title, ("tool", "benchmark"), ("median", "min", "mean", "samples"), ("machine", "file"))
    for r in records:
        table.add_row(
            r.tool,
            _plain(r.benchmark),
            _seconds(r.statistics.median_s),
            _seconds(r.statistics.min_s),
            _seconds(r.statistics.mean_s),
            str(r.statistics.rounds) if r.samples_s else f"summary of {r.statistics.rounds}",
            _plain(r.device_text),
            _plain(r.source_file),
        )
    return table


MOST_PUBLISHED = 40
"""Rows of published times that are printed; ``--json`` has them all."""


def _published_table(records: Sequence[Published]) -> Table:
    shown = f", the first {MOST_PUBLISHED} of {len(records)}" if len(records) > MOST_PUBLISHED else ""
    title = f"Published times: measured by others, never compared with Ridgeline's own{shown}"
    left = ("device", "operator", "problem", "software")
    table = _table(title, left, ("time", "power W"), ("source", "quarantined"))
    for r in records[:MOST_PUBLISHED]:
        table.add_row(
            r.device_id or _plain(r.device_text), r.operator, _plain(r.problem_label), f"{r.tool} {r.tool_version}",
            _seconds(r.seconds), _number(r.power_w), _plain(r.source), r.quarantined,
        )  # fmt: skip
    return table


def _profile_table(records: Sequence[Counters]) -> Table:
    right = ("calls", "kernels", "kernel time", "DRAM MB", "L2 MB", "occupancy %")
    table = _table("Profiles, per call", ("tool", "operator", "implementation", "shape"), right, ("file", "notes"))
    for r in records:
        f = figures(r)
        table.add_row(
            r.tool, r.operator, r.implementation, _plain(r.problem_label), str(r.calls), str(len(r.kernels)),
            _seconds(f["profiled_kernel_s"]), _mega(f["dram_bytes_measured"]), _mega(f["l2_bytes_measured"]),
            _number(f["occupancy_percent"]), _plain(r.source_file), _plain("; ".join(r.notes)),
        )  # fmt: skip
    return table


def _counted_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    right = ("modelled MB", "DRAM MB", "ratio", "L2 MB", "L2 hit %", "occupancy %", "issue %", "kernel time")
    table = _table(
        "Bytes counted beside bytes modelled, per call", ("operator", "implementation", "shape"), right, ("by",)
    )
    for row in rows:
        table.add_row(
            row["operator"], row["implementation"], _plain(row["problem_label"]), _mega(row["bytes"]),
            _mega(row["dram_bytes_measured"]), _number(row["dram_bytes_ratio"]), _mega(row["l2_bytes_measured"]),
            _number(row["l2_hit_percent"]), _number(row["occupancy_percent"]), _number(row["issue_percent"]),
            _seconds(row["profiled_kernel_s"]), row["counter_tools"],
        )  # fmt: skip
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _mega(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:.4g}"


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    scale, unit = next(((s, u) for s, u in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")) if value >= s), (1e-9, "ns"))
    return f"{value / scale:.4g} {unit}"
