"""What the machine did while each block was timed: a small chart for every quantity that was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ridgeline.dashboard.figures import look
from ridgeline.dashboard.quantity_text import digits, is_number

QUANTITIES = (
    ("clock_mhz", "clock (MHz)"),
    ("memory_clock_mhz", "memory clock (MHz)"),
    ("load_other", "load of others (processors)"),
    ("steal_s", "stolen by the hypervisor (s)"),
    ("power_w", "power (W)"),
    ("temperature_c", "temperature (°C)"),
    ("limited_s", "clocks held down by a limit (s)"),
)
COLUMNS = 3


def recorded(conditions: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Quantities, with their titles, that at least one block has a value of."""
    return [(name, title) for name, title in QUANTITIES if any(is_number(c.get(name)) for c in conditions)]


def conditions_chart(
    conditions: Sequence[Mapping[str, Any]], left_out: Mapping[int, str], colour: str
) -> go.Figure | None:
    """A small chart per recorded quantity over the blocks; ``None`` where nothing was recorded.

    Args:
        conditions: one mapping per block, ``None`` for what nothing told.
        left_out: cause by index of the blocks that do not count; they have the symbol of the chart of samples.
        colour: of the blocks that count.
    """
    shown = recorded(conditions)
    if not shown:
        return None
    columns = 2 if len(shown) == 4 else min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[title for _, title in shown],
        horizontal_spacing=0.07,
        vertical_spacing=0.32 / rows,
    )
    numbers = list(range(1, len(conditions) + 1))
    for position, (name, title) in enumerate(shown):
        row, column = position // columns + 1, position % columns + 1
        values = [c.get(name) if is_number(c.get(name)) else None for c in conditions]
        figure.add_trace(
            go.Scatter(
                x=numbers,
                y=values,
                mode="lines+markers",
                line={"color": look.GRID, "width": 1.5},
                marker={
                    "size": [10 if i in left_out else 6 for i in range(len(values))],
                    "color": [look.ALERT if i in left_out else colour for i in range(len(values))],
                    "symbol": [look.LEFT_OUT if i in left_out else "circle" for i in range(len(values))],
                },
                hovertext=[
                    f"block {i + 1}: {digits(v)}" + (f"<br>left out: {left_out[i]}" if i in left_out else "")
                    if v is not None
                    else ""
                    for i, v in enumerate(values)
                ],
                hovertemplate=f"{title}<br>%{{hovertext}}<extra></extra>",
                showlegend=False,
                meta=name,
            ),
            row=row,
            col=column,
        )
        known = [v for v in values if v is not None]
        low, high = min(known), max(known)
        # A quantity that hardly moved must not look as if it did: at least 2 % of it is shown.
        pad = max(0.12 * (high - low), 0.01 * abs(high), 1e-3 if high == low == 0.0 else 0.0)
        figure.update_yaxes(range=[low - pad if low > 0.0 else -0.08 * (high or 1.0), high + pad], row=row, col=column)
    look.apply_look(figure, 60 + 160 * rows, margin={"l": 60, "r": 24, "t": 30, "b": 44})
    figure.update_annotations(font={"size": 12, "color": look.MUTED})
    figure.update_xaxes(
        tick0=1, dtick=max(1, len(conditions) // 6), range=[0.4, len(conditions) + 0.6], title_standoff=4
    )
    figure.update_yaxes(nticks=4)
    for column in range(1, columns + 1):
        last = (len(shown) - column) // columns + 1
        figure.update_xaxes(title_text="block", row=last, col=column)
    return figure
