"""One case measured in several fresh processes of a run, seen as one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ridgeline.analytical.processes import ProcessesSummary, summarise_processes
from ridgeline.results.measurement import Measurement

POOLED = frozenset({"ok", "unstable"})
"""Statuses whose samples are used; the samples of an ``impossible`` measurement are not trusted."""


@dataclass(frozen=True)
class PooledCase:
    """All records of one case in one run."""

    run_id: str
    case_id: str
    used: tuple[Measurement, ...]
    """Records whose samples the summary is made of, by process."""
    left_out: tuple[tuple[Measurement, str], ...]
    """The other records, each with the reason."""
    summary: ProcessesSummary | None
    """Seconds per launch; ``None`` where no process was timed."""


def pool(records: Iterable[Measurement]) -> tuple[PooledCase, ...]:
    """Group records by run and case, in the order of their first record, and summarise each over its processes.

    Of a process measured again the later record stands. Records of another content key than the latest one were taken
    of other code and are left out, as are those without trustworthy times; every one of them is named.

    Args:
        records: in the order they were taken.
    """
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for record in records:
        groups.setdefault((record.run_id, record.case_id), []).append(record)
    return tuple(_pool(run_id, case_id, group) for (run_id, case_id), group in groups.items())


def _pool(run_id: str, case_id: str, records: list[Measurement]) -> PooledCase:
    latest = {record.process: record for record in records}
    used, left_out = [], []
    for record in records:
        if record is not latest[record.process]:
            left_out.append((record, "measured again later"))
        elif record.content_key != records[-1].content_key:
            left_out.append((record, "of other code than the latest record of the case"))
        elif record.status not in POOLED:
            left_out.append((record, f"{record.status}: {record.reason}"))
        else:
            used.append(record)
    used.sort(key=lambda record: record.process)
    summary = summarise_processes([record.used_samples_s for record in used]) if used else None
    return PooledCase(run_id, case_id, tuple(used), tuple(left_out), summary)
