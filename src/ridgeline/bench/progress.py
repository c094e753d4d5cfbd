"""Progress of a run on a terminal: what is measured now, how far, and the time left. Silent where there is none."""

from __future__ import annotations

import sys

import rich.progress
from rich.console import Console

from ridgeline.bench.run import Step
from ridgeline.results.measurement import Measurement


class Progress:
    """A progress bar on standard error; when it is no terminal, a line for each tenth of the run."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        console = Console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.percentage:>3.0f}%"),
            rich.progress.BarColumn(bar_width=30),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(elapsed_when_finished=True),
            rich.progress.TextColumn("{task.description}", markup=False),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._plain = not quiet and not console.is_terminal
        self._task: rich.progress.TaskID | None = None
        self._last_tenth = -1

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def report(self, step: Step, record: Measurement | None) -> None:
        """Show that a step begins (no record) or has ended."""
        if self._task is None:
            self._task = self._bar.add_task("", total=step.planned)
        if record is None:
            self._bar.update(self._task, description=step.case.label[:70], completed=step.number - 1)
        if record is not None or step.resumed:
            self._bar.update(self._task, completed=step.number)
            if record is not None and record.status not in ("ok", "unsupported"):
                self._say(f"{record.status}: {step.case.label}: {record.reason}")
            tenth = 10 * step.number // step.planned
            if self._plain and tenth > self._last_tenth:
                self._last_tenth = tenth
                print(f"ridgeline: {step.number}/{step.planned} measured", file=sys.stderr)

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._bar.console.print(text, markup=False, highlight=False)
