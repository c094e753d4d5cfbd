"""Numbers that other tools took, in tables of their own: nothing in Ridgeline checked how."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ridgeline.dashboard.quantity_text import MISSING, digits, engineering, is_number
from ridgeline.results.counters import Counters
from ridgeline.results.imported import Imported
from ridgeline.results.published import Published
from ridgeline.results.serving import LatencyStatistics, Serving
from ridgeline.results.views_counters import figures


def imported_table(records: Sequence[Imported]) -> pd.DataFrame:
    """A line per benchmark of another tool, with the statistics as the tool states them."""
    return pd.DataFrame(
        {
            "tool": [f"{r.tool} {r.tool_version}".strip() for r in records],
            "benchmark": [r.benchmark for r in records],
            "median (min to max)": [
                f"{engineering(r.statistics.median_s, 's')} ({engineering(r.statistics.min_s, 's')} to "
                f"{engineering(r.statistics.max_s, 's')})"
                for r in records
            ],
            "rounds": [r.statistics.rounds for r in records],
            "parameters": [json.dumps(r.parameters, sort_keys=True) if r.parameters else MISSING for r in records],
            "machine, in the tool's words": [r.device_text for r in records],
            "file": [r.source_file for r in records],
            "run": [r.run_id for r in records],
        }
    )


def published_table(records: Sequence[Published]) -> pd.DataFrame:
    """A line per published time."""
    return pd.DataFrame(
        {
            "device": [r.device_id or r.device_text for r in records],
            "operator": [r.operator for r in records],
            "problem": [r.problem_label for r in records],
            "software": [f"{r.tool} {r.tool_version}" for r in records],
            "time": [engineering(r.seconds, "s") for r in records],
            "power": [MISSING if r.power_w is None else engineering(r.power_w, "W") for r in records],
            "quarantined": [r.quarantined or MISSING for r in records],
            "source": [f"{r.source} ({r.licence}), {r.source_file}" for r in records],
            "run": [r.run_id for r in records],
        }
    )


def serving_table(records: Sequence[Serving]) -> pd.DataFrame:
    """A line per serving run of another tool, with the statistics as the tool states them."""
    return pd.DataFrame(
        {
            "tool": [f"{r.tool} {r.tool_version}".strip() for r in records],
            "model": [r.served_model for r in records],
            "hardware, in the tool's words": [r.device_text or MISSING for r in records],
            "engine": [f"{r.backend} {r.precision}".strip() or MISSING for r in records],
            "GPUs": [str(r.gpu_count or MISSING) for r in records],
            "users": [str(r.concurrency or MISSING) for r in records],
            "requests/s": [digits(r.requests_per_s) if r.requests_per_s else MISSING for r in records],
            "in / out": [f"{_tokens(r.mean_input_tokens)} / {_tokens(r.mean_output_tokens)}" for r in records],
            "ttft": [_latency(r.latencies.get("ttft")) for r in records],
            "tpot": [_latency(r.latencies.get("tpot")) for r in records],
            "e2el": [_latency(r.latencies.get("e2el")) for r in records],
            "tokens/s per GPU": [_tokens(r.total_tokens_per_s_per_gpu) for r in records],
            "file": [r.source_file for r in records],
            "run": [r.run_id for r in records],
        }
    )


def _latency(said: LatencyStatistics | None) -> str:
    """The median, or the mean where the tool states none."""
    if said is None:
        return MISSING
    if said.median_s is not None:
        return engineering(said.median_s, "s")
    return f"mean {engineering(said.mean_s, 's')}" if said.mean_s is not None else MISSING


def _tokens(value: float | None) -> str:
    return MISSING if value is None else f"{value:.0f}"


def profile_table(records: Sequence[Counters]) -> pd.DataFrame:
    """A line per profile; bytes and seconds of one call."""
    found = [figures(r) for r in records]
    return pd.DataFrame(
        {
            "tool": [r.tool for r in records],
            "operator": [r.operator for r in records],
            "problem": [r.problem_label for r in records],
            "implementation": [r.implementation for r in records],
            "DRAM bytes": [engineering(f["dram_bytes_measured"], "B") for f in found],
            "L2 bytes": [engineering(f["l2_bytes_measured"], "B") for f in found],
            "kernel time under the profiler": [engineering(f["profiled_kernel_s"], "s") for f in found],
            "occupancy": [_percent(f["occupancy_percent"]) for f in found],
            "calls": [r.calls for r in records],
            "notes": ["; ".join(r.notes) for r in records],
            "file": [r.source_file for r in records],
            "run": [r.run_id for r in records],
        }
    )


def counter_facts(row: pd.Series) -> list[tuple[str, str]]:
    """What profilers counted of the kernel of one measurement, beside what is modelled; empty where none did."""
    tools = row.get("counter_tools")
    if not isinstance(tools, str) or not tools:
        return []
    ratio: Any = row.get("dram_bytes_ratio")
    found = [
        ("DRAM bytes, counted", engineering(row.get("dram_bytes_measured"), "B")),
        ("compulsory bytes, modelled", engineering(row.get("bytes"), "B")),
        ("counted over modelled", digits(ratio) if is_number(ratio) else MISSING),
        ("L2 bytes, counted", engineering(row.get("l2_bytes_measured"), "B")),
        ("L2 hits", _percent(row.get("l2_hit_percent"))),
        ("occupancy", _percent(row.get("occupancy_percent"))),
        ("cycles that issued", _percent(row.get("issue_percent"))),
        ("kernel time under the profiler", engineering(row.get("profiled_kernel_s"), "s")),
    ]
    return [(name, text) for name, text in found if text != MISSING]


def _percent(value: Any) -> str:
    return f"{digits(float(value))} %" if is_number(value) else MISSING
