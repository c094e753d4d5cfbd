"""``ridgeline papers``: what each paper's row claims, what was shown of it here, and what is missing."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ridgeline.results.ledger import PapersError, find_papers
from ridgeline.results.paper_state import CheckResult, PaperState, states_of, stored_checks
from ridgeline.results.sources import check_hash
from ridgeline.results.store import Store

if TYPE_CHECKING:
    from ridgeline.bench.paper_checks.frame import Check
    from ridgeline.results.check import PaperCheck

EXIT_BELOW = 1


def papers_command(
    ids: list[str],
    store: Path | None,
    device: str | None,
    check: bool,
    timeout_s: float,
    as_json: bool,
    pages: Path | None = None,
) -> int:
    """Carry out ``ridgeline papers``; the exit code.

    Raises:
        PapersError: for an unknown paper, one none of whose checks is built, or a folder that cannot be written.
        StoreError: for a store that cannot be read or written.
    """
    papers = find_papers(ids)
    opened = Store(store)
    code = 0
    if check:
        if timeout_s <= 0.0:
            raise PapersError(f"--timeout {timeout_s:g}: must be more than 0 seconds")
        records = _carry_out([p.id for p in papers], bool(ids), opened, device, timeout_s, as_json)
        code = EXIT_BELOW if any(r.status in ("failed", "crashed", "timeout") for r in records) else 0
        papers = [p for p in papers if ids or any(r.paper == p.id for r in records)]
    states = states_of(papers, stored_checks(opened), check_hash)
    if pages is not None:
        write_pages(states, pages)
    if as_json:
        print(json.dumps([state.to_dict() for state in states], indent=1, allow_nan=False))
        return code
    if pages is not None:
        print(f"{len(states)} page{'s' if len(states) != 1 else ''} in {pages}")
        return code
    console = Console() if sys.stdout.isatty() else Console(width=200)
    if ids or check:
        for state in states:
            print_paper(state, console)
    else:
        console.print(overview_table(states))
        works = sum(state.state == "works" for state in states)
        console.print(
            f"{works} of {len(states)} work; `ridgeline papers ID` shows one, `--check` carries out its checks"
        )
    return code


def _carry_out(
    ids: Sequence[str], named: bool, store: Store, device: str | None, timeout_s: float, quiet: bool
) -> Sequence[PaperCheck]:
    if importlib.util.find_spec("torch") is None:
        raise ModuleNotFoundError("checks run kernels", name="torch")  # `main` says what to install
    from ridgeline.bench.devices.choose import choose_unit
    from ridgeline.bench.paper_checks import frame
    from ridgeline.bench.paper_run import run_checks

    frame.load()
    for module, need in frame.unavailable().items():
        print(f"ridgeline: left out: {module}: {need}", file=sys.stderr)
    without = [paper for paper in ids if not frame.checks(paper)]
    if named and without:
        raise PapersError(
            f"no check of {', '.join(without)} is built: `ridgeline papers {without[0]}` says what is missing"
        )
    unit = choose_unit(device)
    if unit.spec.startswith("replay"):
        raise PapersError(f"--device {device}: checks run kernels, and a replay only reads their times from a script")
    chosen = [check for paper in ids for check in frame.checks(paper) if check.on == unit.torch_device]
    if named and not chosen:
        raise PapersError(
            f"no check of {', '.join(ids)} is carried out on {unit.torch_device}: "
            f"choose another --device, or no paper for all checks of this one"
        )

    def report(check: Check, record: PaperCheck | None) -> None:
        if quiet:
            return
        if record is None:
            print(f"{check.paper}/{check.name} ...", end=" ", flush=True, file=sys.stderr)
        else:
            print(f"{record.status} ({record.seconds:.1f} s) {record.text or record.reason}", file=sys.stderr)

    return run_checks(chosen, unit, store, report, timeout_s)[1]


def write_pages(states: Sequence[PaperState], folder: Path) -> None:
    """A page per row and, where a ratio was measured, its plot; with all rows, the list of them too.

    Raises:
        PapersError: for a folder that cannot be written.
    """
    from ridgeline.results.ledger import load_ledger
    from ridgeline.results.paper_pages import index_of, page_of, plot_of

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for state in states:
            plot, file = plot_of(state), folder / f"{state.paper.id}.svg"
            file.unlink(missing_ok=True)
            if plot is not None:
                file.write_text(plot, encoding="utf-8")
            page = page_of(state, file.name if plot is not None else "")
            (folder / f"{state.paper.id}.md").write_text(page, encoding="utf-8")
        if len(states) == len(load_ledger()):
            (folder / "README.md").write_text(index_of(states), encoding="utf-8")
    except OSError as error:
        raise PapersError(f"--pages {folder}: {error.strerror}") from None


def overview_table(states: Sequence[PaperState]) -> Table:
    """A line per paper."""
    table = Table(title="Papers", title_justify="left")
    for name in ("#", "id", "", "state", "checks", "claims", "missing"):
        table.add_column(name, justify="right" if name in ("#", "checks", "claims") else "left", overflow="fold")
    for state in states:
        shown = sum(c.shown for c in state.deciding)
        missing = "; ".join(dict.fromkeys(c.why for c in state.deciding if not c.shown))
        missed = "; ".join(f"{c.required.name} measured below its threshold" for c in state.checks if c.missed)
        table.add_row(
            str(state.paper.number), state.paper.id, state.paper.category, state.state,
            f"{shown}/{len(state.deciding)}", str(len(state.claims)), _plain(missing or missed),
        )  # fmt: skip
    return table


def print_paper(state: PaperState, console: Console) -> None:
    """One row in full: state, checks, claims."""
    paper = state.paper
    console.print(f"[bold]{paper.id}[/bold] ({paper.number}, {paper.category}) {_plain(paper.title)}: {state.state}")
    console.print(_plain(paper.mechanism), soft_wrap=False)
    table = Table(title="Checks", title_justify="left")
    for name in ("check", "kind", "states", "state", "value", "device", "seen"):
        table.add_column(name, overflow="fold")
    for result in state.checks:
        for line in _check_lines(result):
            table.add_row(*map(_plain, line))
    console.print(table)
    table = Table(title="Claims", title_justify="left")
    for name in ("claim", "published", "against", "on", "measured", "model", "verdict", "why"):
        table.add_column(name, overflow="fold")
    for c in state.claims:
        claim = c.claim
        measured = c.not_measured
        if c.measured is not None and c.measured_value is not None:
            measured = f"{c.measured_value:.3g} {claim.unit} on {c.measured.placement.device}"
        model = "-" if c.modelled is None else c.modelled.figure
        where = claim.hardware if claim.condition == "not stated" else f"{claim.hardware}; {claim.condition}"
        published = claim.published + ("" if claim.verified else f" ({claim.source}; not verified)")
        table.add_row(*map(_plain, (claim.metric, published, claim.baseline, where, measured, model, c.verdict, c.why)))
    console.print(table)
    console.print()


def _check_lines(result: CheckResult) -> list[tuple[str, ...]]:
    r = result.required
    head = (r.name, r.kind, r.states, result.state)
    if not result.records or result.state == "older source":
        return [(*head, "", "", result.why)]
    lines: list[tuple[str, ...]] = []
    for record in result.records:
        value = ""
        if record.value is not None:
            threshold = "" if record.threshold is None else f" (threshold {record.threshold:.4g})"
            value = f"{record.value:.4g}{record.unit}{threshold}"
        seen = "; ".join(filter(None, (record.text, record.reason)))
        lines.append((r.name, r.kind, r.states, record.status, value, record.placement.device, seen))
    return lines


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
