"""Tuning: which configuration the stored measurements of a search say is the best.

A search measures every configuration of a case, the implementation's default among them, as measurements with the role
``tuning``. The choice is derived from them when it is needed, never stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.statistics import Summary, summarise
from ridgeline.results.measurement import Measurement
from ridgeline.results.store import Store

SUITE = "tune "
"""What the suite's name of a run that searches begins with."""


@dataclass(frozen=True)
class Choice:
    """The configuration that was chosen for one case."""

    content_key: str
    """Of the case with its default configuration: code, versions, unit and protocol that the choice holds for."""
    config: Mapping[str, Any]
    """Empty where no configuration is surely faster than the default."""
    run_id: str
    tried: int
    """Candidates that were timed, the default among them."""
    ratio: float | None
    """Time of the default over that of the choice; ``None`` where the default has no time."""


def choices(records: Iterable[Measurement]) -> list[Choice]:
    """The choice of every case that a search has finished, in the order of its first record.

    The default stays unless the whole interval of another configuration lies below the default's: of configurations
    that differ by noise the fastest seen is not the fastest.
    """
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for record in records:
        if record.role == "tuning":
            groups.setdefault((record.run_id, record.case_id), []).append(record)
    return [choice for group in groups.values() if (choice := _choice(group)) is not None]


def _choice(records: list[Measurement]) -> Choice | None:
    default = next((record for record in records if not record.config), None)
    if default is None:  # it is measured like the others: the search was interrupted
        return None
    timed = [(record, summarise(record.used_samples_s)) for record in records if record.status in ("ok", "unstable")]
    if not timed:
        return None
    own = next((summary for record, summary in timed if record is default), None)
    best, summary = min(timed, key=lambda pair: pair[1].median)
    if own is not None and not _slowest(best, summary) < _fastest(default, own):
        best, summary = default, own
    ratio = None if own is None else own.median / summary.median
    return Choice(default.content_key, dict(best.config), best.run_id, len(timed), ratio)


def _slowest(record: Measurement, summary: Summary) -> float:
    """The interval's end, or the slowest sample where too few blocks give no interval."""
    return summary.high if summary.high is not None else max(max(block) for block in record.used_samples_s)


def _fastest(record: Measurement, summary: Summary) -> float:
    return summary.low if summary.low is not None else min(min(block) for block in record.used_samples_s)


def stored_choices(store: Store) -> dict[str, Choice]:
    """The newest choice by content key, from the finished searches of a store; contributed runs are of other units.

    Raises:
        StoreError: where the store cannot be read.
    """
    found: dict[str, Choice] = {}
    for info in store.runs():  # newest first
        if info.suite.startswith(SUITE) and info.state == "finished" and not info.contributed:
            records = [record for record in store.records(info.run_id)[0] if isinstance(record, Measurement)]
            for choice in choices(records):
                found.setdefault(choice.content_key, choice)
    return found
