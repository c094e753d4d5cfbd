"""Comparisons as text, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ridgeline.analytical.comparison import MOST_QUADS, detectable_change
from ridgeline.results.comparison import Comparison, derived, interval_of, verdict_of
from ridgeline.results.run_comparison import RunComparison, typical_ratio
from ridgeline.results.store import Store

STYLE = {"faster": "green", "same": "green", "slower": "red", "unclear": "yellow"}
PLAIN_WIDTH = 200
"""Columns where the output is not a terminal."""


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)


def sentence(record: Comparison) -> str:
    """The result in words: verdict, ratio, interval, and what it rests on."""
    a, b = _side(record, "a"), _side(record, "b")
    interval, said = interval_of(record), verdict_of(record)
    if interval is None:
        return f"{record.status}: {record.reason}"
    margin = f"{record.margin * 100:g} %"
    ends = "no interval"
    if interval.low is not None and interval.high is not None:
        ends = f"{record.confidence * 100:g} % interval {interval.low:.4f} to {interval.high:.4f}"
    rests = f"{ends}; {interval.n_quads} quads in {record.measured_s or 0.0:.1f} s"
    if record.left_out:
        causes = Counter(left.cause for left in record.left_out)
        rests += "; left out: " + ", ".join(f"{count} for {cause}" for cause, count in causes.items())
    ratio = f"{interval.ratio:.4f}"
    if said in ("slower", "faster"):
        return f"{said}: B ({b}) takes {ratio} times the time of A ({a}), beyond {margin} ({rests})"
    if said == "same":
        differs = interval.log_low is not None and interval.log_high is not None
        differs = differs and (interval.log_low > 0.0 or interval.log_high < 0.0)  # type: ignore[operator]
        note = ", a difference that is real here and within the margin" if differs else ""
        return f"same: B ({b}) takes {ratio} times the time of A ({a}), within {margin}{note} ({rests})"
    found = detectable_change(interval, max(record.looks[-1], interval.n_quads), record.margin, record.confidence)
    advice = "the interval crosses the margin; more --seconds narrow it"
    if found is not None and interval.n_quads < MOST_QUADS:
        advice += f" (this noise and budget find a change of {found * 100:.1f} %)"
    return f"unclear: B ({b}) takes {ratio} times the time of A ({a}); {advice} ({rests})"


def print_comparison(record: Comparison) -> None:
    """Two lines: what was compared, and the result."""
    console = _console()
    title = f"{record.operator} {record.problem_label}, {record.protocol.cache}, {record.protocol.threads} threads"
    console.print(title, markup=False, highlight=False, soft_wrap=True)
    style = STYLE.get(verdict_of(record) or "", "red")
    console.print("  " + sentence(record), style=style, markup=False, highlight=False, soft_wrap=True)


def print_comparisons_json(records: Sequence[Comparison]) -> None:
    """One JSON document: stored and derived columns of every comparison."""
    print(json.dumps([derived(record) for record in records], indent=1, allow_nan=False))


def comparisons(store: Store, run_id: str | None) -> list[Comparison]:
    """Comparisons of a run, or of the whole store."""
    return [record for record in store.records(run_id)[0] if isinstance(record, Comparison)]


def comparison_table(records: Sequence[Comparison]) -> Table:
    """For ``ridgeline show``: a line for each comparison."""
    table = Table(title="Comparisons: time of B over time of A", title_justify="left")
    right = {"ratio", "interval", "quads"}
    for name in ("operator", "shape", "cache", "A", "B", "ratio", "interval", "quads", "verdict"):
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for record in records:
        interval, said = interval_of(record), verdict_of(record)
        ratio = ends = quads = ""
        if interval is not None:
            ratio, quads = f"{interval.ratio:.4f}", str(interval.n_quads)
            if interval.low is not None and interval.high is not None:
                ends = f"{interval.low:.4f} to {interval.high:.4f}"
        status = (
            f"[{STYLE[said]}]{said}[/]" if said else f"[red]{record.status}[/]: " + record.reason.replace("[", r"\[")
        )
        table.add_row(
            record.operator, record.problem_label, record.protocol.cache, _side(record, "a"), _side(record, "b"),
            ratio, ends, quads, status,
        )  # fmt: skip
    return table


def _side(record: Comparison, which: str) -> str:
    side = record.side_a if which == "a" else record.side_b
    config = ", ".join(f"{name}={value}" for name, value in side.config.items())
    return side.implementation + (f"@{side.revision[:12]}" if side.revision else "") + (config and f" ({config})")


def print_runs(runs: RunComparison, as_json: bool) -> None:
    """Two stored runs, case by case."""
    if as_json:
        print(json.dumps(_runs_json(runs), indent=1, allow_nan=False))
        return
    console = _console()
    table = Table(title=f"B {runs.run_b} over A {runs.run_a}", title_justify="left")
    right = {"ratio", "interval"}
    for name in ("operator", "implementation", "shape", "cache", "ratio", "interval", "processes", "code", "verdict"):
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for case in runs.cases:
        ends = ""
        if case.ratio_low is not None and case.ratio_high is not None:
            ends = f"{case.ratio_low:.3f} to {case.ratio_high:.3f}"
        code = "changed" if case.source_changed else "equal"
        table.add_row(
            case.operator, case.implementation, case.problem_label, case.cache, f"{case.ratio:.3f}", ends,
            f"{case.processes_a}, {case.processes_b}", code, f"[{STYLE[case.verdict]}]{case.verdict}[/]",
        )  # fmt: skip
    console.print(table)
    for name, labels in (("A", runs.only_in_a), ("B", runs.only_in_b)):
        if labels:
            console.print(f"only in {name}: {len(labels)}: {'; '.join(labels)}", markup=False, highlight=False)
    counts = Counter(case.verdict for case in runs.cases)
    console.print(", ".join(f"{count} {said}" for said, count in counts.most_common()), markup=False)
    console.print(
        f"Margin {runs.margin * 100:g} %; intervals of {runs.confidence * 100:.4g} %, so that of the verdicts about "
        "1 in 20 at most is wrong (Benjamini-Yekutieli).\n"
        f"The runs were not interleaved: what the machine did in between counts too (median ratio "
        f"{typical_ratio(runs.cases):.3f}).",
        markup=False, highlight=False,
    )  # fmt: skip
    for difference in runs.differences:
        console.print(f"ACROSS ENVIRONMENTS: {difference}", style="yellow", markup=False, highlight=False)


def _runs_json(runs: RunComparison) -> dict[str, Any]:
    return {**dataclasses.asdict(runs), "across_environments": bool(runs.differences)}
