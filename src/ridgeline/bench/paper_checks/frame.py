"""Checks of papers: a named function per part of a row's acceptance, and what it found.

A check lives in ``bench/paper_checks/<paper id, - as _>.py`` and imports what is heavy inside the function, so that
the list of checks is known without torch::

    @check("flashsigmoid", "outputs-agree", kind="correctness", states="every implementation agrees with float64 ...")
    def outputs_agree(lab: Lab) -> Finding:
        worst = lab.worst_error("attention", problem, "native")
        return Finding(passed=worst <= 1e-5, value=worst, threshold=1e-5, text="worst relative error ...")

It raises :class:`ridgeline.kernels.registry.Unsupported` where it cannot be judged on this machine. It runs in the
isolated worker: a crash or a hang costs that check alone.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ridgeline.bench.paper_checks.lab import Lab, Ratio, Side

__all__ = [
    "Check",
    "CheckError",
    "Finding",
    "Kind",
    "Lab",
    "Ratio",
    "Side",
    "check",
    "checks",
    "get_check",
    "load",
    "unavailable",
]

Kind = Literal["correctness", "quality", "mechanism", "ratio"]
KINDS: tuple[str, ...] = get_args(Kind)
On = Literal["cpu", "cuda"]
_NAME = re.compile(r"[a-z0-9.]+(-[a-z0-9.]+)*")


class CheckError(ValueError):
    """A check that is declared wrongly, or a finding that contradicts itself. One line: what, where, what to do."""


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    passed: bool
    """Whether what the check states holds; of a ratio, whether it reached its threshold."""
    value: float | None = None
    """The figure that decided, in ``unit``; every ratio has one."""
    threshold: float | None = None
    """What ``value`` was held against."""
    unit: str = ""
    """Unit of both, such as ``x`` for a ratio; empty for a plain number."""
    text: str = ""
    """What was seen, in one line: the figures beside the one that decided, and on what."""
    reason: str = ""
    """Why it did not pass: of a ratio, the roofline's reason."""

    def __post_init__(self) -> None:
        # A check may hand over numpy's numbers, which JSON does not take.
        object.__setattr__(self, "passed", bool(self.passed))
        for name in ("value", "threshold"):
            number = getattr(self, name)
            if number is None:
                continue
            object.__setattr__(self, name, float(number))
            if not math.isfinite(number):
                raise CheckError(f"finding: {name} is {number}: leave it out and say why in `text`")
        if self.threshold is not None and self.value is None:
            raise CheckError("finding: a threshold without a value says nothing: give the value that was found")
        if not self.passed and not (self.text or self.reason):
            raise CheckError("finding: not passed, without saying why: give `text` or `reason`")


@dataclass(frozen=True)
class Check:
    """One part of what a paper's row has to show."""

    paper: str
    """Id of the row."""
    name: str
    """Kebab-case; stands in the paper's TOML file too."""
    kind: Kind
    states: str
    """What holds where it passes: a sentence."""
    function: Callable[[Lab], Finding]
    path: Path
    """The file it is defined in."""
    on: On = "cpu"
    """torch device type that it is carried out on. Those of a GPU measure what a paper claims of one; no row needs them."""

    def find(self, lab: Lab) -> Finding:
        """Carry it out.

        Raises:
            CheckError: where it returns no finding, or a ratio that states no value, or misses without a reason.
            Unsupported: where it cannot be judged here.
        """
        found = self.function(lab)
        name = f"{self.paper}/{self.name}"
        if not isinstance(found, Finding):
            raise CheckError(f"{name}: returned {type(found).__name__}, not a Finding")
        if self.kind == "ratio" and found.value is None:
            raise CheckError(f"{name}: a ratio has a value")
        if self.kind == "ratio" and not found.passed and (found.threshold is None or not found.reason):
            raise CheckError(f"{name}: a ratio that misses has a threshold, and the roofline's reason")
        return found


_CHECKS: dict[tuple[str, str], Check] = {}
_UNAVAILABLE: dict[str, str] = {}


def check(
    paper: str, name: str, *, kind: Kind, states: str, on: On = "cpu"
) -> Callable[[Callable[[Lab], Finding]], Callable[[Lab], Finding]]:
    """Register the decorated function as a check of ``paper``.

    Raises:
        CheckError: for a name that is not kebab-case, an unknown kind or device type, no statement, or a name used twice.
    """
    where = f"check {paper}/{name}"
    if not _NAME.fullmatch(paper) or not _NAME.fullmatch(name):
        raise CheckError(f"{where}: ids and names are kebab-case, such as outputs-agree")
    if kind not in KINDS:
        raise CheckError(f"{where}: unknown kind {kind!r}: one of {', '.join(KINDS)}")
    if on not in get_args(On):
        raise CheckError(f"{where}: unknown `on` {on!r}: one of {', '.join(get_args(On))}")
    if not states.strip():
        raise CheckError(f"{where}: `states` is empty: say what holds where it passes")

    def register(function: Callable[[Lab], Finding]) -> Callable[[Lab], Finding]:
        path = Path(sys.modules[function.__module__].__file__ or "").resolve()
        earlier = _CHECKS.get((paper, name))
        if earlier is not None and (earlier.path, earlier.function.__qualname__) != (path, function.__qualname__):
            raise CheckError(f"{where}: defined twice, in {earlier.path.name} and {path.name}: rename one")
        _CHECKS[paper, name] = Check(paper, name, kind, " ".join(states.split()), function, path, on)
        return function

    return register


def load() -> None:
    """Import every module of this folder; one whose imports are not installed is named by :func:`unavailable`."""
    package = importlib.import_module("ridgeline.bench.paper_checks")
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        name = f"{package.__name__}.{module.name}"
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] == "ridgeline":
                raise
            _UNAVAILABLE[module.name] = f"needs {error.name}: pip install 'ridgeline[run]'"


def checks(paper: str | None = None) -> list[Check]:
    """Registered checks, of one paper or of all, in the order they were defined. Call :func:`load` first."""
    return [c for c in _CHECKS.values() if paper is None or c.paper == paper]


def get_check(paper: str, name: str) -> Check:
    """The check ``name`` of ``paper``.

    Raises:
        CheckError: naming the registered ones.
    """
    try:
        return _CHECKS[paper, name]
    except KeyError:
        known = ", ".join(c.name for c in checks(paper)) or "none"
        raise CheckError(f"no check {name!r} of {paper}: registered: {known}") from None


def unavailable() -> Mapping[str, str]:
    """Modules of this folder that could not be imported, with what they need."""
    return _UNAVAILABLE
