"""The summary of a run: one table a person wants to read, or one JSON document."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from ridgeline.bench.compare_report import comparison_table, comparisons
from ridgeline.bench.other_kinds import other_rows, print_other_kinds
from ridgeline.bench.tuning_table import tuning_table
from ridgeline.results import views
from ridgeline.results.comparison import derived
from ridgeline.results.measurement import Measurement
from ridgeline.results.pooling import PooledCase, pool
from ridgeline.results.store import Store
from ridgeline.results.tuning import choices

STATUS_STYLE = {"ok": "green", "unstable": "yellow", "unsupported": "dim"}
PLAIN_WIDTH = 200
"""Columns where the output is not a terminal; rich would fold the table at 80."""


def print_json(store: Store, run_id: str | None) -> None:
    """Every stored and derived column of every record; damaged data is named on standard error."""
    _warn_set_aside(store, run_id)
    rows = [*views.rows(store, run_id), *other_rows(store, run_id), *map(derived, comparisons(store, run_id))]
    print(json.dumps(rows, indent=1, allow_nan=False))


def print_summary(store: Store, run_id: str | None, closing: bool = False) -> None:
    """The table, by operator; ``closing`` adds what to do next, for the end of a run."""
    _warn_set_aside(store, run_id)
    rows = views.rows(store, run_id)
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    compared = comparisons(store, run_id)
    if compared:
        console.print(comparison_table(compared))
    if (print_other_kinds(store, run_id, rows, console) or compared) and not rows:
        return
    if not rows:
        console.print(f"No records in {store.path}. Measure some: ridgeline run quick")
        return
    roofs = [r for r in rows if r["role"] == "roof"]
    cases = [r for r in rows if r["role"] == "case"]
    if roofs:
        console.print(_roof_table(roofs))
    if cases:
        console.print(_case_table(cases))
    searched = [r for r in rows if r["role"] == "tuning"]
    if searched:
        console.print(
            tuning_table(searched, choices(r for r in store.records(run_id)[0] if isinstance(r, Measurement)))
        )
    pooled = _pooled(store, run_id)
    if pooled:
        console.print(_pooled_table(pooled))
    reasons = {r["energy_reason"] for r in rows if r["energy_j"] is None and r["energy_reason"]}
    if reasons:
        console.print(f"energy: empty, because {'; '.join(sorted(reasons))}", markup=False)
    counts = Counter(r["status"] for r in rows)
    console.print(", ".join(f"{count} {status}" for status, count in counts.most_common()), markup=False)
    if closing and run_id is not None:
        console.print(f"Stored as {run_id} in {store.path}. Next:", markup=False)
        where = "" if store.path == Store().path else f" --store {store.path}"
        # As it was called, where it is not on the path: inside a virtual environment that is not active.
        command = "ridgeline" if shutil.which("ridgeline") else sys.argv[0]
        console.print(f"  {command} dashboard{where}", markup=False)
        console.print(f"  {command} show {run_id}{where}", markup=False)


def _warn_set_aside(store: Store, run_id: str | None) -> None:
    for item in store.records(run_id)[1]:
        print(f"ridgeline: set aside {item.where}: {item.reason}", file=sys.stderr)


def _roof_table(rows: list[dict[str, Any]]) -> Table:
    """The fastest result of each ceiling, which is the ceiling; the others are in ``show --json``."""
    table = Table(title="Roofs measured", title_justify="left")
    for name in ("ceiling", "threads", "by", "rate", "interval", "status"):
        table.add_column(name, justify="right" if name in ("threads", "rate", "interval") else "left")
    fastest: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in rows:
        limit = row["level"] if row["operator"] == "stream" else row["problem_label"]
        key = (row["operator"], limit or "", row["threads"])
        if key not in fastest or (_roof_rate(row)[0] or 0.0) > (_roof_rate(fastest[key])[0] or 0.0):
            fastest[key] = row
    for (operator, limit, threads), row in sorted(fastest.items()):
        rate, unit = _roof_rate(row)
        spread = ""
        if rate is not None and row["interval_high_s"] is not None:
            low = rate * row["median_s"] / row["interval_high_s"]
            high = rate * row["median_s"] / row["interval_low_s"]
            spread = f"{low:.4g} to {high:.4g}"
        by = f"{operator} {row['implementation']}" + (f", {row['problem_label']}" if operator == "stream" else "")
        shown = f"{rate:.4g} {unit}" if rate else ""
        table.add_row(limit, str(threads), by, shown, spread, _status(row))
    return table


def _roof_rate(row: dict[str, Any]) -> tuple[float | None, str]:
    key, unit = ("bytes_per_s", "GB/s") if row["operator"] == "stream" else ("flop_per_s", "GFLOP/s")
    if str(row["problem"].get("precision", "")).startswith("int"):
        unit = "GOP/s"
    return (None if row[key] is None else row[key] / 1e9), unit


def _case_table(rows: list[dict[str, Any]]) -> Table:
    replayed = any(row["protocol"]["timer"] == "replay" for row in rows)
    title = "Cases replayed from a trace: no measurement" if replayed else "Cases"
    table = Table(title=title, title_justify="left")
    columns = (
        "operator", "implementation", "shape", "cache", "median", "± %", "GFLOP/s", "GB/s",
        "% of roof", "bound by", "x baseline", "energy", "status",
    )  # fmt: skip
    links = ("algbw GB/s", "busbw GB/s") if any(row["algbw_bytes_per_s"] is not None for row in rows) else ()
    columns = (*columns[:8], *links, *columns[8:])
    right = {"median", "± %", "GFLOP/s", "GB/s", "% of roof", "x baseline", *links}
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    last = ""
    sweep = len({row["threads"] for row in rows}) > 1
    order = ("operator", "problem_label", "cache", "threads", "implementation", "process")
    for row in sorted(rows, key=lambda r: tuple(r[key] for key in order)):
        if last and row["operator"] != last:
            table.add_section()
        table.add_row(
            row["operator"] if row["operator"] != last else "",
            row["implementation"] + (" (tuned)" if row["config"] else ""),
            row["problem_label"],
            row["cache"] + (f", {row['threads']} thr" if sweep else ""),
            time_text(row["median_s"]),
            _half_width(row),
            _scaled(row["flop_per_s"]),
            # A collective's bytes are those of its link: its memory's would stand beside them as a third rate.
            "" if row["algbw_bytes_per_s"] is not None else _scaled(row["bytes_per_s"]),
            *(_scaled(row[f"{name[:5]}_bytes_per_s"]) for name in links),
            _percent(row),
            row["bound"] or "",
            "" if row["speed_ratio_to_baseline"] is None else f"{row['speed_ratio_to_baseline']:.2f}",
            "no meter" if row["energy_j"] is None else f"{row['energy_j']:.3g} J",
            _status(row),
        )
        last = row["operator"]
    return table


def _pooled(store: Store, run_id: str | None) -> list[PooledCase]:
    """Cases that were timed in more than one process."""
    records = [r for r in store.records(run_id)[0] if isinstance(r, Measurement) and r.role == "case"]
    return [case for case in pool(records) if len(case.used) > 1]


def _pooled_table(cases: list[PooledCase]) -> Table:
    table = Table(title="Over fresh processes", title_justify="left")
    for name in ("operator", "implementation", "shape", "cache", "processes", "median", "± %", "from", "spread is of"):
        table.add_column(name, justify="right" if name in ("processes", "median", "± %") else "left", overflow="fold")
    sweep = len({case.used[0].protocol.threads for case in cases}) > 1
    for case in cases:
        first, summary = case.used[0], case.summary
        assert summary is not None
        half = summary.half_width_relative
        table.add_row(
            first.operator,
            first.implementation,
            first.problem_label,
            first.protocol.cache + (f", {first.protocol.threads} thr" if sweep else ""),
            str(len(case.used)),
            time_text(summary.median),
            "" if math.isinf(half) else f"{half * 100:.1f}",
            summary.basis,
            summary.spread.dominant or "",
        )
    return table


def time_text(seconds: float | None) -> str:
    """Four significant figures with the unit that suits: ``42.3 ms``; empty for none."""
    if seconds is None:
        return ""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{seconds / scale:.4g} {unit}"
    return f"{seconds / 1e-9:.4g} ns"


def _half_width(row: dict[str, Any]) -> str:
    if row["interval_low_s"] is None:
        return ""
    return f"{(row['interval_high_s'] - row['interval_low_s']) / 2 / row['median_s'] * 100:.1f}"


def _scaled(per_s: float | None) -> str:
    return "" if per_s is None else f"{per_s / 1e9:.4g}"


def _percent(row: dict[str, Any]) -> str:
    if row["roof_fraction"] is None:
        return ""
    mark = " !" if row["above_measured_roof"] else ""
    return f"{row['roof_fraction'] * 100:.0f}{mark}"


def _status(row: dict[str, Any]) -> str:
    style = STATUS_STYLE.get(row["status"], "red")
    reason = row["reason"]
    if row["above_measured_roof"]:
        reason = (reason + "; " if reason else "") + "above the measured roof: measure the roofs again"
    text = f"[{style}]{row['status']}[/{style}]"
    return text + (": " + reason.replace("[", r"\[") if reason else "")
