"""What stands in a store beside our measurements of kernels: timings of other tools, profiles, requests to models."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ridgeline.results.check import PaperCheck
from ridgeline.results.counters import Counters
from ridgeline.results.imported import Imported
from ridgeline.results.model_step import ModelStep
from ridgeline.results.published import Published
from ridgeline.results.serving import LatencyStatistics, Serving
from ridgeline.results.store import Store
from ridgeline.results.views_counters import figures


def other_rows(store: Store, run_id: str | None) -> list[dict[str, Any]]:
    """Records of other kinds than measurements, as stored; ``kind`` tells them from ours."""
    kinds = Imported | Counters | Published | Serving | ModelStep | PaperCheck
    return [r.model_dump(mode="json") for r in store.records(run_id)[0] if isinstance(r, kinds)]


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
    serving = [r for r in records if isinstance(r, Serving)]
    steps = [r for r in records if isinstance(r, ModelStep)]
    checks = [r for r in records if isinstance(r, PaperCheck)]
    counted = [row for row in rows if row["counter_tools"]]
    if imported:
        console.print(_imported_table(imported))
    if published:
        console.print(_published_table(published))
    if profiles:
        console.print(_profile_table(profiles))
    if serving:
        console.print(_serving_table(serving))
    if counted:
        console.print(_counted_table(counted))
    if steps:
        console.print(_step_table(steps))
    if checks:
        console.print(_check_table(checks))
    return bool(imported or published or profiles or serving or counted or steps or checks)


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


def _serving_table(records: Sequence[Serving]) -> Table:
    title = "Serving runs: taken by other tools, not checked by Ridgeline"
    right = ("GPUs", "tp", "load", "in / out", "ttft", "tpot", "e2el", "tokens/s/GPU", "out/s/GPU")
    table = _table(title, ("tool", "model", "device", "engine"), right, ("file",))
    for r in records:
        if r.concurrency is not None:
            load = f"{r.concurrency} users"
        else:
            load = "" if r.request_rate_per_s is None else f"{r.request_rate_per_s:.4g}/s"
        engine = " ".join(part for part in (r.backend, r.tool_version, r.precision) if part)
        table.add_row(
            r.tool, _plain(r.served_model), _plain(r.device_text), _plain(engine), _number(r.gpu_count),
            _number(r.tensor_parallel), load, f"{_whole(r.mean_input_tokens)} / {_whole(r.mean_output_tokens)}",
            *(_latency(r.latencies.get(metric)) for metric in ("ttft", "tpot", "e2el")),
            _whole(r.total_tokens_per_s_per_gpu), _whole(r.output_tokens_per_s_per_gpu), _plain(r.source_file),
        )  # fmt: skip
    return table


def _latency(said: LatencyStatistics | None) -> str:
    """The median, and the highest percentile that the tool states."""
    if said is None:
        return ""
    text = _seconds(said.median_s if said.median_s is not None else said.percentiles_s.get("50"))
    highest = max(said.percentiles_s, key=float, default=None)
    if highest is None:
        return text or f"mean {_seconds(said.mean_s)}"
    return f"{text}, p{highest} {_seconds(said.percentiles_s[highest])}".removeprefix(", ")


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


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


def _step_table(records: Sequence[ModelStep]) -> Table:
    right = ("p", "o", "b", "median", "min", "trials", "left out")
    table = _table("Requests to whole models", ("model", "weights"), right, ("machine", "status"))
    for r in records:
        totals = [sum(trial) for trial in r.used_samples_s]
        table.add_row(
            _plain(r.model), r.precision, str(r.prompt_tokens), str(r.output_tokens), str(r.batch),
            _seconds(statistics.median(totals) if totals else None), _seconds(min(totals, default=None)),
            str(len(r.samples_s)), str(len(r.left_out)), _plain(r.placement.device),
            _plain(": ".join(filter(None, (r.status, r.reason)))),
        )  # fmt: skip
    return table


def _check_table(records: Sequence[PaperCheck]) -> Table:
    table = _table("Checks of papers", ("paper", "check", "kind", "status"), ("value", "threshold", "time"), ("seen",))
    for r in records:
        table.add_row(
            r.paper, r.check, r.check_kind, r.status, _number(r.value), _number(r.threshold), _seconds(r.seconds),
            _plain("; ".join(filter(None, (r.text, r.reason)))),
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
