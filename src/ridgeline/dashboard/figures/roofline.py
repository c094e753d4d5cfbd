"""The roofline chart: cases against measured and physical ceilings (Williams, Waterman, Patterson, CACM 2009)."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ridgeline.analytical.device import Device
from ridgeline.dashboard.figures import look
from ridgeline.dashboard.figures.ceiling_labels import Plane, ceiling_names, ridge_names
from ridgeline.dashboard.figures.ceilings import (
    Ceilings,
    ceiling_traces,
    keys_of_labels,
    measured_ceilings,
    physical_ceilings,
    ridge_trace,
    used_keys,
)
from ridgeline.dashboard.figures.points import case_traces

HEIGHT = 620
WIDTH = 810.0
ASPECT = 1.5
"""Width of the plot area in pixels, and width over height, on a common screen."""
FLATTEST, STEEPEST = 0.5, 1.2
"""Pixels of a decade of FLOP/s over those of a decade of intensity."""
MIN_DECADES = 2.2
NO_CEILINGS = Ceilings((), ())


def on_axes(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with a time and with arithmetic: those that a roofline can show."""
    return frame[frame["median_s"].notna() & (frame["flop"] > 0)]


def pure_movement(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with a time but no arithmetic: they have a bandwidth, and no place on a log axis of intensity."""
    return frame[frame["median_s"].notna() & (frame["flop"] == 0)]


def roofline(
    frame: pd.DataFrame,
    device: Device | None,
    *,
    threads: int,
    ceilings: Collection[str] = (),
    show_physical: bool = True,
    styles: look.Styles | None = None,
    title: str = "",
) -> go.Figure:
    """Cases of ``frame`` under the ceilings of ``device``, log-log.

    Args:
        frame: rows of :func:`ridgeline.results.views.frame`, filtered to one device.
        device: with its measured and physical ceilings; ``None`` draws the cases alone.
        threads: ceilings that hold for this many threads are drawn.
        ceilings: labels of the arithmetic ceilings to draw; empty draws those that the cases use.
        show_physical: draw the data sheet's ceilings too, dashed.
        styles: colours and symbols, from the table before any filter.
        title: of the figure; exported figures need one, a page has its own.
    """
    shown = on_axes(frame)
    measured = physical = NO_CEILINGS
    if device is not None:
        keys = keys_of_labels(device, threads, ceilings) if ceilings else used_keys(shown)
        measured = measured_ceilings(device, threads, keys)
        physical = physical_ceilings(device, threads, keys) if show_physical else NO_CEILINGS
    plane = _plane(shown, measured, physical)
    figure = go.Figure()
    # On a window of another shape the browser widens one range: lines run on beyond what was asked for.
    window = (10.0 ** (plane.x_range[0] - 6), 10.0 ** (plane.x_range[1] + 6))
    figure.add_traces(ceiling_traces(physical, window, physical=True))
    figure.add_traces(ceiling_traces(measured, window, physical=False))
    if (ridges := ridge_trace(measured)) is not None:
        figure.add_trace(ridges)
    figure.add_traces(case_traces(shown, styles or look.styles_of(frame), "intensity_flop_per_byte", "flop_per_s"))
    look.apply_look(
        figure,
        HEIGHT,
        margin={"l": 76, "r": 16, "t": 60 if title else 28, "b": 56},
        title={"text": title, "x": 0.01, "xanchor": "left", "font": {"size": 16}} if title else None,
    )
    figure.update_xaxes(
        _log_axis("arithmetic intensity (FLOP/byte, compulsory bytes)", plane.x_range), exponentformat="none"
    )
    figure.update_yaxes(_log_axis("performance (FLOP/s)", plane.y_range), exponentformat="SI")
    # A fixed ratio of the decades of both axes fixes the angle of all slopes, whatever the width of the window: names
    # can lie along the lines.
    figure.update_yaxes(scaleanchor="x", scaleratio=plane.y_pixels / plane.x_pixels, constraintoward="top")
    figure.update_xaxes(constraintoward="right")
    _regions(figure, measured, window)
    for annotation in (*ridge_names(measured, plane), *ceiling_names(measured, physical, plane)):
        figure.add_annotation(annotation)
    _notes(figure, shown, device, measured, threads)
    return figure


def _log_axis(title: str, log_range: tuple[float, float]) -> dict[str, Any]:
    return {
        "type": "log",
        "title": {"text": title},
        "range": list(log_range),
        "dtick": 1,
        "minor": {"ticks": "outside", "ticklen": 3, "dtick": "D1"},
    }


def _plane(shown: pd.DataFrame, measured: Ceilings, physical: Ceilings) -> Plane:
    """Decades that hold all points with their intervals, all ridge points and all horizontals."""
    xs = [float(x) for x in shown["intensity_flop_per_byte"] if x > 0 and math.isfinite(x)]
    ys = [float(y) for y in shown["flop_per_s"] if y > 0]
    for end in ("interval_low_s", "interval_high_s"):
        ys += [float(rate) for rate in shown["flop"] / shown[end].fillna(shown["median_s"])]
    for drawn in (measured, physical):
        ys += [r.high_per_s for r in drawn.rates]
    if (top := measured.top_rate) is not None:
        xs += [top.value_per_s / b.value_per_s for b in measured.bandwidths]
    xs, ys = xs or [0.1, 100.0], ys or [1e9, 1e12]
    left, right = math.log10(min(xs)) - 0.5, math.log10(max(xs)) + 0.5
    low, high = math.log10(min(ys)) - 0.4, math.log10(max(ys)) + 0.45
    # Decades of nearly equal length on both axes: where one range must grow, the room goes to the left and below, where
    # the slopes and their names are.
    low = min(low, high - MIN_DECADES, high - (right - left) / STEEPEST / ASPECT)
    left = min(left, right - (high - low) * ASPECT * FLATTEST)
    return Plane((left, right), (low, high), WIDTH / (right - left), WIDTH / ASPECT / (high - low))


def _regions(figure: go.Figure, measured: Ceilings, window: tuple[float, float]) -> None:
    """Tint where every level limits (memory-bound) and where none does (compute-bound)."""
    top = measured.top_rate
    if top is None or not measured.bandwidths:
        return
    ridges = [top.value_per_s / b.value_per_s for b in measured.bandwidths]
    for x0, x1, tint, name, anchor, at in (
        (window[0], min(ridges), look.MEMORY_TINT, "memory-bound", "right", min(ridges)),
        (max(ridges), window[1], look.COMPUTE_TINT, "compute-bound", "left", max(ridges)),
    ):
        figure.add_shape(
            type="rect",
            x0=x0,
            x1=x1,
            y0=0,
            y1=1,
            yref="y domain",
            fillcolor=tint,
            line={"width": 0},
            layer="below",
            name=f"{name} region",
        )
        figure.add_annotation(
            x=math.log10(at),
            y=0.988,
            yref="y domain",
            yanchor="top",
            xanchor=anchor,
            xshift=-8 if anchor == "right" else 8,
            text=f"<i>{name}</i>",
            showarrow=False,
            font={"size": 12, "color": look.MUTED},
        )
    for x in ridges:
        figure.add_shape(
            type="line",
            x0=x,
            x1=x,
            y0=10.0**-6 * top.value_per_s,
            y1=top.value_per_s,
            line={"color": look.PHYSICAL, "width": 1, "dash": "dot"},
            layer="below",
            name="ridge line",
        )


def _notes(figure: go.Figure, shown: pd.DataFrame, device: Device | None, measured: Ceilings, threads: int) -> None:
    """Say what is missing rather than leave an empty space."""
    notes = []
    if shown.empty:
        notes.append("no timed case with arithmetic in this selection")
    if device is None or not (measured.rates or measured.bandwidths):
        notes.append(f"no measured ceilings for {threads} threads: run `ridgeline roofs`")
    if notes:
        figure.add_annotation(
            x=0.5,
            y=0.97,
            xref="x domain",
            yref="y domain",
            text="<br>".join(notes),
            showarrow=False,
            font={"size": 14, "color": look.ALERT},
            name="note",
        )
