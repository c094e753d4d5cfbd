"""``ridgeline compare``: two implementations, two revisions of one, or two stored runs."""

from __future__ import annotations

import contextlib
import re
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import psutil

from ridgeline.analytical.operators import make_problem, parameters_from_text
from ridgeline.analytical.problem import Problem
from ridgeline.analytical.quantities import digest
from ridgeline.bench.devices.choose import choose_unit
from ridgeline.bench.devices.unit import Unit
from ridgeline.bench.locks import held
from ridgeline.bench.plan import PROTOCOL_VERSION, Case
from ridgeline.bench.revisions import Source, present, take_out
from ridgeline.bench.run import now_utc, unit_environment
from ridgeline.bench.supervisor import Supervisor
from ridgeline.bench.tuning import chosen_config
from ridgeline.kernels.registry import Implementation, get_implementation
from ridgeline.results.comparison import Comparison, ComparisonError, verdict_of
from ridgeline.results.measurement import Protocol
from ridgeline.results.run import RunManifest
from ridgeline.results.store import Store, new_run_id
from ridgeline.results.tuning import stored_choices
from ridgeline.workloads.suite import Cache, load_suite

EXIT_SAME, EXIT_SLOWER, EXIT_REFUSED, EXIT_UNCLEAR, EXIT_ERROR = 0, 1, 2, 3, 4
TIMEOUT_S = 300.0
"""Beyond the budget: for compiling, preparing and checking both sides."""
_TARGET = re.compile(r"(?P<operator>[^/@\s]+)/(?P<implementation>[^/@\s]+)(?:@(?P<revision>\S+))?")


@dataclass(frozen=True)
class Target:
    """One side as it was named: OPERATOR/IMPLEMENTATION, or OPERATOR/IMPLEMENTATION@REVISION."""

    implementation: Implementation
    revision: str

    @property
    def text(self) -> str:
        """As it was named, without the operator."""
        return self.implementation.name + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class Options:
    """How to compare."""

    cache: Cache
    threads: int
    budget_s: float
    margin: float
    confidence: float

    def __post_init__(self) -> None:
        for name, value in (("--margin", self.margin), ("--confidence", self.confidence)):
            if not 0.0 < value < 1.0:
                raise ComparisonError(f"{name} {value:g}: must lie between 0 and 1, such as 0.02 for 2 %")
        if not 0.0 < self.budget_s < 1e5:
            raise ComparisonError(f"--seconds {self.budget_s:g}: must be more than 0")
        if self.threads < 1:
            raise ComparisonError(f"--threads {self.threads}: must be at least 1")


def names_a_kernel(text: str) -> bool:
    """Whether ``text`` names an implementation, not a run."""
    return "/" in text


def parse_target(text: str) -> Target:
    """Read ``OPERATOR/IMPLEMENTATION[@REVISION]``; kernels are loaded.

    Raises:
        ComparisonError: for another form.
        RegistryError: for a name that is not registered.
    """
    match = _TARGET.fullmatch(text)
    if match is None:
        raise ComparisonError(f"{text!r}: write OPERATOR/IMPLEMENTATION, OPERATOR/IMPLEMENTATION@REVISION, or a run id")
    return Target(get_implementation(match["operator"], match["implementation"]), match["revision"] or "")


def choose_problems(a: Target, b: Target, problem: str | None, suite: str, device: str) -> list[Problem]:
    """The problem that was asked for, or those of a suite that both sides take.

    Raises:
        ComparisonError: where the sides belong to different operators, or no problem is left.
        SuiteError: for a suite that cannot be read.
    """
    operator = a.implementation.operator
    if operator != b.implementation.operator:
        raise ComparisonError(
            f"A computes {operator}, B computes {b.implementation.operator}: name two implementations of one operator"
        )
    if problem is not None:
        chosen = [make_problem(operator, parameters_from_text(problem))]
        for target in (a, b):
            reason = target.implementation.unsupported_reason(chosen[0], device)
            if reason is not None:
                raise ComparisonError(f"{target.text}: {reason}")
        return chosen
    asked = [case.problem for case in load_suite(suite).cases if case.problem.operator == operator]
    both = [
        p for p in dict.fromkeys(asked)
        if all(t.implementation.unsupported_reason(p, device) is None for t in (a, b))
    ]  # fmt: skip
    if not both:
        raise ComparisonError(f"suite {suite} has no problem of {operator} that both sides take here: give --problem")
    return both


def compare_targets(
    a: Target,
    b: Target,
    problems: Sequence[Problem],
    options: Options,
    unit: Unit,
    store: Store,
    with_folders: tuple[str, ...] = (),
    report: Callable[[Comparison], None] = lambda record: None,
) -> list[Comparison]:
    """Compare on every problem, and store each result the moment it exists, as a run of its own.

    Kernels run as they would in a run: in the configuration that the last search on this unit found. Where a revision is
    named both run in their default, because a search is of the present code alone.

    Raises:
        ComparisonError: for a revision that cannot be taken out.
        StoreError: for a store that cannot be written.
    """
    with contextlib.ExitStack() as stack:
        sources = _sources((a, b), with_folders, stack)
        name = f"compare {a.implementation.operator} {a.text} {b.text}"
        planned = digest({"name": name, "problems": [p.to_dict() for p in problems], "at": now_utc()})
        manifest = RunManifest(
            run_id=new_run_id(), suite=name, plan_digest=planned, planned=len(problems), created_at=now_utc(),
            device=unit.device.id, device_name=unit.device.name, environment=unit_environment(unit),
        )  # fmt: skip
        stack.enter_context(held([unit.placement.unit]))
        limit = 0.75 * psutil.virtual_memory().available
        supervisor = stack.enter_context(Supervisor(options.budget_s + TIMEOUT_S, limit))
        writer = stack.enter_context(store.create(manifest, unit.device))
        known = {} if any(sources) else stored_choices(store)
        records = []
        for problem in problems:
            configs = [chosen_config(as_case(target, problem, options, unit), known) for target in (a, b)]
            record = compare_once(
                supervisor, a, b, problem, options, unit, sources, manifest.run_id, with_folders, configs
            )
            writer.append(record)
            report(record)
            records.append(record)
        writer.finish()
    return records


def compare_once(
    supervisor: Supervisor,
    a: Target,
    b: Target,
    problem: Problem,
    options: Options,
    unit: Unit,
    sources: Sequence[Source | None] = (None, None),
    run_id: str = "",
    with_folders: tuple[str, ...] = (),
    configs: Sequence[Mapping[str, Any]] = ({}, {}),
) -> Comparison:
    """One comparison in the worker of ``supervisor``; a fault of the worker is the record's status."""
    started_at = now_utc()
    sides = [
        {
            "implementation": target.implementation.name,
            "label": f"{name} ({target.text})",
            "python_path": str(source.python_path) if source else None,
            "with": list(source.with_folders) if source else [],
            "config": dict(config),
        }
        for name, target, source, config in zip("AB", (a, b), sources, configs, strict=True)
    ]
    request = {
        "task": "compare",
        "unit": unit.spec,
        "operator": problem.operator,
        "problem": problem.to_dict(),
        "threads": options.threads,
        "cache": options.cache,
        "cache_bytes": unit.last_level_cache_bytes,
        "seed": secrets.randbelow(1 << 31),
        "with": list(with_folders),
        "sides": sides,
        "budget_s": options.budget_s,
        "margin": options.margin,
        "confidence": options.confidence,
    }
    fields = dict(supervisor.run(request).fields)
    measured = fields.pop("sides", ({}, {}))
    side_a, side_b = (
        {
            "implementation": target.implementation.name,
            "revision": source.commit if source else "",
            "config": dict(config),
            **facts,
        }
        for target, source, config, facts in zip((a, b), sources, configs, measured, strict=True)
    )
    values = {
        "record_id": secrets.token_hex(8),
        "run_id": run_id,
        "started_at": started_at,
        "operator": problem.operator,
        "problem": problem.to_dict(),
        "problem_label": problem.label,
        "placement": unit.placement,
        "protocol": protocol_of(options, unit),
        "side_a": side_a,
        "side_b": side_b,
        "processes": "two" if any(sources) else "one",
        "margin": options.margin,
        "confidence": options.confidence,
        "budget_s": options.budget_s,
        **fields,
    }
    return Comparison.model_validate(values)


def protocol_of(options: Options, unit: Unit) -> Protocol:
    """How both sides are measured."""
    return Protocol(timer=unit.timer, cache=options.cache, threads=options.threads, version=PROTOCOL_VERSION)


def as_case(target: Target, problem: Problem, options: Options, unit: Unit) -> Case:
    """A side as a run would measure it."""
    return Case(problem, target.implementation, unit.placement, protocol_of(options, unit), facts=unit.facts())


def _sources(
    targets: Sequence[Target], with_folders: tuple[str, ...], stack: contextlib.ExitStack
) -> list[Source | None]:
    """Where each side's code comes from; ``None`` for both where neither names a revision."""
    if not any(target.revision for target in targets):
        return [None, None]
    sources: list[Source | None] = []
    for target in targets:
        if not target.revision:
            sources.append(present(with_folders))
            continue
        into = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ridgeline-revision-")))
        sources.append(take_out(target.implementation.path, target.revision, with_folders, into))
    return sources


def exit_code(records: Sequence[Comparison]) -> int:
    """4 where a comparison failed, 1 where B is slower in any, 3 where any is unclear, else 0; 2 where none can run."""
    if all(record.status == "unsupported" for record in records):
        return EXIT_REFUSED
    if any(record.status not in ("ok", "unsupported") for record in records):
        return EXIT_ERROR
    return code_of([verdict_of(record) for record in records])


def code_of(verdicts: Sequence[str | None]) -> int:
    """1 for any ``slower``, else 3 for any ``unclear``, else 0."""
    if "slower" in verdicts:
        return EXIT_SLOWER
    return EXIT_UNCLEAR if "unclear" in verdicts else EXIT_SAME


@dataclass(frozen=True)
class Request:
    """The command's arguments as they were given."""

    a: str
    b: str
    problem: str | None
    suite: str
    cache: str
    threads: int | None
    seconds: float
    margin: float
    confidence: float
    across_environments: bool
    json: bool
    device: str | None = None


def run_command(request: Request, store: Store, load_kernels: Callable[[], Sequence[str]]) -> NoReturn:
    """Carry out ``ridgeline compare`` and end with its exit code.

    Raises:
        ComparisonError, RegistryError, ProblemError, SuiteError, StoreError: bad input.
    """
    from ridgeline.bench.compare_report import print_comparison, print_comparisons_json, print_runs
    from ridgeline.results.run_comparison import compare_runs

    if not 0.0 < request.margin < 1.0:
        raise ComparisonError(f"--margin {request.margin:g}: must lie between 0 and 1, such as 0.02 for 2 %")
    if names_a_kernel(request.a) != names_a_kernel(request.b):
        raise ComparisonError(f"{request.a} and {request.b}: name two kernels (OPERATOR/IMPLEMENTATION) or two runs")
    if not names_a_kernel(request.a):
        if request.problem is not None:
            raise ComparisonError("--problem is for kernels; two runs are compared on the cases they share")
        runs = compare_runs(store, request.a, request.b, request.margin, request.across_environments)
        print_runs(runs, request.json)
        raise SystemExit(code_of([case.verdict for case in runs.cases]))
    if request.cache not in ("cold", "warm"):
        raise ComparisonError(f"--cache {request.cache!r}: cold or warm")
    with_folders = tuple(load_kernels())
    unit = choose_unit(request.device)
    a, b = parse_target(request.a), parse_target(request.b)
    problems = choose_problems(a, b, request.problem, request.suite, unit.placement.torch_device)
    options = Options(
        "warm" if request.cache == "warm" else "cold",
        request.threads or unit.threads,
        request.seconds,
        request.margin,
        request.confidence,
    )
    report = (lambda record: None) if request.json else print_comparison
    records = compare_targets(a, b, problems, options, unit, store, with_folders, report)
    if request.json:
        print_comparisons_json(records)
    raise SystemExit(exit_code(records))
