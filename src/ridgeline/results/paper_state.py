"""What state a paper's row is in: computed from stored records of its checks, never written by hand.

A row works when all of its correctness, quality and mechanism checks passed and every ratio was measured, on the
present source of the code they reach. A ratio below its threshold keeps no row open: it is listed, with the roofline's
reason. Checks of a GPU keep none open either: they measure what a paper claims of one, where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ridgeline.analytical.claim_models import Modelled, model_of
from ridgeline.results.check import SUITE, PaperCheck
from ridgeline.results.ledger import Claim, Paper, RequiredCheck
from ridgeline.results.store import Store

CheckState = Literal["passed", "failed", "unsupported", "crashed", "timeout", "older source", "not run", "not built"]
Verdict = Literal["reproduced", "not reproduced", "predicted", "not comparable"]
NEAR = 0.1
"""A measured figure this far below a published one, relative to it, still counts as reproducing it."""


@dataclass(frozen=True)
class CheckResult:
    """A required check with what is known of it."""

    required: RequiredCheck
    state: CheckState
    records: tuple[PaperCheck, ...]
    """The newest of each device that is of the present source; of none, the newest of any."""
    why: str
    """Why it is not shown; empty where it passed, or is a ratio that was measured."""

    @property
    def measured(self) -> tuple[PaperCheck, ...]:
        """Records of the present source that hold a figure."""
        return self.records if self.state in ("passed", "failed") else ()

    @property
    def shown(self) -> bool:
        """Whether it was carried out and, but for a ratio, passed."""
        return self.state == "passed" or (self.required.kind == "ratio" and bool(self._figures))

    @property
    def decides(self) -> bool:
        """Whether the row's state depends on it."""
        return self.required.on == "cpu"

    @property
    def missed(self) -> tuple[PaperCheck, ...]:
        """Measured ratios below their threshold."""
        if self.required.kind != "ratio":
            return ()
        return tuple(r for r in self._figures if r.status == "failed")

    @property
    def _figures(self) -> list[PaperCheck]:
        return [r for r in self.measured if r.status in ("passed", "failed")]


@dataclass(frozen=True)
class ClaimResult:
    """A claim with what was measured and what is predicted beside it."""

    claim: Claim
    measured: PaperCheck | None
    measured_value: float | None
    """In the unit of the claim."""
    not_measured: str
    """Why nothing was measured."""
    modelled: Modelled | None
    not_modelled: str
    verdict: Verdict
    why: str
    """The reason of the verdict."""


@dataclass(frozen=True)
class PaperState:
    """A row as it stands."""

    paper: Paper
    state: Literal["works", "open"]
    checks: tuple[CheckResult, ...]
    claims: tuple[ClaimResult, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """What keeps it open, a line for each check."""
        return tuple(f"{c.required.name}: {c.why}" for c in self.deciding if not c.shown)

    @property
    def deciding(self) -> tuple[CheckResult, ...]:
        """The checks that its state depends on."""
        return tuple(c for c in self.checks if c.decides)

    def to_dict(self) -> dict[str, Any]:
        """The row of ``ridgeline papers --json``."""
        p = self.paper
        return {
            "id": p.id,
            "number": p.number,
            "title": p.title,
            "category": p.category,
            "families": list(p.families),
            "mechanism": p.mechanism,
            "state": self.state,
            "missing": list(self.missing),
            "claims": [_claim_dict(c) for c in self.claims],
            "evidence": [_check_dict(c) for c in self.checks],
            "ratios_missed": [
                {**_record_dict(r), "check": c.required.name, "states": c.required.states}
                for c in self.checks
                for r in c.missed
            ],
        }


def stored_checks(store: Store) -> list[PaperCheck]:
    """All records of checks, from the oldest to the newest run; those of a damaged run are left out.

    Raises:
        StoreError: where the store itself cannot be read.
    """
    found: list[PaperCheck] = []
    for run in reversed(store.runs()):
        if run.suite == SUITE and run.state != "damaged":
            found += [r for r in store.records(run.run_id)[0] if isinstance(r, PaperCheck)]
    return found


def states_of(
    papers: Iterable[Paper], records: Iterable[PaperCheck], present: Callable[[Sequence[str]], str | None]
) -> list[PaperState]:
    """The state of each paper.

    Args:
        papers: rows of the ledger.
        records: of checks, from the oldest to the newest (:func:`stored_checks`).
        present: the hash of the present source that files reach (:func:`ridgeline.results.sources.check_hash`).
    """
    by_check: dict[tuple[str, str], list[PaperCheck]] = {}
    for record in records:
        by_check.setdefault((record.paper, record.check), []).append(record)
    hashes: dict[tuple[str, ...], str | None] = {}

    def is_present(record: PaperCheck) -> bool:
        if record.sources not in hashes:
            hashes[record.sources] = present(record.sources)
        return hashes[record.sources] == record.sources_hash

    return [_state(paper, by_check, is_present) for paper in papers]


def _state(
    paper: Paper, by_check: Mapping[tuple[str, str], Sequence[PaperCheck]], is_present: Callable[[PaperCheck], bool]
) -> PaperState:
    checks = tuple(_check(paper, c, by_check.get((paper.id, c.name), ()), is_present) for c in paper.checks)
    claims = tuple(_claim(paper, claim, checks) for claim in paper.claims)
    return PaperState(paper, "works" if all(c.shown for c in checks if c.decides) else "open", checks, claims)


def _check(
    paper: Paper, required: RequiredCheck, records: Sequence[PaperCheck], is_present: Callable[[PaperCheck], bool]
) -> CheckResult:
    part = paper.missing_part(required)
    if part:
        return CheckResult(required, "not built", (), f"needs {part}")
    if not records:
        return CheckResult(required, "not run", (), "not run" if required.on == "cpu" else "needs a GPU: not run")
    # Of each device the newest of the present source: later ones replace earlier ones, and what was checked on other
    # code does not count, be it older or, where a change was taken back, younger.
    ordered = sorted(records, key=lambda r: r.started_at)
    current = tuple({r.placement.device: r for r in ordered if is_present(r)}.values())
    if not current:
        last = ordered[-1]
        return CheckResult(required, "older source", (last,), f"checked on an older version ({last.started_at[:10]})")
    worst = min(current, key=lambda r: _ORDER.index(r.status))
    why = (
        "" if worst.status == "passed" else f"{worst.status} on {worst.placement.device}: {worst.reason or worst.text}"
    )
    return CheckResult(required, worst.status, current, why)


_ORDER = ("failed", "crashed", "timeout", "passed", "unsupported")
"""Which of several devices decides: a failure on any, else a pass on any."""


def _claim(paper: Paper, claim: Claim, checks: Sequence[CheckResult]) -> ClaimResult:
    record, not_measured = _measured(paper, claim, checks)
    value = _in_units_of(claim, record.value) if record is not None and record.value is not None else None
    modelled = model_of(claim.prediction) if claim.prediction else None
    not_modelled = "" if modelled else _why_not_modelled(paper, claim)
    verdict, why = _verdict(claim, record, value, modelled, not_modelled)
    return ClaimResult(claim, record, value, not_measured, modelled, not_modelled, verdict, why)


def _measured(paper: Paper, claim: Claim, checks: Sequence[CheckResult]) -> tuple[PaperCheck | None, str]:
    named = [c for name in (claim.gpu_check, claim.check) for c in checks if c.required.name == name]
    if not named:
        return None, (paper.needs and f"needs {paper.needs}") or "not measurable here: no check takes this figure"
    found = next((values for c in named if (values := [r for r in c.measured if r.value is not None])), [])
    if not found:
        return None, named[-1].why or "its check states no value"
    # On the claim's own hardware, where that is here.
    return max(found, key=lambda r: (r.placement.device in claim.devices, r.started_at)), ""


def _in_units_of(claim: Claim, value: float) -> float:
    if claim.measured_as == "time_ratio":
        return (1.0 / value - 1.0) * 100.0 if claim.unit == "%" else 1.0 / value
    return value


def _why_not_modelled(paper: Paper, claim: Claim) -> str:
    if claim.not_modelled:
        return claim.not_modelled
    if claim.value is None:
        return "not modelled: it states no figure"
    if claim.hardware == "not stated" or "not named" in claim.hardware:
        return "not modelled: the source names no hardware"
    return "not modelled: the source states no shape to model"


def _verdict(
    claim: Claim, record: PaperCheck | None, value: float | None, modelled: Modelled | None, not_modelled: str
) -> tuple[Verdict, str]:
    here = f"on {record.placement.device}" if record is not None else ""
    if record is not None and value is not None and claim.value is not None:
        if claim.anywhere or record.placement.device in claim.devices:
            if _meets(claim, value):
                return "reproduced", f"{value:.3g} {here}"
            return "not reproduced", f"{value:.3g} {here}: {record.reason or record.text}"
        other = f"; {value:.3g} {here}, which is not the claim's hardware ({claim.hardware})"
    else:
        other = ""
    if modelled is not None:
        return "predicted", modelled.against(claim.value) + other
    return "not comparable", not_modelled.removeprefix("not modelled: ") + other


def _meets(claim: Claim, value: float) -> bool:
    """Whether ``value`` reaches the figure, or for an upper limit stays below it."""
    assert claim.value is not None
    if claim.comparison in ("<", "<="):
        return value <= claim.value
    return value >= claim.value * (1.0 - NEAR)


def _claim_dict(result: ClaimResult) -> dict[str, Any]:
    modelled = result.modelled
    return {
        **result.claim.model_dump(
            exclude={"check", "gpu_check", "measured_as", "devices", "anywhere", "prediction", "not_modelled"}
        ),
        "published": result.claim.published,
        "measured_value": result.measured_value,
        "measured": _record_dict(result.measured) if result.measured else None,
        "not_measured": result.not_measured,
        "predicted": None if modelled is None else modelled.to_dict(),
        "not_predicted": result.not_modelled,
        "verdict": result.verdict,
        "why": result.why,
    }


def _check_dict(result: CheckResult) -> dict[str, Any]:
    required = result.required
    return {
        "check": required.name,
        "kind": required.kind,
        "states": required.states,
        "state": result.state,
        "why": result.why,
        "records": [_record_dict(r) for r in result.records],
    }


def _record_dict(record: PaperCheck) -> dict[str, Any]:
    return {
        "run_id": record.run_id,
        "started_at": record.started_at,
        "device": record.placement.device,
        "status": record.status,
        "value": record.value,
        "threshold": record.threshold,
        "unit": record.unit,
        "text": record.text,
        "reason": record.reason,
        "seconds": record.seconds,
    }
