"""Names of ceilings on a roofline: along the slopes, above the horizontals, beside the ridge lines, none on another."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.ceilings import Bandwidth
from ridgeline.dashboard.figures import look
from ridgeline.dashboard.figures.ceilings import Ceilings
from ridgeline.dashboard.quantity_text import engineering, plain

PIXELS_PER_LETTER = 6.0
LINE_PIXELS = 14.0
SAME = 0.005
"""Levels whose ceilings differ by less, relatively, are one line to the eye: they share a name."""


@dataclass(frozen=True)
class Plane:
    """The plot area: decades that it shows, and pixels of one decade on a common screen."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_pixels: float
    y_pixels: float

    @property
    def slope_degrees(self) -> float:
        """Angle of every memory slope, in degrees above the horizontal."""
        return math.degrees(math.atan2(self.y_pixels, self.x_pixels))

    def along(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point along and across the slopes: all slopes are parallel, so names on them are boxes there."""
        a = math.radians(self.slope_degrees)
        right, up = (x - self.x_range[0]) * self.x_pixels, (y - self.y_range[0]) * self.y_pixels
        return right * math.cos(a) + up * math.sin(a), up * math.cos(a) - right * math.sin(a)


@dataclass(frozen=True)
class Box:
    """A rectangle by its centre and size, in pixels."""

    centre: float
    across: float
    width: float

    def overlaps(self, other: Box) -> bool:
        """Whether two names would cover each other."""
        near = abs(self.across - other.across) < LINE_PIXELS
        return near and abs(self.centre - other.centre) < (self.width + other.width) / 2 + 6


def ceiling_names(measured: Ceilings, physical: Ceilings, plane: Plane) -> list[dict[str, Any]]:
    """Annotations with the name and value of every ceiling."""
    placed: list[Box] = []
    labels: list[dict[str, Any]] = []
    # Measured names stand above their line, physical ones below theirs: neighbouring slopes then share the gap.
    for drawn, colour, side, suffix in (
        (measured, look.MEASURED, 1, ""),
        (physical, look.MUTED, -1, " · physical"),
    ):
        top = drawn.top_rate.value_per_s if drawn.top_rate else math.inf
        for levels in same_value(drawn.bandwidths):
            text = name_of(levels) + suffix
            labels.append(_on_slope(text, levels[0].value_per_s, top, plane, colour, side, placed))
        labels += _above_horizontals(drawn, plane, colour, 0.995 if side > 0 else 0.735, suffix)
    return labels


def same_value(ceilings: Iterable[Bandwidth]) -> list[list[Bandwidth]]:
    """Ceilings in order, those of one value together."""
    groups: list[list[Bandwidth]] = []
    for ceiling in ceilings:
        if groups and abs(groups[-1][0].value_per_s / ceiling.value_per_s - 1.0) < SAME:
            groups[-1].append(ceiling)
        else:
            groups.append([ceiling])
    return groups


def name_of(ceilings: list[Bandwidth]) -> str:
    """``L2, L3 563 GB/s``."""
    return f"{', '.join(c.label for c in ceilings)} {engineering(ceilings[0].value_per_s, 'B/s')}"


def _on_slope(
    text: str, bytes_per_s: float, top_flop_per_s: float, plane: Plane, colour: str, side: int, placed: list[Box]
) -> dict[str, Any]:
    """The first free place along the line, from where it enters the plot to where it ends."""
    rate = math.log10(bytes_per_s)
    width = PIXELS_PER_LETTER * len(text)
    enters = max(plane.x_range[0], plane.y_range[0] - rate)
    ends = min(plane.x_range[1], math.log10(top_flop_per_s) - rate)
    pixels_per_decade = math.hypot(plane.x_pixels, plane.y_pixels)
    first = enters + (width / 2 + 16) / pixels_per_decade
    last = max(first, ends - (width / 2 + 12) / pixels_per_decade)
    steps = max(1, int((last - first) * pixels_per_decade / 10))
    candidates = [first + (last - first) * i / steps for i in range(steps + 1)]

    def box(x: float) -> Box:
        centre, across = plane.along(x, rate + x)
        return Box(centre, across + side * 9, width)

    x = next((x for x in candidates if not any(box(x).overlaps(other) for other in placed)), first)
    placed.append(box(x))
    angle = math.radians(plane.slope_degrees)
    return _annotation(text, x, rate + x, colour) | {
        "textangle": -plane.slope_degrees,
        "xanchor": "center",
        "yanchor": "middle",
        "xshift": -side * 9 * math.sin(angle),
        "yshift": side * 9 * math.cos(angle),
    }


def _above_horizontals(
    drawn: Ceilings, plane: Plane, colour: str, right_end: float, suffix: str
) -> list[dict[str, Any]]:
    """Lowest first; each name stands at least its own height above the one before."""
    labels = []
    floor = -math.inf
    for rate in sorted(drawn.rates, key=lambda r: r.value_per_s):
        y = max(math.log10(rate.value_per_s), floor)
        floor = y + LINE_PIXELS / plane.y_pixels
        text = f"{rate.label} {engineering(rate.value_per_s, 'FLOP/s')}{suffix}"
        labels.append(
            _annotation(text, right_end, y, colour)
            | {"xref": "x domain", "xanchor": "right", "yanchor": "bottom", "yshift": 0}
        )
    return labels


def ridge_names(measured: Ceilings, plane: Plane) -> list[dict[str, Any]]:
    """Intensity of each ridge point, upright at the floor; neighbours stand beside both of their lines, then higher."""
    top = measured.top_rate
    if top is None:
        return []
    labels = []
    in_row, before = 0, -math.inf
    for levels in same_value(measured.bandwidths):
        ridge = top.value_per_s / levels[0].value_per_s
        x = math.log10(ridge)
        in_row = in_row + 1 if (x - before) * plane.x_pixels < 2 * LINE_PIXELS else 0
        before = x
        text = f"{', '.join(c.label for c in levels)} ridge {plain(ridge, 'FLOP/B')}"
        labels.append(
            _annotation(text, x, 0.012, look.MEASURED)
            | {
                "yref": "y domain",
                "textangle": -90,
                "xanchor": "left" if in_row % 2 else "right",
                "yanchor": "bottom",
                "yshift": (in_row // 2) * 130,
                "name": "ridge label",
            }
        )
    return labels


def _annotation(text: str, x: float, y: float, colour: str) -> dict[str, Any]:
    return {
        "x": x,
        "y": y,
        "text": text,
        "showarrow": False,
        "borderpad": 0,
        "font": {"size": 11, "color": colour},
        "name": "ceiling label",
    }
