"""A page of text for a paper's row, with a plot of its ratios: what ``docs/papers/`` holds."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ridgeline.results.ledger import CATEGORIES
from ridgeline.results.paper_state import CheckResult, ClaimResult, PaperState

WIDTH, ROW, LEFT, RIGHT, TOP = 760, 26, 250, 110, 34
MET, MISSED, AXIS = "#0072B2", "#D55E00", "#64748b"


def page_of(state: PaperState, plot: str = "") -> str:
    """Markdown of a row: state, claims, checks with their evidence.

    Args:
        state: the row.
        plot: file name of its plot (:func:`plot_of`), where there is one.
    """
    paper = state.paper
    lines = [
        f"# {paper.id}",
        "",
        f"{paper.title} ({CATEGORIES[paper.category]}, {', '.join(paper.families)})",
        "",
        paper.mechanism,
        "",
        f"State: **{state.state}**." + (" Missing:" if state.missing else ""),
    ]
    lines += ["", *(f"- {_plain(line)}" for line in state.missing)] if state.missing else []
    lines += ["", "## Claims", "", *_claim_lines(state.claims), "", "## Checks", ""]
    if plot:
        lines += [f"![Ratios measured, over their thresholds]({plot})", ""]
    lines += _check_lines(state.checks)
    return "\n".join(lines) + "\n"


def _claim_lines(claims: Sequence[ClaimResult]) -> list[str]:
    lines = [
        "| claim | published | against; on; condition | source | measured here | model | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for c in claims:
        claim = c.claim
        measured = c.not_measured
        if c.measured is not None and c.measured_value is not None:
            measured = f"{c.measured_value:.3g} {claim.unit} on {c.measured.placement.device}"
        lines.append(
            _row(
                claim.metric, claim.published, f"{claim.baseline}; {claim.hardware}; {claim.condition}",
                claim.source + ("" if claim.verified else ", not verified"), measured,
                "" if c.modelled is None else c.modelled.figure, f"{c.verdict}: {c.why}",
            )
        )  # fmt: skip
    return lines


def _check_lines(checks: Sequence[CheckResult]) -> list[str]:
    lines = ["| check | kind | states | state | value (threshold) | seen | on, when |", "|---|---|---|---|---|---|---|"]
    for c in checks:
        head = (c.required.name, c.required.kind, c.required.states)
        if not c.measured:
            lines.append(_row(*head, c.state, "", c.why, ""))
        for record in c.measured:
            value = "" if record.value is None else f"{record.value:.4g}{record.unit}"
            value += "" if record.threshold is None else f" ({record.threshold:.4g}{record.unit})"
            seen = "; ".join(filter(None, (record.text, record.reason)))
            where = f"{record.placement.device}, {record.started_at[:10]}"
            lines.append(_row(*head, record.status, value, seen, where))
    return lines


def _row(*cells: str) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    return " ".join(text.replace("|", r"\|").replace("<", "&lt;").split())


@dataclass(frozen=True)
class _Bar:
    label: str
    value: float
    threshold: float
    unit: str
    met: bool


def plot_of(state: PaperState) -> str | None:
    """SVG of every measured ratio over its threshold, on a logarithmic axis; ``None`` where none was measured."""
    bars = [
        _Bar(c.required.name, r.value, r.threshold, r.unit, r.status == "passed")
        for c in state.checks
        if c.required.kind == "ratio"
        for r in c.measured
        if r.value is not None and r.threshold is not None and r.value > 0.0 and r.threshold > 0.0
    ]
    if not bars:
        return None
    reach = max(1.0, *(abs(math.log2(b.value / b.threshold)) for b in bars))
    width, height = WIDTH - LEFT - RIGHT, TOP + ROW * len(bars) + 30

    def x(ratio: float) -> float:
        return LEFT + width * (math.log2(ratio) / reach + 1.0) / 2.0

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="10" y="18" font-weight="bold">{html.escape(state.paper.id)}: ratios measured over their thresholds</text>',
        f'<line x1="{x(1):.1f}" y1="{TOP - 6}" x2="{x(1):.1f}" y2="{height - 24}" stroke="{AXIS}"/>',
    ]
    for number, bar in enumerate(bars):
        y = TOP + ROW * number
        colour, ratio = MET if bar.met else MISSED, bar.value / bar.threshold
        left, right = sorted((x(1.0), x(ratio)))
        parts += [
            f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{html.escape(bar.label)}</text>',
            f'<rect x="{left:.1f}" y="{y + 3}" width="{max(right - left, 1.5):.1f}" height="{ROW - 10}" fill="{colour}"/>',
            f'<text x="{WIDTH - RIGHT + 8}" y="{y + 15}">{bar.value:.3g}{html.escape(bar.unit)} of {bar.threshold:.3g}</text>',
        ]
    for exponent in range(-math.floor(reach), math.floor(reach) + 1):
        at = x(2.0**exponent)
        parts.append(
            f'<text x="{at:.1f}" y="{height - 8}" text-anchor="middle" fill="{AXIS}">{2.0**exponent:g}x</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def index_of(states: Sequence[PaperState]) -> str:
    """Markdown of the list of all rows."""
    works = sum(s.state == "works" for s in states)
    lines = [
        "# Papers",
        "",
        f"Generated by `ridgeline papers --pages` from the ledger and the newest checks: {works} of {len(states)} work.",
        "",
        "| # | paper | category | state | checks shown | below their threshold |",
        "|---|---|---|---|---|---|",
    ]
    for s in states:
        shown = f"{sum(c.shown for c in s.deciding)} of {len(s.deciding)}"
        missed = ", ".join(c.required.name for c in s.checks if c.missed)
        link = f"[{s.paper.id}]({s.paper.id}.md)"
        lines.append(_row(str(s.paper.number), link, CATEGORIES[s.paper.category], s.state, shown, missed))
    return "\n".join(lines) + "\n"
