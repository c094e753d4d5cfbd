"""A run: every case of a plan, measured, judged and journalled the moment it exists."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psutil

from ridgeline.analytical.ceilings import PHYSICAL
from ridgeline.analytical.clock_correction import raised_to_clock
from ridgeline.analytical.device import Device
from ridgeline.analytical.problem import Structure
from ridgeline.analytical.roofline import IMPOSSIBLE_MARGIN, bound
from ridgeline.analytical.statistics import summarise
from ridgeline.bench.devices.unit import Unit, UnitLostError
from ridgeline.bench.environment import environment
from ridgeline.bench.locks import held
from ridgeline.bench.plan import Case, Plan
from ridgeline.bench.rank_group import RankGroup
from ridgeline.bench.roofs import ceilings_from, probes_for
from ridgeline.bench.supervisor import Outcome
from ridgeline.bench.time_shares import case_settings, roof_settings
from ridgeline.results.fact import SCHEMA_VERSION
from ridgeline.results.measurement import Measurement
from ridgeline.results.run import RunManifest
from ridgeline.results.store import RunWriter, Store, new_run_id
from ridgeline.workloads.suite import Settings


@dataclass(frozen=True)
class Step:
    """One case of one process, for the progress line."""

    case: Case
    process: int
    number: int
    """From 1, of the whole plan."""
    planned: int
    resumed: bool
    """Already in the journal of the run that is being continued."""


Report = Callable[[Step, Measurement | None], None]
"""Called before a measurement with ``None``, and after it with its record."""


def run_plan(plan: Plan, unit: Unit, store: Store, report: Report) -> str:
    """Measure a plan, or continue the unfinished run of the same plan; returns the run's id.

    Results are journalled as they come: an exception, Ctrl-C or ``kill -9`` leaves an unfinished run that the same
    command continues.

    Raises:
        StoreError: for a store that cannot be written.
        UnitLostError: where the unit is gone and does not come back; the run is then unfinished.
    """
    writer = store.resume(plan.digest) or store.create(_manifest(plan, unit), unit.device)
    with writer:
        _Runner(plan, unit, writer, report).run()
        writer.finish()
    return writer.run_id


def now_utc() -> str:
    """The time, ISO 8601, UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _manifest(plan: Plan, unit: Unit) -> RunManifest:
    return RunManifest(
        schema_version=SCHEMA_VERSION,
        run_id=new_run_id(),
        suite=plan.name,
        plan_digest=plan.digest,
        planned=plan.planned,
        created_at=now_utc(),
        device=unit.device.id,
        device_name=unit.device.name,
        environment=unit_environment(unit),
    )


def unit_environment(unit: Unit) -> dict[str, str]:
    """Versions, facts of the host and of the unit, by name."""
    return environment() | {f"unit.{name}": value for name, value in unit.facts().items()}


class _Runner:
    def __init__(self, plan: Plan, unit: Unit, writer: RunWriter, report: Report) -> None:
        self._plan = plan
        self._unit = unit
        self._writer = writer
        self._report = report
        self._number = 0
        self._device: Device = unit.device
        self._roof_records: list[Measurement] = []
        self._suspects: list[str] = []
        self._losses = 0
        self._beyond_s = 0.0

    def run(self) -> None:
        limit = self._plan.settings.memory_limit_bytes or 0.75 * psutil.virtual_memory().available
        timeout_s = self._plan.settings.timeout_s
        sizes = {case.placement.ranks for case in (*self._plan.roofs, *self._plan.cases)}
        units = {member.unit for ranks in sizes for member in self._unit.members(ranks)}
        for process in range(self._plan.settings.processes):
            with held(units) as folder, RankGroup(timeout_s, limit, folder) as group:
                run_began = time.monotonic()
                if process == 0:
                    for done, case in enumerate(self._plan.roofs):
                        elapsed_s, left = time.monotonic() - run_began, len(self._plan.roofs) - done
                        settings = roof_settings(self._plan.settings.roofs_s, elapsed_s, left)
                        self._step(group, case, 0, settings)
                    self._take_roofs()
                self._beyond_s = 0.0
                cases_began = time.monotonic()
                order = self._plan.order(process)
                for done, case in enumerate(order):
                    now = time.monotonic()
                    usual_s = now - cases_began - self._beyond_s
                    settings = case_settings(self._plan.settings, now - run_began, usual_s, done, len(order) - done)
                    self._step(group, case, process, settings)

    def _take_roofs(self) -> None:
        self._roof_records = [r for r in self._writer.measurements if r.role == "roof"]
        if self._roof_records:
            self._device = self._unit.device.with_ceilings(ceilings_from(self._roof_records, self._unit.device))
            self._writer.set_device(self._device)

    def _step(self, group: RankGroup, case: Case, process: int, settings: Settings) -> None:
        self._number += 1
        done = (case.content_key, process) in self._writer.done
        step = Step(case, process, self._number, self._plan.planned, done)
        self._report(step, None)
        if done:
            return
        record = self._measure(group, case, process, settings)
        self._writer.append(record)
        self._report(step, record)

    def _measure(self, group: RankGroup, case: Case, process: int, settings: Settings) -> Measurement:
        started_at = now_utc()
        reason = case.refused or case.implementation.unsupported_reason(case.problem, case.placement.torch_device)
        if reason:
            outcome = Outcome({"status": "unsupported", "reason": reason}, 0.0)
        else:
            self._look_for_units(group)
            outcome = group.run(self._requests(case, process, settings))
            if outcome.fields["status"] in ("crashed", "timeout"):
                self._suspects = sorted({member.spec for member in self._unit.members(case.placement.ranks)})
            self._losses += outcome.unit_lost
        fields = dict(outcome.fields)
        self._beyond_s += max(0.0, fields.pop("timing_s", 0.0) - settings.budget_s)
        if fields["status"] in ("ok", "unstable"):
            fields |= self._judge(case, fields)
        return Measurement(
            record_id=secrets.token_hex(8),
            run_id=self._writer.run_id,
            started_at=started_at,
            role=case.role,
            case_id=case.case_id,
            content_key=case.content_key,
            operator=case.problem.operator,
            implementation=case.implementation.name,
            problem=case.problem.to_dict(),
            problem_label=case.problem.label,
            tf32=case.implementation.tf32,
            papers=case.papers,
            baseline=case.baseline,
            config=dict(case.config),
            placement=case.placement,
            protocol=case.protocol,
            process=process,
            peak_memory_bytes=outcome.peak_memory_bytes or None,
            **fields,
        )

    def _look_for_units(self, group: RankGroup) -> None:
        """After a fault: whether its units are still there, so that no other case is blamed for their loss.

        Raises:
            UnitLostError: where it is not.
        """
        if not self._suspects:
            return
        looked = group.run(
            [{"task": "present", "unit": spec, "losses": self._losses, "with": []} for spec in self._suspects]
        )
        if looked.fields["status"] != "ok":
            raise UnitLostError(f"{looked.fields['reason']}: {len(self._writer.done)} of {self._plan.planned} measured")
        self._suspects = []

    def _requests(self, case: Case, process: int, settings: Settings) -> list[dict[str, Any]]:
        """What the worker of each rank is asked."""
        ranks = case.placement.ranks
        whole = {
            "ranks": ranks,
            "operator": case.problem.operator,
            "problem": case.problem.to_dict(),
            "implementation": case.implementation.name,
            "threads": case.protocol.threads,
            "cache": case.protocol.cache,
            "cache_bytes": self._unit.cache_bytes_per_rank(ranks),
            "seed": int(case.case_id[:8], 16) + process,
            "settings": settings.model_dump(),
            "with": list(self._plan.with_folders),
            "config": dict(case.config),
            "beside": [] if case.role != "case" else probes_for(case, self._device, self._roof_records),
        }
        return [{**whole, "unit": member.spec, "rank": rank} for rank, member in enumerate(self._unit.members(ranks))]

    def _judge(self, case: Case, fields: dict[str, Any]) -> dict[str, Any]:
        """``impossible`` where the whole interval lies below what the hardware can physically do."""
        threads = case.protocol.threads
        level = self._device.level_for(case.problem.footprint_bytes(), case.protocol.cache, threads)
        possible = self._device.select(PHYSICAL, threads)
        clocks = [clock for block in fields["conditions"] if (clock := block["clock_mhz"])]
        if clocks:
            possible = raised_to_clock(possible, max(clocks))
        structure = Structure(fields.get("structure_figures", {}), fields.get("structure_digest", ""))
        physical = bound(case.work(structure), possible, level.name)
        summary = summarise(_used(fields))
        longest_s = summary.high if summary.high is not None else max(max(block) for block in _used(fields))
        if physical is None or longest_s >= physical.seconds / IMPOSSIBLE_MARGIN:
            return {}
        return {
            "status": "impossible",
            "reason": (
                f"{summary.median:.3g} s is {physical.seconds / summary.median:.2f} times faster than "
                f"{physical.bound_by} can physically go: the kernel skips work, or its work is miscounted"
            ),
        }


def _used(fields: dict[str, Any]) -> list[list[float]]:
    """Samples of the blocks that count."""
    out = {left["block"] for left in fields["left_out"]}
    return [block for index, block in enumerate(fields["samples_s"]) if index not in out]
