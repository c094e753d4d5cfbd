"""Published times under their device's physical ceilings: a point each, a colour for each software."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ridgeline.analytical.device import Device
from ridgeline.analytical.work import RateKey
from ridgeline.dashboard.figures import look
from ridgeline.dashboard.figures.ceilings import ceiling_traces, physical_ceilings
from ridgeline.dashboard.quantity_text import engineering

HEIGHT = 560


def published_roofline(points: pd.DataFrame, device: Device, keys: Collection[RateKey]) -> go.Figure:
    """Points under the ceilings that their work needs.

    Args:
        points: rows of :class:`ridgeline.dashboard.published_points.PublishedPoints`, at least one.
        device: whose times they are.
        keys: arithmetic that they need.
    """
    ceilings = physical_ceilings(device, 1, keys)
    figure = go.Figure()
    xs, ys = points["intensity_flop_per_byte"], points["flop_per_s"]
    left, right = float(xs.min()) / 3.0, float(xs.max()) * 3.0
    figure.add_traces(ceiling_traces(ceilings, (left / 1e3, right * 1e3), physical=True))
    for index, (software, own) in enumerate(points.groupby("software", sort=True)):
        figure.add_trace(
            go.Scattergl(
                x=own["intensity_flop_per_byte"], y=own["flop_per_s"], mode="markers", name=str(software),
                marker={
                    "color": look.OPERATOR_COLOURS[index % len(look.OPERATOR_COLOURS)],
                    "symbol": look.SYMBOLS[index % len(look.SYMBOLS)],
                    "size": 4,
                    "opacity": 0.55,
                },
                hovertext=[_hover(row) for row in own.to_dict("records")],
                hoverinfo="text",
            )
        )  # fmt: skip
    look.apply_look(figure, HEIGHT)
    tops = [float(ys.max()), *(rate.value_per_s for rate in ceilings.rates)]
    decades = {"type": "log", "dtick": 1, "minor": {"ticks": "outside", "dtick": "D1"}}
    figure.update_xaxes(
        title="arithmetic intensity (FLOP/byte, compulsory bytes)", range=[math.log10(left), math.log10(right)],
        exponentformat="none", **decades,
    )  # fmt: skip
    figure.update_yaxes(
        title="performance (FLOP/s)", range=[math.log10(float(ys.min())) - 0.3, math.log10(max(tops)) + 0.4],
        exponentformat="SI extended", **decades,
    )  # fmt: skip
    return figure


def _hover(row: Mapping[Hashable, Any]) -> str:
    quarantined = f"<br>quarantined: {row['quarantined']}" if row["quarantined"] else ""
    return (
        f"<b>{row['problem']}</b><br>{row['kernel'] or row['software']}<br>{engineering(row['seconds'], 's')}, "
        f"{row['share']:.0%} of the bound by {row['bound_by']}{quarantined}"
    )
