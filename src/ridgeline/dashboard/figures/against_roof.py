"""From the ideal to the measured time: what each limit of the device needs for a case, and what was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from ridgeline.analytical.roofline import Term
from ridgeline.dashboard.figures import look
from ridgeline.dashboard.quantity_text import engineering, is_number, prefix_of, with_interval


@dataclass(frozen=True)
class Step:
    """One bar: a time with its interval, and where it comes from."""

    name: str
    seconds: float
    low_s: float | None
    high_s: float | None
    colour: str
    meaning: str


def steps_of(
    physical_bound_s: float | None,
    terms: Sequence[Term],
    bound_s: float | None,
    bound_by: str | None,
    measured: tuple[float, float | None, float | None],
    colour: str,
) -> list[Step]:
    """Bars from the physical bound, over what each measured ceiling asks for, to what was measured."""
    steps = []
    if is_number(physical_bound_s):
        steps.append(
            Step("physical bound", physical_bound_s, None, None, look.PHYSICAL, "no correct kernel can be faster")
        )
    for term in sorted(terms, key=lambda t: t.seconds):
        if term.limit != bound_by:
            meaning = f"time that {term.limit} alone needs, at its measured ceiling"
            steps.append(Step(term.limit, term.seconds, term.low_s, term.high_s, "#cbd5e1", meaning))
    if is_number(bound_s):
        own = next((t for t in terms if t.limit == bound_by), None)
        agrees = own is not None and abs(own.seconds - bound_s) <= 1e-9 * bound_s
        low, high = (own.low_s, own.high_s) if own is not None and agrees else (None, None)
        meaning = "the longest of the limits sets the bound"
        steps.append(Step(f"bound: {bound_by}", bound_s, low, high, look.MEASURED, meaning))
    steps.append(Step("measured", *measured, colour, "median of the block medians"))
    return steps


def against_roof(steps: Sequence[Step], roof_fraction: float | None) -> go.Figure:
    """Horizontal bars, the ideal on top and the measured time last, each with its interval."""
    factor, prefix = prefix_of(steps[-1].seconds)
    names = [step.name for step in steps]
    figure = go.Figure(
        go.Bar(
            orientation="h",
            y=names,
            x=[s.seconds / factor for s in steps],
            marker={"color": [s.colour for s in steps]},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [(s.high_s - s.seconds) / factor if is_number(s.high_s) else None for s in steps],
                "arrayminus": [(s.seconds - s.low_s) / factor if is_number(s.low_s) else None for s in steps],
                "color": look.INK,
                "thickness": 1.3,
                "width": 4,
            },
            hovertext=[f"<b>{s.name}</b><br>{_value(s)}<br>{s.meaning}" for s in steps],
            hovertemplate="%{hovertext}<extra></extra>",
            meta="times",
        )
    )
    look.apply_look(figure, 110 + 44 * len(steps), margin={"l": 150, "r": 24, "t": 12, "b": 52}, bargap=0.35)
    ends = [max(s.seconds, s.high_s if is_number(s.high_s) else 0.0) / factor for s in steps]
    for step, end in zip(steps, ends, strict=True):
        # After the interval, not after the bar: the text would lie on the error bar.
        figure.add_annotation(
            x=end,
            y=step.name,
            text=_label(step, roof_fraction),
            xanchor="left",
            xshift=8,
            showarrow=False,
            font={"size": 12},
        )
    # Room on the right for the text that stands after the longest bar.
    figure.update_xaxes(title_text=f"time per launch ({prefix}s)", range=[0, 1.28 * max(ends)])
    figure.update_yaxes(categoryorder="array", categoryarray=list(reversed(names)), ticks="")
    return figure


def _value(step: Step) -> str:
    if is_number(step.low_s) and is_number(step.high_s):
        return with_interval(step.seconds, step.low_s, step.high_s, "s")
    return engineering(step.seconds, "s")


def _label(step: Step, roof_fraction: float | None) -> str:
    if step.name == "measured" and is_number(roof_fraction):
        return f"{engineering(step.seconds, 's')} · {1 / roof_fraction:.2f}x the bound"
    return engineering(step.seconds, "s")
