"""The look that all figures share: colours that colour-blind readers tell apart, symbols, layout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

OPERATOR_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A3D9A", "#000000")
"""Okabe and Ito's palette (2008) without its yellow, which is unreadable on white, and with a violet."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "pentagon", "star", "triangle-down", "hexagram", "cross", "x")

INK = "#1f2933"
MUTED = "#66727f"
GRID = "#e6e9ed"
MEASURED = "#334155"
PHYSICAL = "#94a3b8"
BAND = "rgba(51, 65, 85, 0.13)"
MEMORY_TINT = "rgba(86, 180, 233, 0.09)"
COMPUTE_TINT = "rgba(230, 159, 0, 0.09)"
ALERT = "#b42318"
LEFT_OUT = "x-thin-open"
"""Symbol of a block or quad that is stored but does not count."""
FONT = "Source Sans Pro, Source Sans, Segoe UI, Helvetica, Arial, sans-serif"

PLOT_CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["lasso2d", "select2d"],
    "toImageButtonOptions": {"format": "png", "scale": 2, "filename": "ridgeline"},
}
"""Of every chart: the camera button gives a PNG of twice the resolution."""


@dataclass(frozen=True)
class Styles:
    """Colour of each operator and symbol of each implementation, the same whatever is filtered away."""

    colours: dict[str, str]
    symbols: dict[str, str]

    def colour(self, operator: str) -> str:
        """Colour of ``operator``; grey for one that is not known."""
        return self.colours.get(operator, MUTED)

    def symbol(self, implementation: str) -> str:
        """Symbol of ``implementation``."""
        return self.symbols.get(implementation, "circle")


def styles_of(frame: pd.DataFrame) -> Styles:
    """Styles for all operators and implementations of ``frame``: give it the table before any filter."""
    return Styles(
        _assign(frame["operator"].unique() if len(frame) else (), OPERATOR_COLOURS),
        _assign(frame["implementation"].unique() if len(frame) else (), SYMBOLS),
    )


def _assign(names: Iterable[str], values: tuple[str, ...]) -> dict[str, str]:
    return {name: values[i % len(values)] for i, name in enumerate(sorted(names))}


def apply_look(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    """Give ``figure`` the shared font, background, grid and margins; further ``layout`` settings win."""
    axis = {
        "gridcolor": GRID,
        "linecolor": "#9aa5b1",
        "showline": True,
        "mirror": True,
        "ticks": "outside",
        "tickcolor": "#9aa5b1",
        "zeroline": False,
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    settings: dict[str, Any] = {
        "height": height,
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "font": {"family": FONT, "size": 13, "color": INK},
        "margin": {"l": 72, "r": 24, "t": 28, "b": 56},
        "hoverlabel": {
            "bgcolor": "white",
            "bordercolor": "#9aa5b1",
            "align": "left",
            "font": {"size": 12, "color": INK},
        },
        "legend": {"font": {"size": 12}, "itemsizing": "constant", "tracegroupgap": 6},
        "hovermode": "closest",
    }
    return figure.update_layout(**{**settings, **layout})
