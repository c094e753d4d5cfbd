"""Comparisons: ratios with their intervals against the margin, and the quads that one of them rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from ridgeline.dashboard.figures import look
from ridgeline.dashboard.kinds import REPLAY, is_replay
from ridgeline.dashboard.quantity_text import is_number

VERDICTS = {
    "faster": ("#009E73", "triangle-left"),
    "slower": ("#D55E00", "triangle-right"),
    "same": ("#0072B2", "circle"),
    "unclear": (look.MUTED, "circle-open"),
}
"""Colour and symbol of each verdict, said of B."""
MOST = 40
"""Rows of one forest plot; more cannot be read."""
MARGIN_BAND = "rgba(0, 114, 178, 0.10)"


def side_name(side: Mapping[str, Any]) -> str:
    """``implementation`` or ``implementation@revision``, and its configuration where it is a tuned one."""
    config = ", ".join(f"{name}={value}" for name, value in (side.get("config") or {}).items())
    return (
        f"{side['implementation']}"
        + (f"@{side['revision'][:12]}" if side["revision"] else "")
        + (config and f" ({config})")
    )


def ratio_text(row: Mapping[str, Any]) -> str:
    """``1.0532 [1.0411, 1.0650]``, four decimals: margins are a few per cent."""
    if not is_number(row["ratio"]):
        return "–"
    if not (is_number(row["ratio_low"]) and is_number(row["ratio_high"])):
        return f"{row['ratio']:.4f} (no interval)"
    return f"{row['ratio']:.4f} [{row['ratio_low']:.4f}, {row['ratio_high']:.4f}]"


def forest(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """A line per comparison: ratio of times B over A, its interval, and the margin within which both are the same.

    Args:
        rows: columns of :func:`ridgeline.results.comparison.derived`, of comparisons that have a ratio.
    """
    figure = go.Figure()
    names = [
        f"{row['operator']} {row['problem_label']}<br><b>{side_name(row['side_b'])}</b> over {side_name(row['side_a'])}"
        + (f"<br><b>{REPLAY}</b>" if is_replay(row["protocol"]) else "")
        for row in rows
    ]
    # The first row stands on top.
    heights = [len(rows) - 1 - index for index in range(len(rows))]
    for y, row in zip(heights, rows, strict=True):
        edge = 1.0 + row["margin"]
        figure.add_shape(
            type="rect", x0=1.0 / edge, x1=edge, y0=y - 0.5, y1=y + 0.5,
            fillcolor=MARGIN_BAND, line_width=0, layer="below", name="margin",
        )  # fmt: skip
    for said, (colour, symbol) in VERDICTS.items():
        members = [(y, row) for y, row in zip(heights, rows, strict=True) if row["verdict"] == said]
        if not members:
            continue
        figure.add_trace(
            go.Scatter(
                x=[row["ratio"] for _, row in members],
                y=[y for y, _ in members],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [_distance(row["ratio_high"], row["ratio"]) for _, row in members],
                    "arrayminus": [_distance(row["ratio"], row["ratio_low"]) for _, row in members],
                    "thickness": 2,
                    "width": 5,
                },
                mode="markers",
                marker={"size": 11, "color": colour, "symbol": symbol, "line": {"width": 2, "color": colour}},
                name=said,
                text=[_hover(row) for _, row in members],
                customdata=[[row["record_id"]] for _, row in members],
                hovertemplate="%{text}<extra></extra>",
                meta="ratio",
            )
        )
    ends = [v for r in rows for v in (r["ratio"], r["ratio_low"], r["ratio_high"]) if is_number(v)]
    ends += [1.0 + max(r["margin"] for r in rows), 1.0 / (1.0 + max(r["margin"] for r in rows))]
    low, high = min(ends), max(ends)
    # A ratio and its inverse are equally far from 1 on a logarithmic axis; near 1 both axes look alike.
    wide = high / low > 2.5
    pad = (high / low) ** 0.06
    figure.add_vline(x=1.0, line={"color": look.INK, "width": 1.2}, name="equal")
    look.apply_look(
        figure,
        110 + 46 * len(rows),
        margin={"l": 20, "r": 24, "t": 40, "b": 52},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.01,
            "yanchor": "bottom",
            "font": {"size": 12},
            "bgcolor": "rgba(0, 0, 0, 0)",
        },
    )
    span = [low / pad, high * pad]
    figure.update_xaxes(
        title_text="time of B over time of A (below 1: B is faster)",
        type="log" if wide else "linear",
        range=[math.log10(v) for v in span] if wide else span,
        **({"dtick": "D2"} if wide else {}),
    )
    figure.update_yaxes(
        tickmode="array", tickvals=heights, ticktext=names, range=[-0.6, len(rows) - 0.4], automargin=True, ticks="",
        showgrid=False,
    )  # fmt: skip
    return figure


def quad_ratios(row: Mapping[str, Any]) -> go.Figure:
    """Ratio of every quad in the order they were taken, with the median, its interval, the margin and the looks."""
    out = {left["block"]: left["cause"] for left in row["left_out"]}
    ratios = [sum(b) / sum(a) for a, b in zip(row["a_s"], row["b_s"], strict=True)]
    colour = VERDICTS[row["verdict"]][0]
    figure = go.Figure()
    groups = (
        ("A B B A", [i for i in range(len(ratios)) if i not in out and row["a_first"][i]], "circle", colour),
        ("B A A B", [i for i in range(len(ratios)) if i not in out and not row["a_first"][i]], "circle-open", colour),
        ("left out", sorted(out), look.LEFT_OUT, look.ALERT),
    )
    for name, members, symbol, shade in groups:
        if not members:
            continue
        figure.add_trace(
            go.Scatter(
                x=[i + 1 for i in members],
                y=[ratios[i] for i in members],
                mode="markers",
                marker={"size": 9 if name == "left out" else 7, "symbol": symbol, "color": shade, "opacity": 0.85},
                name=name,
                text=[
                    f"quad {i + 1}, arrangement {row['arrangement'][i]}<br>ratio {ratios[i]:.4f}"
                    + (f"<br>left out: {out[i]}" if i in out else "")
                    for i in members
                ],
                hovertemplate="%{text}<extra></extra>",
                meta="left out" if name == "left out" else "quads",
            )
        )
    edge = 1.0 + row["margin"]
    figure.add_hrect(y0=1 / edge, y1=edge, fillcolor=MARGIN_BAND, line_width=0, layer="below", name="margin")
    if is_number(row["ratio_low"]) and is_number(row["ratio_high"]):
        figure.add_hrect(
            y0=row["ratio_low"], y1=row["ratio_high"], fillcolor=look.BAND, line_width=0, layer="below", name="interval"
        )
    figure.add_hline(y=row["ratio"], line={"color": look.INK, "width": 1.4}, name="ratio")
    figure.add_hline(y=1.0, line={"color": look.MUTED, "width": 1, "dash": "dot"}, name="equal")
    # Looks count the quads that are used; where some are left out they lie later in the order of time.
    used = [i for i in range(len(ratios)) if i not in out]
    for look_at in row["looks"]:
        if look_at <= len(used):
            figure.add_vline(
                x=used[look_at - 1] + 1.5, line={"color": look.PHYSICAL, "width": 1, "dash": "dash"}, name="look"
            )
    look.apply_look(
        figure,
        340,
        margin={"l": 72, "r": 24, "t": 40, "b": 52},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.01,
            "yanchor": "bottom",
            "font": {"size": 12},
            "bgcolor": "rgba(0, 0, 0, 0)",
        },
    )
    figure.update_xaxes(title_text="quad, in the order of time", range=[0, len(ratios) + 1], showgrid=False)
    figure.update_yaxes(title_text="time of B over time of A")
    return figure


def _distance(far: Any, near: Any) -> float | None:
    return far - near if is_number(far) and is_number(near) else None


def _hover(row: Mapping[str, Any]) -> str:
    lines = [
        f"<b>{row['operator']}</b> {row['problem_label']}",
        f"B {side_name(row['side_b'])} over A {side_name(row['side_a'])}",
        f"{row['verdict']}: {ratio_text(row)}",
        f"margin {row['margin'] * 100:g} %, {row['n_quads']} quads",
    ]
    if is_replay(row["protocol"]):
        lines.append(f"<b>{REPLAY}</b>")
    return "<br>".join(lines)
