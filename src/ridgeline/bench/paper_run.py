"""Carrying out the checks of papers: each in the isolated worker, each record journalled the moment it exists."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from ridgeline.analytical.quantities import digest
from ridgeline.bench.devices.unit import Unit
from ridgeline.bench.environment import package_versions
from ridgeline.bench.locks import held
from ridgeline.bench.paper_checks.frame import Check
from ridgeline.bench.run import now_utc, unit_environment
from ridgeline.bench.supervisor import Outcome, Supervisor
from ridgeline.results.check import SUITE, PaperCheck
from ridgeline.results.run import RunManifest
from ridgeline.results.sources import check_hash, name_in_package
from ridgeline.results.store import Store, new_run_id

TIMEOUT_S = 300.0
"""Longest that one check may take."""
Report = Callable[[Check, PaperCheck | None], None]
"""Called before a check with ``None``, and after it with its record."""


def run_checks(
    checks: Sequence[Check],
    unit: Unit,
    store: Store,
    report: Report,
    timeout_s: float = TIMEOUT_S,
    with_folders: Sequence[str] = (),
) -> tuple[str, list[PaperCheck]]:
    """Carry out ``checks`` as one run, or continue the unfinished run of the same checks on the same source.

    A crash, a hang or too much memory costs one check.

    Args:
        checks: what to carry out, in this order.
        unit: where.
        store: keeps the run.
        report: told of each.
        timeout_s: longest that one may take.
        with_folders: of the user's own kernels, which may register checks too.

    Returns:
        The run's id, and its records.

    Raises:
        StoreError: for a store that cannot be written.
    """
    hashes = {(c.paper, c.name): check_hash([name_in_package(c.path)]) for c in checks}
    plan = digest(
        {
            "checks": sorted([*key, source] for key, source in hashes.items()),
            "unit": unit.placement.unit,
            "device": unit.device.id,
            "versions": package_versions(),
        }
    )
    manifest = RunManifest(
        run_id=new_run_id(), suite=SUITE, plan_digest=plan, planned=len(checks), created_at=now_utc(),
        device=unit.device.id, device_name=unit.device.name, environment=unit_environment(unit),
    )  # fmt: skip
    limit = 0.75 * psutil.virtual_memory().available
    with (
        held([unit.placement.unit]),
        store.resume(plan) or store.create(manifest, unit.device) as writer,
        Supervisor(timeout_s, limit) as supervisor,
    ):
        done = {(r.paper, r.check): r for r in writer.records if isinstance(r, PaperCheck)}
        for check in checks:
            key = check.paper, check.name
            # What its kernels reach may have changed since the run was left.
            if key in done and _hash(done[key].sources) == done[key].sources_hash:
                continue
            report(check, None)
            began, started_at = time.monotonic(), now_utc()
            outcome = supervisor.run(_request(check, unit, with_folders))
            record = record_of(check, unit, outcome, writer.run_id, started_at, time.monotonic() - began)
            writer.append(record)
            done[key] = record
            report(check, record)
        writer.finish()
        return writer.run_id, [done[c.paper, c.name] for c in checks]


def _request(check: Check, unit: Unit, with_folders: Sequence[str]) -> dict[str, Any]:
    return {
        "task": "check",
        "paper": check.paper,
        "check": check.name,
        "unit": unit.spec,
        "threads": unit.threads,
        "cache_bytes": unit.last_level_cache_bytes,
        "seed": int(digest([check.paper, check.name])[:7], 16),
        "with": list(with_folders),
    }


def _hash(sources: Sequence[str]) -> str:
    """Empty for files that are not the package's: such a record is never of the present source."""
    return check_hash(sources) or ""


def record_of(check: Check, unit: Unit, outcome: Outcome, run_id: str, started_at: str, seconds: float) -> PaperCheck:
    """The record of a check from what its worker said, or what became of the worker."""
    fields = dict(outcome.fields)
    status, reason = fields["status"], fields.get("reason", "")
    finding: dict[str, Any] = dict(fields.get("finding") or {})
    if finding:
        status = "passed" if finding.pop("passed") else "failed"
        reason = finding.pop("reason")
    elif status == "incorrect":
        # A ratio of a wrong output is no ratio.
        status, reason = ("crashed" if check.kind == "ratio" else "failed"), f"incorrect: {reason}"
    elif status == "out_of_memory":
        status, reason = "crashed", f"out of memory: {reason}"
    sources = sorted({name_in_package(Path(path)) for path in fields.get("sources", [str(check.path)])})
    return PaperCheck(
        record_id=secrets.token_hex(8),
        run_id=run_id,
        started_at=started_at,
        paper=check.paper,
        check=check.name,
        check_kind=check.kind,
        states=check.states,
        status=status,
        reason=reason,
        seconds=seconds,
        placement=unit.placement,
        threads=unit.threads,
        sources=tuple(sources),
        sources_hash=_hash(sources),
        versions=package_versions(),
        **finding,
    )
