"""Cases without arithmetic: pure movement, shown as bandwidth against the memory levels' ceilings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from ridgeline.analytical.ceilings import Bandwidth
from ridgeline.analytical.device import Device
from ridgeline.dashboard.figures import look
from ridgeline.dashboard.figures.ceiling_labels import PIXELS_PER_LETTER, name_of, same_value
from ridgeline.dashboard.figures.ceilings import ceiling_hover, measured_ceilings, physical_ceilings
from ridgeline.dashboard.figures.points import case_traces

WIDTH = 760.0
"""Width of the plot area in pixels on a common screen."""


def bandwidth_strip(
    frame: pd.DataFrame,
    device: Device | None,
    *,
    threads: int,
    show_physical: bool = True,
    styles: look.Styles | None = None,
) -> go.Figure:
    """A row per shape, bandwidth on a log axis, ceilings as verticals with their interval as a band.

    Args:
        frame: rows without arithmetic, such as copies.
        device: with its ceilings, or ``None``.
        threads: ceilings that hold for this many threads are drawn.
        show_physical: draw the data sheet's ceilings too, dashed.
        styles: colours and symbols, from the table before any filter.
    """
    frame = frame.assign(row=[f"{r.problem_label} · {r.cache}" for r in frame.itertuples()])
    row_of = dict(zip(frame["record_id"], frame["row"], strict=True))
    figure = go.Figure()
    for trace in case_traces(frame, styles or look.styles_of(frame), "bytes_per_s", "bytes_per_s"):
        trace.update(y=[row_of[record] for (record,) in trace.customdata], error_x=trace.error_y.to_plotly_json())
        trace.error_y = None
        figure.add_trace(trace)
    rows = list(dict.fromkeys(frame["row"]))
    look.apply_look(figure, 104 + 30 * len(rows), margin={"l": 180, "r": 16, "t": 64, "b": 52})
    figure.update_yaxes(categoryorder="array", categoryarray=list(reversed(rows)), type="category")
    measured = measured_ceilings(device, threads, ()).bandwidths if device is not None else ()
    physical = physical_ceilings(device, threads, ()).bandwidths if device is not None and show_physical else ()
    values = [float(v) for v in frame["bytes_per_s"] if v > 0] + [c.value_per_s for c in (*measured, *physical)]
    low, high = math.log10(min(values)) - 0.25, math.log10(max(values)) + 0.25
    _verticals(figure, measured, physical, WIDTH / (high - low))
    figure.update_xaxes(
        type="log",
        title={"text": "bandwidth (B/s)"},
        exponentformat="SI",
        dtick=1,
        minor={"ticks": "outside", "ticklen": 3, "dtick": "D1"},
        range=[low, high],
    )
    return figure


def _verticals(
    figure: go.Figure, measured: Sequence[Bandwidth], physical: Sequence[Bandwidth], decade_pixels: float
) -> None:
    """Draw the levels' ceilings; a name that would cover another stands a row higher."""
    for ceiling in measured:
        if ceiling.low_per_s < ceiling.high_per_s:
            figure.add_vrect(
                x0=ceiling.low_per_s, x1=ceiling.high_per_s, fillcolor=look.BAND, line_width=0, layer="below"
            )
    drawn = [(group, False) for group in same_value(measured)] + [(group, True) for group in same_value(physical)]
    ends: list[float] = []
    for group, is_physical in sorted(drawn, key=lambda item: item[0][0].value_per_s):
        value = group[0].value_per_s
        colour = look.PHYSICAL if is_physical else look.MEASURED
        figure.add_vline(x=value, line={"color": colour, "width": 1.8, "dash": "dash" if is_physical else "solid"})
        text = name_of(group) + (" · physical" if is_physical else "")
        middle, half = math.log10(value) * decade_pixels, PIXELS_PER_LETTER * len(text) / 2 + 4
        row = next((i for i, end in enumerate(ends) if end < middle - half), len(ends))
        ends[row : row + 1] = [middle + half]
        figure.add_annotation(
            x=math.log10(value),
            y=1.0,
            yref="y domain",
            yanchor="bottom",
            yshift=2 + 16 * row,
            text=text,
            hovertext="<br><br>".join(ceiling_hover(c) for c in group),
            showarrow=False,
            font={"size": 11, "color": look.MUTED if is_physical else look.MEASURED},
            name="ceiling label",
        )
    figure.update_layout(margin_t=28 + 16 * max(1, len(ends)), height=figure.layout.height + 16 * len(ends))
