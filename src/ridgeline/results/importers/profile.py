"""Profiles of all tools: which kernels of them belong to a case, and the record that joins them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ridgeline.analytical.quantities import canonical_json, digest
from ridgeline.results.counters import Counters, KernelCounters, LaunchCounters
from ridgeline.results.durable import StoreError
from ridgeline.results.importers.ncu import read_ncu
from ridgeline.results.importers.proton import read_proton
from ridgeline.results.importers.rocprof import read_rocprof
from ridgeline.results.importers.source_file import SourceFile, known_import, now_utc, read_source, store_import
from ridgeline.results.importers.torch_profiler import read_torch_profiler
from ridgeline.results.importers.trace import Trace
from ridgeline.results.measurement import Measurement
from ridgeline.results.store import Store, new_run_id
from ridgeline.results.views_counters import COUNTERS_SUFFIX

READERS: Mapping[str, Callable[[SourceFile], Trace]] = {
    "ncu": read_ncu,
    "rocprof": read_rocprof,
    "proton": read_proton,
    "torch-profiler": read_torch_profiler,
}
"""How the file of each tool is read."""


@dataclass(frozen=True)
class Target:
    """The kernel that was profiled: a case, or what every case of it has in common."""

    case_id: str = ""
    """Id of a case, or a start of one that no other has."""
    operator: str = ""
    implementation: str = ""
    problem: Mapping[str, int | float | bool | str] | None = None


def import_profile(
    store: Store, path: Path, tool: str, target: Target, kernel: str | None = None, calls: int | None = None
) -> tuple[str, bool]:
    """Join a profile to the record of the kernel that it is of.

    Args:
        store: holds the record, and takes the profile.
        path: what the tool wrote.
        tool: one of :data:`READERS`.
        target: the kernel.
        kernel: regular expression; of the profile only kernels that it is found in belong to the target.
        calls: calls of the implementation that the profile covers. Without it, every kernel is taken to be launched
            once in each call.

    Returns:
        id of the run that holds the profile, and whether it was written: ``False`` where it was imported before.

    Raises:
        StoreError: where the file is not of that tool, is cut off, has an unknown unit, or the target was not
            measured. Nothing is written then.
    """
    source = read_source(path)
    trace = READERS[tool](source)
    measured = _find(store, target)
    kernels = _select(trace, kernel, path)
    n_calls = calls or _calls(kernels, path)
    named = {
        "case_id": measured.case_id if target.case_id else "",
        "operator": measured.operator,
        "implementation": measured.implementation,
        "problem": measured.problem,
        "device": measured.placement.device,
    }
    identity = digest({"tool": trace.tool, "source": source.digest, "kernel": kernel, "calls": n_calls, **named})
    known = known_import(store, identity)
    if known is not None:
        return known, False
    run_id = f"{new_run_id()}{COUNTERS_SUFFIX}"
    try:
        record = Counters.model_validate(
            {
                **named,
                "record_id": secrets.token_hex(8),
                "run_id": run_id,
                "started_at": now_utc(),
                "tool": trace.tool,
                "source_file": source.name,
                "source_digest": source.digest,
                "problem_label": measured.problem_label,
                "calls": n_calls,
                "notes": trace.notes,
                "kernels": tuple(kernels),
            }
        )
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise StoreError(f"{path}: {said}: select kernels with --kernel, or state --calls") from None
    device = store.device(measured.run_id)
    store_import(
        store, run_id=run_id, tool=trace.tool, identity=identity, records=[record], device=device, name=device.name
    )
    return run_id, True


def _find(store: Store, target: Target) -> Measurement:
    """The newest measurement of the target; all that fit are of one device and problem."""
    records, _ = store.records()
    cases = [r for r in records if isinstance(r, Measurement)]
    if target.case_id:
        fitting = [r for r in cases if r.case_id.startswith(target.case_id)]
        asked = f"case {target.case_id!r}"
    else:
        if not (target.operator and target.implementation and target.problem):
            raise StoreError(
                "which kernel? name a measured one with --case, or --operator, --implementation, --problem"
            )
        wanted = canonical_json(dict(target.problem))
        same = [r for r in cases if r.operator == target.operator and r.implementation == target.implementation]
        fitting = [r for r in same if canonical_json(_given(r.problem, target.problem)) == wanted]
        asked = f"{target.operator} {target.implementation} of {wanted}"
    if not fitting:
        raise StoreError(
            f"{store.path}: no measurement of {asked}: measure it first; `ridgeline show --json` lists case_id"
        )
    for what, values in (
        ("case", {r.case_id for r in fitting} if target.case_id else set()),
        ("problem", {r.problem_label for r in fitting}),
        ("device", {r.placement.device for r in fitting}),
    ):
        if len(values) > 1:
            raise StoreError(f"{store.path}: {asked} was measured as more than one {what}: {', '.join(sorted(values))}")
    if fitting[-1].placement.torch_device == "cpu":
        raise StoreError(f"{store.path}: {asked} ran on the CPU; this profile is of GPU kernels")
    return fitting[-1]


def _given(
    problem: Mapping[str, int | float | bool | str], wanted: Mapping[str, int | float | bool | str]
) -> dict[str, int | float | bool | str]:
    """The parameters that were asked for: a problem has defaults that nobody writes."""
    return {key: value for key, value in problem.items() if key in wanted}


def _select(trace: Trace, kernel: str | None, path: Path) -> list[KernelCounters]:
    try:
        pattern = re.compile(kernel or "")
    except re.error as error:
        raise StoreError(f"--kernel: not a regular expression: {error}") from None
    launches: dict[str, list[LaunchCounters]] = {
        name: entries for name, entries in trace.kernels.items() if pattern.search(name)
    }
    if not launches:
        names = ", ".join(list(trace.kernels)[:5])
        raise StoreError(
            f"{path}: no kernel matches {kernel!r}: it holds {names}" if kernel else f"{path}: no kernel in it"
        )
    return [KernelCounters(kernel=name, launches=tuple(entries)) for name, entries in launches.items()]


def _calls(kernels: list[KernelCounters], path: Path) -> int:
    counts = {kernel.n_launches for kernel in kernels}
    if len(counts) > 1:
        said = ", ".join(f"{kernel.kernel} {kernel.n_launches}" for kernel in kernels[:5])
        raise StoreError(
            f"{path}: kernels were launched different numbers of times ({said}): state --calls, or --kernel"
        )
    return counts.pop()
