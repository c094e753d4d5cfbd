"""Two stored runs, case by case: what is comparable, the ratio of every case, and a verdict that counts the cases.

The runs were taken one after the other, so whatever the machine did in between counts as a difference: an interleaved
comparison is the better instrument. Blocks of all processes are pooled; where processes differ, that shows as
autocorrelation of the pooled blocks and widens the interval.

Many cases, many chances to be wrong: intervals are those of Benjamini & Yekutieli (JASA 100, 2005). With R of m cases
decided, every interval has the confidence 1 - R q / m, so that on average at most the share q of the verdicts is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ridgeline.analytical.comparison import Verdict, verdict
from ridgeline.analytical.quantities import canonical_json
from ridgeline.analytical.statistics import summarise
from ridgeline.results.comparison import ComparisonError
from ridgeline.results.measurement import Measurement
from ridgeline.results.store import Store

WRONG_SHARE = 0.05
"""Expected share of wrong verdicts among those of one comparison of runs."""
_COMPARED = frozenset({"ok", "unstable"})


@dataclass(frozen=True)
class Difference:
    """A field in which two runs differ."""

    field: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.field}: {self.a or 'none'} in A, {self.b or 'none'} in B"


@dataclass(frozen=True)
class CaseComparison:
    """One case in both runs."""

    case_id: str
    """Of run A."""
    operator: str
    implementation: str
    problem_label: str
    cache: str
    verdict: Verdict
    ratio: float
    """Median time in B over that in A."""
    ratio_low: float | None
    ratio_high: float | None
    processes_a: int
    processes_b: int
    blocks_a: int
    blocks_b: int
    source_changed: bool
    """The kernel, what it reaches, or a version differs between the runs."""


@dataclass(frozen=True)
class RunComparison:
    """Two runs side by side."""

    run_a: str
    run_b: str
    margin: float
    confidence: float
    """Of each case's interval, after accounting for the number of cases."""
    cases: tuple[CaseComparison, ...]
    only_in_a: tuple[str, ...]
    """Cases without a usable measurement in B, by label."""
    only_in_b: tuple[str, ...]
    differences: tuple[Difference, ...]
    """Of environment, device and unit, accepted by whoever asked; empty otherwise."""


_Blocks = list[tuple[float, ...]]


def compare_runs(
    store: Store, a: str, b: str, margin: float, across_environments: bool = False, wrong_share: float = WRONG_SHARE
) -> RunComparison:
    """Compare two runs of ``store`` case by case.

    Args:
        store: where both are.
        a: run id, a unique start of one, or ``latest``.
        b: likewise.
        margin: relative difference up to which two times are the same.
        across_environments: compare although environment, device or unit differ. Never across protocols.
        wrong_share: expected share of wrong verdicts.

    Raises:
        StoreError: where a run cannot be read.
        ComparisonError: where environment, device, unit or protocol differ, or no case is in both.
    """
    run_a, run_b = store.run(a).run_id, store.run(b).run_id
    if run_a == run_b:
        raise ComparisonError(f"{run_a} is both A and B: name two runs; `ridgeline list runs` shows them")
    cases_a, cases_b = _cases(store, run_a), _cases(store, run_b)
    differences = _differences(store, run_a, run_b, cases_a, cases_b)
    if differences and not across_environments:
        more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
        raise ComparisonError(
            f"not comparable: {differences[0]}{more}: measure both in one environment, "
            "or add --across-environments, which marks the result"
        )
    pairs = [(cases_a[key], cases_b[key]) for key in cases_a if key in cases_b]
    _refuse_other_protocols(cases_a, cases_b)
    usable = [(x, y) for x, y in pairs if _blocks(x) and _blocks(y)]
    if not usable:
        raise ComparisonError(f"no case was measured in both {run_a} and {run_b}: run the same suite twice")
    confidence, judged = _judge([(_blocks(x), _blocks(y)) for x, y in usable], margin, wrong_share)
    done = {id(x) for pair in usable for x in pair}
    return RunComparison(
        run_a,
        run_b,
        margin,
        confidence,
        tuple(_case(x, y, logs, said) for (x, y), (logs, said) in zip(usable, judged, strict=True)),
        tuple(_label(x[0]) for x in cases_a.values() if id(x) not in done),
        tuple(_label(y[0]) for y in cases_b.values() if id(y) not in done),
        differences,
    )


def _cases(store: Store, run_id: str) -> dict[str, list[Measurement]]:
    """Measurements of one run by what they are of and how they were taken, not by where."""
    found: dict[str, list[Measurement]] = {}
    for record in store.records(run_id)[0]:
        if isinstance(record, Measurement) and record.role == "case":
            key = [*_what(record), record.protocol.model_dump(), record.placement.torch_device, record.placement.ranks]
            found.setdefault(canonical_json(key), []).append(record)
    return found


def _what(record: Measurement) -> list[Any]:
    return [record.operator, record.implementation, record.problem]


def _differences(
    store: Store,
    run_a: str,
    run_b: str,
    cases_a: dict[str, list[Measurement]],
    cases_b: dict[str, list[Measurement]],
) -> tuple[Difference, ...]:
    """Fields of environment, device and unit that differ; those of the unit first."""
    manifest_a, manifest_b = store.manifest(run_a), store.manifest(run_b)
    found = []
    for field in ("device", "unit", "torch_device", "ranks"):
        a, b = (
            ", ".join(sorted({str(getattr(r.placement, field)) for records in cases.values() for r in records}))
            for cases in (cases_a, cases_b)
        )
        if cases_a and cases_b and a != b:
            found.append(Difference(f"placement.{field}", a, b))
    if manifest_a.device != manifest_b.device:
        found.append(Difference("device", manifest_a.device, manifest_b.device))
    environment_a, environment_b = manifest_a.environment, manifest_b.environment
    for name in sorted({*environment_a, *environment_b}):
        a, b = environment_a.get(name, ""), environment_b.get(name, "")
        if a != b:
            found.append(Difference(f"environment.{name}", a, b))
    return tuple(found)


def _refuse_other_protocols(cases_a: dict[str, list[Measurement]], cases_b: dict[str, list[Measurement]]) -> None:
    """Refuse where a case is in both runs, but under no protocol that both have."""
    by_what: dict[str, Measurement] = {canonical_json(_what(y[0])): y[0] for y in cases_b.values()}
    shared = {canonical_json(_what(x[0])) for key, x in cases_a.items() if key in cases_b}
    for records in cases_a.values():
        record = records[0]
        what = canonical_json(_what(record))
        other = by_what.get(what)
        if other is None or what in shared:
            continue
        for field, value in record.protocol.model_dump().items():
            theirs = getattr(other.protocol, field)
            if value != theirs:
                raise ComparisonError(
                    f"not comparable: {_label(record)}: {Difference(f'protocol.{field}', str(value), str(theirs))}: "
                    "numbers of different protocols are never compared; measure one of the runs again"
                )


def _blocks(records: Sequence[Measurement]) -> _Blocks:
    """Blocks of all processes, one process after the other; of a process measured twice, the later stands."""
    latest = {record.process: record for record in records if record.status in _COMPARED}
    return [block for _, record in sorted(latest.items()) for block in record.used_samples_s]


_Logs = tuple[float, float | None, float | None]


def _judge(
    cases: Sequence[tuple[_Blocks, _Blocks]], margin: float, wrong_share: float
) -> tuple[float, list[tuple[_Logs, Verdict]]]:
    """Verdicts at the largest error share that as many decided cases pay for."""
    judged: list[tuple[_Logs, Verdict]] = []
    confidence = 1.0 - wrong_share / len(cases)
    for allowed in range(len(cases), 0, -1):
        confidence = 1.0 - allowed * wrong_share / len(cases)
        logs = [_log_ratio(a, b, confidence) for a, b in cases]
        judged = [(x, verdict(x[1], x[2], margin)) for x in logs]
        if sum(said != "unclear" for _, said in judged) >= allowed:
            break
    return confidence, judged


def _log_ratio(a: _Blocks, b: _Blocks, confidence: float) -> _Logs:
    """ln(median of B / median of A) and its interval: that of each side at half the error, ends against ends."""
    each = 1.0 - (1.0 - confidence) / 2.0
    x, y = summarise(a, each), summarise(b, each)
    middle = math.log(y.median / x.median)
    if x.low is None or x.high is None or y.low is None or y.high is None:
        return middle, None, None
    return middle, math.log(y.low / x.high), math.log(y.high / x.low)


def _case(x: list[Measurement], y: list[Measurement], logs: _Logs, said: Verdict) -> CaseComparison:
    record = x[0]
    middle, low, high = logs
    return CaseComparison(
        record.case_id,
        record.operator,
        record.implementation,
        record.problem_label,
        record.protocol.cache,
        said,
        math.exp(middle),
        None if low is None else math.exp(low),
        None if high is None else math.exp(high),
        len({r.process for r in x if r.status in _COMPARED}),
        len({r.process for r in y if r.status in _COMPARED}),
        len(_blocks(x)),
        len(_blocks(y)),
        {r.content_key for r in x} != {r.content_key for r in y},
    )


def _label(record: Measurement) -> str:
    return f"{record.operator} {record.implementation} {record.problem_label} {record.protocol.cache}"


def typical_ratio(cases: Sequence[CaseComparison]) -> float:
    """Median ratio of the cases: far from 1 in all of them, it is the machine that changed."""
    return median(case.ratio for case in cases)
