"""The distribution of a case's samples: block by block beside their histogram and cumulative share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ridgeline.dashboard.figures import look
from ridgeline.dashboard.quantity_text import engineering, is_number, prefix_of

HEIGHT = 400
SHOWN_PER_BLOCK = 400
"""Samples drawn per block; the histogram, the cumulative share and the medians use all."""


def distribution(
    samples_s: Sequence[Sequence[float]],
    median_s: float,
    interval_low_s: float | None,
    interval_high_s: float | None,
    bound_s: float | None,
    *,
    left_out: Mapping[int, str] | None = None,
    to_bound: bool = False,
    colour: str = look.OPERATOR_COLOURS[0],
) -> go.Figure:
    """Samples of each block with the block's median, the median of all with its interval, and the bound.

    Args:
        samples_s: seconds per launch, a sequence per block.
        median_s: median of the block medians.
        interval_low_s: lower end of its interval, or ``None``.
        interval_high_s: upper end, or ``None``.
        bound_s: shortest time that the measured ceilings allow, or ``None``.
        left_out: cause by index of the blocks that do not count: drawn with a symbol of their own, in no median,
            histogram or share.
        to_bound: stretch the time axis to the bound; else a bound outside of it is named at the edge.
        colour: of the samples.
    """
    factor, prefix = prefix_of(median_s)
    blocks = [np.asarray(block, dtype=np.float64) / factor for block in samples_s]
    left_out = left_out or {}
    everything = np.concatenate([block for index, block in enumerate(blocks) if index not in left_out])
    figure = make_subplots(
        rows=1,
        cols=3,
        shared_yaxes=True,
        column_widths=[0.6, 0.2, 0.2],
        horizontal_spacing=0.015,
        subplot_titles=("samples of each block", "histogram", "cumulative share"),
    )
    _add_blocks(figure, blocks, left_out, colour, f"{prefix}s")
    figure.add_trace(
        go.Histogram(
            y=everything,
            nbinsy=40,
            marker={"color": colour, "line": {"color": "white", "width": 0.5}},
            opacity=0.75,
            hovertemplate=f"%{{y}} {prefix}s: %{{x}} samples<extra></extra>",
            showlegend=False,
            meta="histogram",
        ),
        row=1,
        col=2,
    )
    ordered = np.sort(everything)
    keep = np.unique(np.linspace(0, ordered.size - 1, min(ordered.size, 600)).astype(int))
    figure.add_trace(
        go.Scatter(
            x=100.0 * (keep + 1) / ordered.size,
            y=ordered[keep],
            mode="lines",
            line={"color": colour, "width": 2, "shape": "vh"},
            hovertemplate=f"%{{x:.1f}} % of samples take at most %{{y:.4g}} {prefix}s<extra></extra>",
            showlegend=False,
            meta="cumulative share",
        ),
        row=1,
        col=3,
    )
    look.apply_look(figure, HEIGHT, margin={"l": 76, "r": 150, "t": 36, "b": 56}, bargap=0.02)
    figure.update_annotations(font={"size": 12, "color": look.MUTED})
    figure.update_xaxes(
        title_text="block", tick0=1, dtick=max(1, len(blocks) // 12), range=[0.4, len(blocks) + 0.6], row=1, col=1
    )
    figure.update_xaxes(title_text="samples", row=1, col=2)
    figure.update_xaxes(title_text="samples (%)", range=[0, 100], row=1, col=3)
    figure.update_yaxes(title_text=f"time per launch ({prefix}s)", row=1, col=1)
    low, high = float(min(block.min() for block in blocks)), float(max(block.max() for block in blocks))
    if to_bound and is_number(bound_s):
        low, high = min(low, bound_s / factor), max(high, bound_s / factor)
    margin = 0.06 * (high - low) or 0.05 * high
    y_range = (low - margin, high + margin)
    figure.update_yaxes(range=list(y_range))
    _add_lines(figure, median_s, interval_low_s, interval_high_s, bound_s, factor, y_range)
    return figure


def _add_blocks(
    figure: go.Figure, blocks: list[np.ndarray], left_out: Mapping[int, str], colour: str, unit: str
) -> None:
    """Samples from left to right in the order they were taken, so that drift within a block is seen."""
    xs: list[float] = []
    ys: list[float] = []
    out_x: list[float] = []
    out_y: list[float] = []
    causes: list[str] = []
    for number, block in enumerate(blocks, start=1):
        keep = np.unique(np.linspace(0, block.size - 1, min(block.size, SHOWN_PER_BLOCK)).astype(int))
        across = (keep + 0.5) / block.size
        places = number - 0.38 + 0.76 * across
        if number - 1 in left_out:
            out_x.extend(places)
            out_y.extend(block[keep])
            causes.extend([f"block {number} left out: {left_out[number - 1]}"] * len(keep))
        else:
            xs.extend(places)
            ys.extend(block[keep])
    kind = go.Scattergl if len(xs) > 5000 else go.Scatter
    figure.add_trace(
        kind(
            x=xs,
            y=ys,
            mode="markers",
            marker={"size": 5, "color": colour, "opacity": 0.45},
            hovertemplate=f"%{{y:.4g}} {unit}<extra></extra>",
            name="sample",
            showlegend=False,
            meta="samples",
        ),
        row=1,
        col=1,
    )
    if out_x:
        figure.add_trace(
            go.Scatter(
                x=out_x,
                y=out_y,
                mode="markers",
                marker={"size": 6, "color": look.ALERT, "symbol": look.LEFT_OUT, "line": {"width": 1.2}},
                text=causes,
                hovertemplate=f"%{{y:.4g}} {unit}<br>%{{text}}<extra></extra>",
                name="left out",
                showlegend=False,
                meta="left out",
            ),
            row=1,
            col=1,
        )
    middle: list[float | None] = []
    levels: list[float | None] = []
    for number, block in enumerate(blocks, start=1):
        if number - 1 in left_out:
            continue
        median = float(np.median(block))
        middle += [number - 0.4, number + 0.4, None]
        levels += [median, median, None]
    figure.add_trace(
        go.Scatter(
            x=middle,
            y=levels,
            mode="lines",
            line={"color": look.INK, "width": 2.5},
            hovertemplate=f"block median %{{y:.4g}} {unit}<extra></extra>",
            name="block median",
            showlegend=False,
            meta="block medians",
        ),
        row=1,
        col=1,
    )


def _add_lines(
    figure: go.Figure,
    median_s: float,
    low_s: float | None,
    high_s: float | None,
    bound_s: float | None,
    factor: float,
    y_range: tuple[float, float],
) -> None:
    if is_number(low_s) and is_number(high_s):
        figure.add_hrect(
            y0=low_s / factor, y1=high_s / factor, fillcolor=look.BAND, line_width=0, layer="below", name="interval"
        )
    figure.add_hline(y=median_s / factor, line={"color": look.INK, "width": 1.3}, name="median")
    _edge_label(figure, f"median {engineering(median_s, 's')}", median_s / factor, look.INK, "middle")
    if not is_number(bound_s):
        return
    bound = bound_s / factor
    text = f"bound {engineering(bound_s, 's')}"
    if y_range[0] <= bound <= y_range[1]:
        figure.add_hline(y=bound, line={"color": look.ALERT, "width": 1.6, "dash": "dash"}, name="bound")
        near = abs(bound - median_s / factor) < 0.05 * (y_range[1] - y_range[0])
        # Two labels that would cover each other stand above and below their lines.
        anchor = "middle" if not near else ("top" if bound <= median_s / factor else "bottom")
        _edge_label(figure, text, bound, look.ALERT, anchor)
    else:
        below = bound < y_range[0]
        _edge_label(
            figure,
            f"{'↓' if below else '↑'} {text}",
            y_range[0 if below else 1],
            look.ALERT,
            "bottom" if below else "top",
        )


def _edge_label(figure: go.Figure, text: str, y: float, colour: str, anchor: str) -> None:
    figure.add_annotation(
        x=1.0,
        xref="paper",
        xanchor="left",
        xshift=6,
        y=y,
        yref="y",
        yanchor=anchor,
        text=text,
        showarrow=False,
        font={"size": 12, "color": colour},
        name="line label",
    )
