"""Tables under the charts: figures as readable text, in a fixed order of columns; exports keep the stored names."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from ridgeline.analytical.ceilings import PHYSICAL
from ridgeline.analytical.device import Device
from ridgeline.dashboard.kinds import is_replay
from ridgeline.dashboard.quantity_text import engineering, percent_interval, plain, with_interval


def status_of(frame: pd.DataFrame) -> list[str]:
    """Status of each row; of a scripted one it says so, because no clock was read."""
    return [
        f"{status}, replay" if is_replay(protocol) else status
        for status, protocol in zip(frame["status"], frame["protocol"], strict=True)
    ]


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per measurement for people: medians with intervals, prefixes, roof fraction, link to its detail."""
    rows = frame.sort_values(["operator", "problem_label", "implementation", "threads", "cache", "process"])
    many = bool((rows["process"] > 0).any())
    return pd.DataFrame(
        {
            "detail": [kernel_link(run, record) for run, record in zip(rows["run_id"], rows["record_id"], strict=True)],
            "operator": rows["operator"],
            "problem": rows["problem_label"],
            "implementation": rows["implementation"],
            "status": status_of(rows),
            "time [interval]": [
                with_interval(m, low, high, "s")
                for m, low, high in zip(rows["median_s"], rows["interval_low_s"], rows["interval_high_s"], strict=True)
            ],
            "roof fraction [interval]": [
                percent_interval(v, low, high)
                for v, low, high in zip(
                    rows["roof_fraction"], rows["roof_fraction_low"], rows["roof_fraction_high"], strict=True
                )
            ],
            "bound by": rows["bound"].fillna("–"),
            "arithmetic": [engineering(v, "FLOP/s") for v in rows["flop_per_s"]],
            "bandwidth": [engineering(v, "B/s") for v in rows["bytes_per_s"]],
            "intensity": [plain(v, "FLOP/B") for v in rows["intensity_flop_per_byte"]],
            "protocol": [
                f"{c}, {t} thread{'s' if t != 1 else ''}{f', process {n}' if many else ''}"
                for c, t, n in zip(rows["cache"], rows["threads"], rows["process"], strict=True)
            ],
            "level": rows["level"].fillna("–"),
        }
    )


def ceilings_of(device: Device, threads: int) -> pd.DataFrame:
    """Every ceiling that holds for ``threads`` threads, with interval, kind and source."""
    selected = device.select(["measured", *PHYSICAL], threads)
    return pd.DataFrame(
        [
            {
                "ceiling": c.label,
                "kind": c.kind,
                "value [interval]": engineering(c.value_per_s, unit)
                if c.low_per_s == c.high_per_s
                else with_interval(c.value_per_s, c.low_per_s, c.high_per_s, unit),
                "source": ", ".join(part for part in (c.source.title, c.source.detail, c.source.date) if part),
            }
            for ceilings, unit in ((selected.rates, "FLOP/s"), (selected.bandwidths, "B/s"))
            for c in ceilings
        ],
        columns=["ceiling", "kind", "value [interval]", "source"],
    ).sort_values(["kind", "ceiling"], ascending=[False, True])


def kernel_link(run_id: str, record_id: str) -> str:
    """Address of the page of one measurement, relative to the dashboard's."""
    return "/kernel?" + urlencode({"run": run_id, "record": record_id})


def show_measurements(frame: pd.DataFrame, key: str) -> None:
    """The readable table."""
    st.dataframe(
        readable(frame),
        width="stretch",
        hide_index=True,
        key=key,
        column_config={
            "detail": st.column_config.LinkColumn("detail", display_text="open", width=56, pinned=True),
            "status": st.column_config.TextColumn("status", width=96),
        },
    )


def show_failures(frame: pd.DataFrame, key: str) -> None:
    """Cases without a number, each with its reason; nothing where there are none."""
    failed = frame[frame["status"] != "ok"]
    if failed.empty:
        return
    st.subheader("Not ok", help="Measurements that gave no valid figure, or one that is not certain, and why.")
    st.dataframe(
        pd.DataFrame(
            {
                "status": failed["status"],
                "operator": failed["operator"],
                "problem": failed["problem_label"],
                "implementation": failed["implementation"],
                "reason": failed["reason"],
            }
        ).sort_values(["status", "operator", "problem"]),
        width="stretch",
        hide_index=True,
        key=key,
        column_config={"reason": st.column_config.TextColumn("reason", width="large")},
    )


def csv_of(frame: pd.DataFrame) -> str:
    """All stored and derived columns but the raw samples, under their stored names, mappings as JSON."""
    flat = frame.drop(columns=["samples_s"]).copy()
    for column in flat.columns:
        if flat[column].map(lambda value: isinstance(value, dict | list | tuple)).any():
            flat[column] = flat[column].map(lambda value: json.dumps(value, sort_keys=True))
    return flat.to_csv(index=False)
