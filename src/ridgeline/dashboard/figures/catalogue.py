"""Devices of the catalogue against each other: arithmetic over bandwidth, with the ridge points between."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import plotly.graph_objects as go

from ridgeline.analytical.device import Device
from ridgeline.dashboard.figures import look
from ridgeline.dashboard.quantity_text import engineering

HEIGHT = 520
RIDGES_FLOP_PER_BYTE = (10, 100, 1000)
"""Lines of equal ridge point: a device on one is bound by arithmetic from so many operations a byte."""


def device_map(devices: Sequence[Device], precision: str, chosen: Collection[str] = ()) -> go.Figure:
    """A point per device that states a rate for ``precision`` and the bandwidth of its main memory, log-log.

    Args:
        devices: those to draw; one without either figure is left out.
        precision: operands of the dense rate.
        chosen: ids that carry their name.
    """
    placed = [
        (device, rate.value_per_s, memory.value_per_s)
        for device in devices
        if (rate := device.peak(precision)) and (memory := device.bandwidth(device.main_memory.name))
    ]
    figure = go.Figure()
    if placed:
        lowest, highest = min(b for *_, b in placed) / 2.0, max(b for *_, b in placed) * 2.0
        for ridge in RIDGES_FLOP_PER_BYTE:
            figure.add_trace(
                go.Scatter(
                    x=[lowest, highest], y=[ridge * lowest, ridge * highest], mode="lines",
                    line={"color": look.PHYSICAL, "width": 1, "dash": "dot"}, hoverinfo="skip", showlegend=False,
                    name=f"ridge {ridge}",
                )
            )  # fmt: skip
        tops = [value for _, value, _ in placed]
        for ridge in RIDGES_FLOP_PER_BYTE:
            # Where the line leaves the plot: at its right edge or at its top.
            end = min(highest, 2.0 * max(tops) / ridge)
            if end > lowest:
                figure.add_annotation(
                    x=math.log10(end), y=math.log10(ridge * end), text=f"{ridge} FLOP/B", showarrow=False,
                    xanchor="right", yanchor="bottom", font={"size": 11, "color": look.MUTED},
                )  # fmt: skip
        figure.update_yaxes(range=[math.log10(min(tops)) - 0.3, math.log10(max(tops)) + 0.4])
        figure.update_xaxes(range=[math.log10(lowest), math.log10(highest)])
    for index, vendor in enumerate(sorted({device.vendor for device, *_ in placed})):
        own = [each for each in placed if each[0].vendor == vendor]
        figure.add_trace(
            go.Scatter(
                x=[bandwidth for *_, bandwidth in own],
                y=[rate for _, rate, _ in own],
                mode="markers+text",
                name=vendor,
                marker={
                    "color": look.OPERATOR_COLOURS[index % len(look.OPERATOR_COLOURS)],
                    "symbol": look.SYMBOLS[index % len(look.SYMBOLS)],
                    "size": [13 if device.id in chosen else 8 for device, *_ in own],
                },
                text=[device.name if device.id in chosen else "" for device, *_ in own],
                textposition="top center",
                hovertext=[
                    f"<b>{device.name}</b><br>{engineering(rate, 'FLOP/s')} {precision}<br>"
                    f"{engineering(bandwidth, 'B/s')} {device.main_memory.name}, "
                    f"{engineering(device.main_memory.capacity_bytes, 'B')}<br>ridge point {rate / bandwidth:.0f} FLOP/B"
                    for device, rate, bandwidth in own
                ],
                hoverinfo="text",
            )
        )
    look.apply_look(figure, HEIGHT)
    decades = {"type": "log", "dtick": 1, "exponentformat": "SI extended", "minor": {"ticks": "outside", "dtick": "D1"}}
    figure.update_xaxes(title="bandwidth of main memory (B/s)", **decades)
    figure.update_yaxes(title=f"dense {precision} (FLOP/s)", **decades)
    if not placed:
        figure.add_annotation(
            x=0.5, y=0.5, xref="x domain", yref="y domain", showarrow=False, name="note",
            text=f"no device of this selection states a {precision} rate", font={"size": 14, "color": look.ALERT},
        )  # fmt: skip
    return figure
