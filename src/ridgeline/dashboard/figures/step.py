"""What a step of a model is made of: the bound of each operator, a bar per device."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from ridgeline.dashboard.figures import look
from ridgeline.dashboard.quantity_text import engineering

BAR_PX = 56
MOST_PARTS = len(look.OPERATOR_COLOURS) - 1
"""Operators with a colour of their own; the shorter ones are one part together."""
REST = "all others"


def step_bars(by_device: Mapping[str, pd.DataFrame]) -> go.Figure:
    """A stacked bar per device.

    Args:
        by_device: name of the device to its rows with ``operator``, ``seconds`` (of all runs of it in the step),
            ``bound_by``.
    """
    totals = pd.concat(by_device.values()).groupby("operator", sort=False)["seconds"].sum() if by_device else None
    figure = go.Figure()
    parts = [] if totals is None else list(totals.sort_values(ascending=False).index[:MOST_PARTS])
    for index, part in enumerate([*parts, REST]):
        seconds, hovers = [], []
        for rows in by_device.values():
            own = rows[~rows["operator"].isin(parts)] if part == REST else rows[rows["operator"] == part]
            total = float(own["seconds"].sum())
            share = total / float(rows["seconds"].sum())
            limits = ", ".join(sorted(set(own["bound_by"])))
            seconds.append(total)
            hovers.append(f"<b>{part}</b><br>{engineering(total, 's')}, {share:.1%}<br>bound by {limits}")
        if not any(seconds):
            continue
        figure.add_trace(
            go.Bar(
                y=list(by_device), x=seconds, orientation="h", name=part, hovertext=hovers, hoverinfo="text",
                marker={"color": look.MUTED if part == REST else look.OPERATOR_COLOURS[index]},
            )
        )  # fmt: skip
    look.apply_look(figure, 130 + BAR_PX * max(len(by_device), 1), barmode="stack", margin={"l": 220, "b": 64, "t": 24})
    figure.update_xaxes(title="bound of the step (s)", exponentformat="SI", rangemode="tozero")
    figure.update_yaxes(autorange="reversed")
    return figure
