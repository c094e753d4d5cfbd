"""Cases that were measured in several processes: the outer statistical blocks, each with its own median."""

from __future__ import annotations

import pandas as pd

from ridgeline.dashboard.quantity_text import MISSING, is_number, percent, with_interval


def siblings(frame: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    """The measurement of each process of the case of ``row``; where one was measured again, the later stands."""
    same = frame[frame["case_id"] == row["case_id"]]
    return same.drop_duplicates("process", keep="last").sort_values("process")


def several(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the cases with more than one process."""
    latest = frame.drop_duplicates(["case_id", "process"], keep="last")
    return latest[latest["case_id"].duplicated(keep=False)]


def spread(medians: pd.Series) -> str:
    """How far the processes' medians lie apart, relative to their median."""
    known = medians.dropna()
    return percent((known.max() - known.min()) / known.median()) if len(known) > 1 else MISSING


def per_process(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per process, for the detail of one case."""
    return pd.DataFrame(
        {
            "process": rows["process"],
            "status": rows["status"],
            "time [interval]": [
                with_interval(m, low, high, "s")
                for m, low, high in zip(rows["median_s"], rows["interval_low_s"], rows["interval_high_s"], strict=True)
            ],
            "roof fraction": [percent(v) for v in rows["roof_fraction"]],
            "blocks": [int(n) if is_number(n) else None for n in rows["n_blocks"]],
            "record": rows["record_id"],
        }
    )


def per_case(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per case with the medians of its processes side by side, and how far they lie apart."""
    lines = []
    for _, members in rows.groupby("case_id", sort=False):
        first, ordered = members.iloc[0], members.sort_values("process")
        texts = [
            f"{p}: {with_interval(m, low, high, 's')}"
            for p, m, low, high in ordered[["process", "median_s", "interval_low_s", "interval_high_s"]].itertuples(
                index=False
            )
        ]
        lines.append(
            {
                "operator": first["operator"],
                "problem": first["problem_label"],
                "implementation": first["implementation"],
                "processes": len(members),
                "spread": spread(members["median_s"]),
                "process: time [interval]": " · ".join(texts),
            }
        )
    return pd.DataFrame(lines).sort_values(["operator", "problem", "implementation"])
