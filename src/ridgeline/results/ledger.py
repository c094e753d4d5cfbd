"""The ledger: the papers that Ridgeline speaks for, what each claims, and what has to be shown before its row works.

One TOML file per paper in ``results/papers/``. Nothing in it says that something was shown: that is computed from
stored records of checks (:mod:`ridgeline.results.paper_state`).
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from ridgeline.results.check import CheckKind
from ridgeline.results.fact import Fact

CATEGORIES = {
    "K": "operator kernel",
    "M": "model workload",
    "S": "system mechanism",
    "A": "analytical",
    "T": "inference-time compute",
}
Comparison = Literal["=", "~", "<", "<=", ">", ">=", "up to", "range"]
"""How a published figure is meant: exactly, about, a limit, at best, or from ``value`` to ``value_high``."""


class PapersError(ValueError):
    """A paper that is not there, or a file of the ledger that does not validate. One line: where, what, what to do."""


class Claim(Fact):
    """A figure that a paper published, with its conditions; or what it states without one."""

    metric: str = Field(min_length=1)
    value: float | None = None
    value_high: float | None = None
    """Upper end, of a range."""
    unit: str = ""
    """``x`` for a ratio; empty for a plain number."""
    comparison: Comparison = "="
    states: str = ""
    """What it says, where that is no number."""
    baseline: str
    hardware: str
    """``not stated`` where the source does not say."""
    condition: str
    source: str = Field(min_length=1)
    """``abstract``, ``title``, a repository's README or table, or ``recalled, not looked up``."""
    verified: bool
    """Found in the paper's abstract as it stands here."""
    check: str = ""
    """The check of this paper whose value is the measured counterpart."""
    gpu_check: str = ""
    """Its counterpart on a GPU, which is preferred where it was carried out."""
    measured_as: Literal["value", "time_ratio"] = "value"
    """``time_ratio``: the check's value is a time over that of the baseline, and the claim the gain."""
    devices: tuple[str, ...] = ()
    """Devices of the catalogue that are the claim's hardware: only there is a measurement comparable with it."""
    anywhere: bool = False
    """The figure does not depend on hardware (bytes, counts): a measurement anywhere is comparable."""
    prediction: str = ""
    """Name of the model of this claim (:mod:`ridgeline.analytical.claim_models`)."""
    not_modelled: str = ""
    """Why there is none, where the general reason does not say it."""

    @model_validator(mode="after")
    def _consistent(self) -> Claim:
        if (self.value is None) == (not self.states):
            raise ValueError("give `value`, or `states` where there is no number; not both")
        if (self.comparison == "range") != (self.value_high is not None):
            raise ValueError("`value_high` and comparison `range` belong together")
        if self.value is not None and self.value_high is not None and self.value_high <= self.value:
            raise ValueError("value_high must be above value")
        if self.prediction and self.not_modelled:
            raise ValueError("a claim that is modelled has no `not_modelled`")
        return self

    @property
    def published(self) -> str:
        """The figure in words, such as ``up to 4.86x``."""
        if self.value is None:
            return self.states
        unit = self.unit if self.unit.startswith("x") else f" {self.unit}".rstrip()
        if self.value_high is not None:
            return f"{self.value:.10g} to {self.value_high:.10g}{unit}"
        words = {"=": "", "~": "about ", "<": "under ", "<=": "at most ", ">": "over ", ">=": "at least "}
        return f"{words.get(self.comparison, 'up to ')}{self.value:.10g}{unit}"


class RequiredCheck(Fact):
    """One part of what a row has to show."""

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    kind: CheckKind
    states: str = Field(min_length=1)
    """What holds where it passes."""
    needs: str = ""
    """What has to be built before it can be carried out; empty where it can."""
    on: Literal["cpu", "cuda"] = "cpu"
    """torch device type that it is carried out on. Those of a GPU measure what the paper claims of one: where there is no
    GPU they are not carried out, and they keep no row open."""


class Paper(Fact):
    """A row: a paper, its claims, and the checks that must pass before it works."""

    id: str = Field(pattern=r"^[a-z0-9.]+(-[a-z0-9.]+)*$")
    number: int = Field(ge=1)
    """Place in the list of papers."""
    title: str
    category: Literal["K", "M", "S", "A", "T"]
    families: tuple[str, ...]
    """Families of kernels, models and systems that it needs."""
    mechanism: str = Field(min_length=1)
    """How it works, in two or three sentences."""
    needs: str = ""
    """What has to be built before any of its checks can be carried out; empty where that is said check by check."""
    claims: tuple[Claim, ...] = Field(alias="claim", min_length=1)
    checks: tuple[RequiredCheck, ...] = Field(alias="check", min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Paper:
        names = [check.name for check in self.checks]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"check: two are called {sorted(twice)[0]}")
        for claim in self.claims:
            for key in ("check", "gpu_check"):
                name = getattr(claim, key)
                if name and name not in names:
                    raise ValueError(f"claim {claim.metric!r}: {key}: no check {name!r}")
        return self

    def missing_part(self, check: RequiredCheck) -> str:
        """What has to be built before ``check`` can be carried out; empty where it can."""
        return check.needs or self.needs


def load_ledger(folder: Path | None = None) -> dict[str, Paper]:
    """All papers by id, in the order of their numbers.

    Args:
        folder: of TOML files; by default those that ship.

    Raises:
        PapersError: for a file that does not validate, or two with one id or number.
    """
    return _shipped() if folder is None else _load(folder)


@cache
def _shipped() -> dict[str, Paper]:
    return _load(resources.files("ridgeline.results") / "papers")


def _load(folder: Traversable) -> dict[str, Paper]:
    papers: dict[str, Paper] = {}
    numbers: dict[int, str] = {}
    for file in sorted(_files(folder), key=lambda f: f.name):
        paper = _read(file)
        if paper.id != file.name.removesuffix(".toml"):
            raise PapersError(f"{file.name}: id: {paper.id!r} is not the file's name: rename one")
        if paper.number in numbers:
            raise PapersError(f"{file.name}: number: {paper.number} is also that of {numbers[paper.number]}")
        numbers[paper.number] = paper.id
        papers[paper.id] = paper
    return dict(sorted(papers.items(), key=lambda item: item[1].number))


def _files(folder: Traversable) -> Iterator[Traversable]:
    return (file for file in folder.iterdir() if file.name.endswith(".toml"))


def _read(file: Traversable) -> Paper:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PapersError(f"{file.name}: {' '.join(str(error).split())}") from None
    try:
        return Paper.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        raise PapersError(f"{file.name}: {where + ': ' if where else ''}{text}") from None


def find_papers(ids: list[str]) -> list[Paper]:
    """The papers of ``ids``; all for none.

    Raises:
        PapersError: for an id that no paper has; names those that come near.
    """
    ledger = load_ledger()
    for name in ids:
        if name not in ledger:
            near = difflib.get_close_matches(name, ledger, n=3, cutoff=0.4) or [i for i in ledger if name in i][:3]
            hint = f": did you mean {', '.join(near)}?" if near else ": `ridgeline papers` lists them"
            raise PapersError(f"no paper {name!r}{hint}")
    return [ledger[name] for name in dict.fromkeys(ids)] if ids else list(ledger.values())
