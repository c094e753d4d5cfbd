"""Where the cycles of a compiled main loop go: a bar per kernel, a part per pipe."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ridgeline.dashboard.figures import look
from ridgeline.dashboard.quantity_text import plain
from ridgeline.results.compile import CompiledCode

BAR_PX = 30
COLOURS = {
    "matrix": "#0072B2", "special": "#D55E00", "fma": "#009E73", "alu": "#E69F00", "valu": "#56B4E9",
    "load_store": "#CC79A7",
}  # fmt: skip
NAMES = {
    "matrix": "matrix unit", "special": "special functions", "fma": "FMA", "alu": "ALU", "valu": "vector lanes",
    "load_store": "loads, stores, shared memory",
}  # fmt: skip


def issue_bars(records: Sequence[CompiledCode]) -> go.Figure:
    """Cycles of one turn of the main loop by pipe, as shares of their sum; a mark where the busiest pipe ends.

    The bar is the serial bound. The mark is the overlapped one: where it lies at the end of the matrix unit's part, the
    matrix unit is the busiest pipe.
    """
    shown = [(record, bound) for record in records if (bound := record.bound[0]) is not None]
    names = [f"{record.target} {record.label}" for record, _ in shown]
    figure = go.Figure()
    for pipe in NAMES:
        cycles = [bound.cycles.get(pipe, 0.0) for _, bound in shown]
        if not any(cycles):
            continue
        hovers = [
            f"<b>{NAMES[pipe]}</b><br>{plain(value, 'cycles')} of {plain(bound.serial_cycles, 'cycles')} a turn"
            for value, (_, bound) in zip(cycles, shown, strict=True)
        ]
        shares = [100.0 * value / bound.serial_cycles for value, (_, bound) in zip(cycles, shown, strict=True)]
        figure.add_trace(
            go.Bar(
                y=names, x=shares, orientation="h", name=NAMES[pipe], hovertext=hovers, hoverinfo="text",
                marker={"color": COLOURS[pipe]},
            )
        )  # fmt: skip
    if shown:
        figure.add_trace(
            go.Scatter(
                y=names, x=[100.0 * bound.overlapped_cycles / bound.serial_cycles for _, bound in shown], mode="markers",
                name="overlapped bound", marker={"symbol": "line-ns-open", "size": 18, "color": look.INK, "line": {"width": 3}},
                hovertext=[
                    f"<b>overlapped bound</b><br>{plain(bound.overlapped_cycles, 'cycles')}, by {bound.bound_by}"
                    for _, bound in shown
                ],
                hoverinfo="text",
            )
        )  # fmt: skip
    look.apply_look(figure, 150 + BAR_PX * max(len(shown), 1), barmode="stack", margin={"l": 430, "b": 64, "t": 24})
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0.0, "traceorder": "normal"})
    figure.update_xaxes(title="cycles of one turn, % of all pipes one after the other", range=[0, 102])
    figure.update_yaxes(range=[max(len(shown), 1) - 0.4, -0.6])
    return figure
