"""Points of measured cases: one trace per operator and implementation, with the interval as an error bar."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ridgeline.dashboard.figures.look import ALERT, Styles
from ridgeline.dashboard.kinds import REPLAY, is_replay
from ridgeline.dashboard.quantity_text import engineering, is_number, percent_interval, plain, with_interval

MANY = 5000
"""Points above which a chart is drawn with WebGL: SVG gets slow."""


def hover_text(row: Any) -> str:
    """Everything that is known of one case, for the box beside the mouse."""
    lines = [
        f"<b>{row.operator}</b> · {row.implementation}",
        f"{row.problem_label}",
        f"time {with_interval(row.median_s, row.interval_low_s, row.interval_high_s, 's')}",
        f"{engineering(row.flop_per_s, 'FLOP/s')} · {engineering(row.bytes_per_s, 'B/s')}"
        f" · {plain(row.intensity_flop_per_byte, 'FLOP/B')}",
        "roof fraction " + percent_interval(row.roof_fraction, row.roof_fraction_low, row.roof_fraction_high),
        f"bound by {row.bound} (data in {row.level})" if isinstance(row.bound, str) else "bound: no measured ceiling",
        f"protocol {row.cache} cache, {row.threads} thread{'s' if row.threads != 1 else ''}",
        f"status {row.status}" + (f": {row.reason}" if row.reason else ""),
    ]
    if is_replay(row.protocol):
        lines.append(f"<b>{REPLAY}</b>")
    if row.above_measured_roof is True or row.above_measured_roof == 1:
        lines.append("above the measured roof, below physics: measure the roofs again")
    return "<br>".join(lines)


def case_traces(frame: pd.DataFrame, styles: Styles, x: str, y: str) -> list[go.Scatter | go.Scattergl]:
    """Traces of all rows of ``frame``, columns ``x`` against ``y``, nothing clamped.

    Open symbols are unstable measurements; a red rim marks a time below the physical bound (impossible) or above the
    measured roof. The interval of the time becomes that of ``y``, which is proportional to 1/time.
    """
    kind = go.Scattergl if len(frame) > MANY else go.Scatter
    traces = []
    for (group, member), rows in frame.groupby(["operator", "implementation"], sort=True):
        operator, implementation = str(group), str(member)
        # The legend shows the first symbol: a filled one, where there is one.
        rows = rows.sort_values("status", key=lambda s: s != "ok", kind="stable")
        symbol = styles.symbol(implementation)
        suspect = (rows["status"] == "impossible") | rows["above_measured_roof"].fillna(False).astype(bool)
        traces.append(
            kind(
                x=rows[x],
                y=rows[y],
                error_y=_error_bars(rows, y),
                mode="markers",
                name=implementation,
                legendgroup=operator,
                legendgrouptitle={"text": operator},
                marker={
                    "size": 11,
                    "color": styles.colour(operator),
                    "symbol": [symbol + ("-open" if status != "ok" else "") for status in rows["status"]],
                    "line": {
                        "width": [2.5 if s else 1 for s in suspect],
                        # An open symbol draws nothing but its rim, so the rim keeps the colour of the operator.
                        "color": [
                            ALERT if s else styles.colour(operator) if status != "ok" else "white"
                            for s, status in zip(suspect, rows["status"], strict=True)
                        ],
                    },
                },
                text=[hover_text(row) for row in rows.itertuples(index=False)],
                customdata=rows[["record_id"]].to_numpy(),
                hovertemplate="%{text}<extra></extra>",
                meta="case",
            )
        )
    return traces


def _error_bars(rows: pd.DataFrame, y: str) -> dict[str, Any]:
    """Distances from the rate at the median to the rates at the ends of the interval; none without an interval."""
    above: list[float | None] = []
    below: list[float | None] = []
    columns = ["median_s", "interval_low_s", "interval_high_s", y]
    for median, low, high, rate in rows[columns].itertuples(index=False):
        known = is_number(low) and is_number(high)
        above.append(rate * (median / low - 1.0) if known else None)
        below.append(rate * (1.0 - median / high) if known else None)
    return {
        "type": "data",
        "symmetric": False,
        "array": above,
        "arrayminus": below,
        "thickness": 1.4,
        "width": 4,
    }
