"""The plan: every case of a run, its identity, and the order in which they are measured."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from ridgeline.analytical.operators import Collective
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, Structure
from ridgeline.analytical.quantities import digest
from ridgeline.analytical.work import Work
from ridgeline.bench.devices.unit import Unit, UnitError
from ridgeline.bench.environment import package_versions
from ridgeline.kernels.registry import Implementation, RegistryError, get_implementation, get_operator, implementations
from ridgeline.results.measurement import Placement, Protocol
from ridgeline.results.sources import source_hash
from ridgeline.workloads.suite import Settings, Suite, SuiteCase, SuiteError

PROTOCOL_VERSION = 3
"""Raised by every change to the measuring procedure that can move a number. 2: pinned threads; disturbed blocks do not
count. 3: the cache is not emptied before the blocks of a cold case whose rotation passes through it."""


@dataclass(frozen=True)
class Case:
    """Problem x implementation x placement x protocol."""

    problem: Problem
    implementation: Implementation
    placement: Placement
    protocol: Protocol
    papers: tuple[str, ...] = ()
    role: Literal["case", "roof", "tuning"] = "case"
    baseline: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else of the unit decides the number, such as driver and power cap."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Tuned configuration; empty for the implementation's default."""
    refused: str = ""
    """Why it is not run at all, where that is known beforehand."""

    @cached_property
    def case_id(self) -> str:
        """Hash of what is measured and how."""
        return digest(
            {
                "operator": self.problem.operator,
                "problem": self.problem.to_dict(),
                "implementation": self.implementation.name,
                "placement": self.placement.model_dump(),
                "protocol": self.protocol.model_dump(),
            }
        )

    @cached_property
    def content_key(self) -> str:
        """Hash of everything that decides the number: the case, the code it reaches, the versions."""
        return digest(
            {
                "case": self.case_id,
                "source": source_hash(self.implementation.path),
                "versions": package_versions(),
                **({"unit": dict(self.facts)} if self.facts else {}),
                **({"config": dict(self.config)} if self.config else {}),
            },
            32,
        )

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        """What the implementation has to do: the problem's work, in the arithmetic that the implementation states.

        The forecast until the structure is known, then what was realised.
        """
        work = self.problem.known_work(structure)
        return work.in_tfloat32() if self.implementation.tf32 else work

    @property
    def label(self) -> str:
        """For the progress line."""
        config = ", ".join(f"{name}={value}" for name, value in self.config.items())
        return f"{self.problem.operator} {self.implementation.name} {self.problem.label}" + (config and f" ({config})")


@dataclass(frozen=True)
class Plan:
    """What a run will measure."""

    name: str
    cases: tuple[Case, ...]
    settings: Settings
    with_folders: tuple[str, ...] = ()
    roofs: tuple[Case, ...] = field(default=())

    @property
    def planned(self) -> int:
        """Measurements of the whole plan."""
        return len(self.roofs) + len(self.cases) * self.settings.processes

    @property
    def digest(self) -> str:
        """Identity of the command: equal for the same cases, code and settings."""
        return digest(
            {
                "name": self.name,
                "content": [case.content_key for case in (*self.roofs, *self.cases)],
                "settings": self.settings.model_dump(),
                "with": list(self.with_folders),
            }
        )

    def order(self, process: int) -> list[Case]:
        """The cases in the shuffled order of one process; equal plans give equal orders, so that a run can continue."""
        shuffled = list(self.cases)
        random.Random(f"{self.digest} {process}").shuffle(shuffled)
        return shuffled


def make_plan(
    suite: Suite,
    unit: Unit,
    *,
    roofs: Sequence[Case] = (),
    only: Sequence[str] = (),
    with_folders: Sequence[str] = (),
) -> Plan:
    """Expand a suite on a unit.

    Args:
        suite: what to run; entries for other kinds of devices are left out.
        unit: where.
        roofs: cases that measure the ceilings first.
        only: operators to keep; empty for all.
        with_folders: folders of the user's own kernels, given to the workers.

    Raises:
        SuiteError: for an unknown operator or implementation, a problem that does not fit in memory, or more ranks than
            the unit has room for.
    """
    for name in only:
        try:
            get_operator(name)
        except RegistryError as error:
            raise SuiteError(f"--only: {error}") from None
    cases = []
    for entry in suite.cases:
        operator = entry.problem.operator
        if (only and operator not in only) or (entry.devices and unit.torch_device not in entry.devices):
            continue
        try:
            definition = get_operator(operator)
            chosen = (
                implementations(operator)
                if entry.implementations is None
                else [get_implementation(operator, name) for name in entry.implementations]
            )
        except RegistryError as error:
            raise SuiteError(f"{entry.where}: {error}") from None
        ranks = entry.problem.ranks if isinstance(entry.problem, Collective) else 1
        try:
            members = unit.members(ranks)
            placement = unit.placement_of(ranks)
        except UnitError as error:
            raise SuiteError(f"{entry.where}: {entry.problem.label}: {error}") from None
        sharing = ranks // len({member.unit for member in members})
        need, have = sharing * entry.problem.footprint_bytes(), unit.device.main_memory.capacity_bytes
        if need > have:
            raise SuiteError(
                f"{entry.where}: {entry.problem.label}: needs {need / 1e9:.1f} GB, this unit has "
                f"{have / 1e9:.1f} GB: make the shape smaller"
            )
        cases += [
            Case(
                entry.problem,
                implementation,
                placement,
                Protocol(timer=unit.timer, cache=entry.cache, threads=threads, version=PROTOCOL_VERSION),
                entry.papers,
                baseline=definition.baseline(entry.problem, unit.torch_device),
                facts=unit.facts(),
            )
            for threads in _threads(entry, unit, members[0].threads)
            for implementation in chosen
        ]
    if only and not cases:
        raise SuiteError(f"--only: suite {suite.name} has no case of {' or '.join(only)}")
    if suite.cases and not cases and not roofs:
        raise SuiteError(f"suite {suite.name} has no case for {unit.spec}: choose another suite or --device")
    unique = {case.case_id: case for case in cases}
    return Plan(suite.name, tuple(unique.values()), suite.settings, tuple(with_folders), tuple(roofs))


def _threads(entry: SuiteCase, unit: Unit, have: int) -> list[int]:
    """Thread counts of an entry: all that a rank has, or those of its sweep that it has.

    Raises:
        SuiteError: where it has none of them.
    """
    if not entry.threads:
        return [have]
    possible = [count for count in entry.threads if count <= have]
    if not possible:
        asked = ", ".join(map(str, entry.threads))
        each = "" if have == unit.threads else " for each rank"
        raise SuiteError(f"{entry.where}: threads: {asked}: {unit.device.name} has {have}{each}")
    return possible
