"""Ceilings of a device on log-log axes: horizontals for arithmetic, slopes for memory, bands for their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from ridgeline.analytical.ceilings import PHYSICAL, Bandwidth, Ceiling, Rate
from ridgeline.analytical.device import Device
from ridgeline.analytical.work import RateKey
from ridgeline.dashboard.figures import look
from ridgeline.dashboard.quantity_text import engineering, plain, with_interval
from ridgeline.results.views import problem_and_work


@dataclass(frozen=True)
class Ceilings:
    """The ceilings that one chart draws."""

    rates: tuple[Rate, ...]
    bandwidths: tuple[Bandwidth, ...]
    """Of the fastest level first."""

    @property
    def top_rate(self) -> Rate | None:
        """The highest horizontal."""
        return max(self.rates, key=lambda r: r.value_per_s, default=None)


def used_keys(frame: pd.DataFrame) -> set[RateKey]:
    """Arithmetic that the cases of ``frame`` need: decides which horizontals are worth drawing.

    Special functions are left out: they are no part of a case's FLOP, so their ceiling has no place on that axis.
    """
    keys: set[RateKey] = set()
    columns = (frame[name] for name in ("operator", "problem", "tf32"))
    for operator, parameters, tf32 in {
        (op, tuple(sorted(p.items())), tf32) for op, p, tf32 in zip(*columns, strict=True)
    }:
        # Of an operator of a newer Ridgeline the points are drawn, its arithmetic is unknown.
        known = problem_and_work(operator, dict(parameters), bool(tf32))
        if known is not None:
            keys.update(key for key in known[1].operations if key.unit != "special")
    return keys


def measured_ceilings(device: Device, threads: int, keys: Iterable[RateKey]) -> Ceilings:
    """Measured ceilings that bound ``keys`` on ``threads`` threads: of each the highest, as bounds use it."""
    return _select(device.select(["measured"], threads), keys)


def physical_ceilings(device: Device, threads: int, keys: Iterable[RateKey]) -> Ceilings:
    """The same from the data sheet, from what a core can do in a cycle, or assumed."""
    return _select(device.select(PHYSICAL, threads), keys)


def rate_labels(device: Device, threads: int) -> list[str]:
    """Names of the arithmetic ceilings that a reader can choose from."""
    return sorted({r.label for r in device.select(["measured", *PHYSICAL], threads).rates if r.unit != "special"})


def keys_of_labels(device: Device, threads: int, labels: Iterable[str]) -> set[RateKey]:
    """Rate keys of the ceilings named ``labels``."""
    wanted = set(labels)
    return {r.key for r in device.select(["measured", *PHYSICAL], threads).rates if r.label in wanted}


def _select(device: Device, keys: Iterable[RateKey]) -> Ceilings:
    rates = {rate for key in keys if (rate := device.rate(key)) is not None}
    levels = [b for level in device.memory if (b := device.bandwidth(level.name)) is not None]
    return Ceilings(
        tuple(sorted(rates, key=lambda r: -r.value_per_s)), tuple(sorted(levels, key=lambda b: -b.value_per_s))
    )


def ceiling_hover(ceiling: Ceiling) -> str:
    """Value, interval, kind and source of a ceiling."""
    unit = "FLOP/s" if isinstance(ceiling, Rate) else "B/s"
    low, high = ceiling.low_per_s, ceiling.high_per_s
    value = (
        engineering(ceiling.value_per_s, unit) if low == high else with_interval(ceiling.value_per_s, low, high, unit)
    )
    source = ", ".join(part for part in (ceiling.source.title, ceiling.source.detail, ceiling.source.date) if part)
    threads = "" if ceiling.threads is None else f"<br>{ceiling.threads} thread{'s' if ceiling.threads != 1 else ''}"
    return f"<b>{ceiling.label}</b> ceiling, {ceiling.kind}<br>{value}{threads}<br>{_wrapped(source)}"


def _wrapped(text: str, width: int = 70) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) >= width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "<br>".join([*lines, line])


def ceiling_traces(ceilings: Ceilings, window: tuple[float, float], physical: bool) -> list[go.Scatter]:
    """Bands, then lines. A slope ends at the highest horizontal; a horizontal starts at the fastest slope.

    ``window``: lowest and highest intensity that a line must cover.
    """
    traces: list[go.Scatter] = []
    fastest = ceilings.bandwidths[0].value_per_s if ceilings.bandwidths else math.inf
    top = ceilings.top_rate.value_per_s if ceilings.top_rate else math.inf
    left, right = window
    drawn: tuple[Ceiling, ...] = (*ceilings.bandwidths, *ceilings.rates)
    for ceiling in drawn:
        if isinstance(ceiling, Bandwidth):
            end = min(right, top / ceiling.value_per_s)
            xs = _spread(left, max(end, left * 1.01))
            heights = [[v * x for x in xs] for v in (ceiling.value_per_s, ceiling.low_per_s, ceiling.high_per_s)]
        else:
            start = max(left, ceiling.value_per_s / fastest)
            xs = _spread(min(start, right / 1.01), right)
            heights = [[v] * len(xs) for v in (ceiling.value_per_s, ceiling.low_per_s, ceiling.high_per_s)]
        if not physical and ceiling.low_per_s < ceiling.high_per_s:
            traces.append(_band(ceiling, xs, heights[1], heights[2]))
        traces.append(_line(ceiling, xs, heights[0], physical))
    return traces


def _spread(low: float, high: float, count: int = 40) -> list[float]:
    """Points along a line, so that its hover box shows anywhere on it."""
    step = (math.log10(high) - math.log10(low)) / (count - 1)
    return [10.0 ** (math.log10(low) + i * step) for i in range(count)]


def _line(ceiling: Ceiling, xs: Sequence[float], ys: Sequence[float], physical: bool) -> go.Scatter:
    return go.Scatter(
        x=xs,
        y=ys,
        mode="lines",
        name=ceiling.label,
        legendgroup="physical" if physical else "measured",
        showlegend=False,
        line={
            "color": look.PHYSICAL if physical else look.MEASURED,
            "width": 1.5 if physical else 2.2,
            "dash": "dash" if physical else "solid",
        },
        text=[ceiling_hover(ceiling)] * len(xs),
        hovertemplate="%{text}<extra></extra>",
        meta="physical ceiling" if physical else "measured ceiling",
    )


def _band(ceiling: Ceiling, xs: Sequence[float], low: Sequence[float], high: Sequence[float]) -> go.Scatter:
    return go.Scatter(
        x=[*xs, *reversed(xs)],
        y=[*high, *reversed(low)],
        fill="toself",
        fillcolor=look.BAND,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        name=f"{ceiling.label} interval",
        legendgroup="measured",
        showlegend=False,
        meta="interval band",
    )


def ridge_trace(ceilings: Ceilings) -> go.Scatter | None:
    """Where each slope meets the highest horizontal: the intensity from which that level no longer limits."""
    top = ceilings.top_rate
    if top is None or not ceilings.bandwidths:
        return None
    xs = [top.value_per_s / b.value_per_s for b in ceilings.bandwidths]
    return go.Scatter(
        x=xs,
        y=[top.value_per_s] * len(xs),
        mode="markers",
        marker={"symbol": "diamond-tall", "size": 10, "color": "white", "line": {"width": 1.8, "color": look.MEASURED}},
        text=[
            f"<b>ridge point of {b.label}</b><br>{plain(x, 'FLOP/B')} at {top.label}"
            for x, b in zip(xs, ceilings.bandwidths, strict=True)
        ],
        hovertemplate="%{text}<extra></extra>",
        name="ridge points",
        showlegend=False,
        meta="ridge point",
    )
