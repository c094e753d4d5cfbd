"""Suites: TOML files that say which cases are run, and how."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ridgeline.analytical.operators import make_problem
from ridgeline.analytical.problem import Problem, ProblemError

Cache = Literal["cold", "warm"]
DeviceKind = Literal["cpu", "cuda"]


class SuiteError(ValueError):
    """A suite that does not exist or does not validate. One line: file, line, key, what is wrong."""


class Settings(BaseModel):
    """How long and how exactly to measure. None of it is part of a case's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    target_relative: float = Field(default=0.05, gt=0.0, lt=1.0)
    """Stop when half the interval's width over the median is below this."""
    budget_s: float = Field(default=3.0, gt=0.0)
    """Seconds of timing after which a case that missed its target is `unstable`."""
    extra_s: float = Field(default=0.0, ge=0.0)
    """Seconds that a case may take beyond `budget_s` where it will probably end within them."""
    suite_s: float | None = Field(default=None, gt=0.0)
    """Seconds that a process of the run should take, roofs included; by default as long as its cases do. What the cases
    will probably leave of it is shared out as `extra_s`."""
    timeout_s: float = Field(default=120.0, gt=0.0)
    """Seconds after which a case is killed."""
    memory_limit_bytes: float | None = Field(default=None, gt=0.0)
    """Resident size at which a case is killed; by default three quarters of the memory that is free at the start."""
    meter: str = "auto"
    """Energy meter: `auto`, `none`, `nvml`, `rapl`, `zeus` or `replay:FILE`."""
    energy_budget_s: float = Field(default=10.0, gt=0.0)
    """Seconds of energy windows of a case, where there is a meter."""
    roofs_s: float = Field(default=72.0, gt=0.0)
    """Seconds for all roofs together, where they are measured first. Less leaves more of them noisy."""
    processes: int = Field(default=1, ge=1)
    """Fresh processes in which every case is measured."""


class _CaseGroup(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    operator: str
    implementations: list[str] | None = None
    problems: list[dict[str, Any]] = Field(min_length=1)
    papers: list[str] = []
    cache: list[Cache] = ["cold"]
    threads: list[int] = []
    devices: list[DeviceKind] = []

    @field_validator("threads")
    @classmethod
    def _positive(cls, threads: list[int]) -> list[int]:
        if any(count < 1 for count in threads):
            raise ValueError("a case runs on at least one thread")
        return threads


class _SuiteFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    roofs: bool = False
    settings: Settings = Settings()
    case: list[_CaseGroup] = []


@dataclass(frozen=True)
class SuiteCase:
    """One problem of a suite and the implementations to run on it; ``None`` means all that are registered."""

    problem: Problem
    implementations: tuple[str, ...] | None
    cache: Cache
    papers: tuple[str, ...]
    where: str
    """File and line, for messages."""
    threads: tuple[int, ...] = ()
    """Thread counts to sweep; empty for all that the unit has."""
    devices: tuple[str, ...] = ()
    """Kinds of devices (torch's names) whose shapes these are; empty for every kind."""


@dataclass(frozen=True)
class Suite:
    """A set of cases with the settings they are measured under."""

    name: str
    description: str
    roofs: bool
    """Whether the roofs are measured first."""
    settings: Settings
    cases: tuple[SuiteCase, ...]


def shipped() -> dict[str, Path]:
    """Suites that come with Ridgeline, by name."""
    folder = Path(str(resources.files("ridgeline.workloads"))) / "suites"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_suite(name_or_path: str) -> Suite:
    """Read a suite by the name of a shipped one or the path of a file.

    Raises:
        SuiteError: for an unknown name, an unreadable file, bad TOML, an unknown key or a shape that cannot be.
    """
    if name_or_path in shipped():
        path = shipped()[name_or_path]
    elif name_or_path.endswith(".toml") or "/" in name_or_path:
        path = Path(name_or_path)
    else:
        raise SuiteError(f"unknown suite {name_or_path!r}: one of {', '.join(shipped())}, or the path of a .toml file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return parse_suite(text, str(path))


def parse_suite(text: str, origin: str) -> Suite:
    """Parse a suite's TOML text; ``origin`` is named in messages.

    Raises:
        SuiteError: as :func:`load_suite`.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"{origin}: not TOML: {error}") from None
    try:
        file = _SuiteFile.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        location = first["loc"]
        line = _line_of(text, location)
        key = ".".join(str(part + 1 if isinstance(part, int) else part) for part in location)
        said = first["msg"]
        if first["type"] == "extra_forbidden":
            said = f"unknown key: one of {', '.join(_model_at(location).model_fields)}"
        elif first["type"] == "missing":
            said = "is missing"
        raise SuiteError(f"{origin}:{line}: {key}: {said}") from None
    cases = []
    for index, group in enumerate(file.case):
        for number, swept in enumerate(group.problems):
            for key, value in swept.items():
                if value == []:
                    line = _line_of(text, ("case", index, "problems", number, key))
                    raise SuiteError(f"{origin}:{line}: case {index + 1}: {key}: an empty list makes no problem")
            for parameters in _product(swept):
                try:
                    problem = make_problem(group.operator, parameters)
                except ProblemError as error:
                    location = ("case", index, "operator") if error.key == "operator" else (
                        "case", index, "problems", number, error.key,
                    )  # fmt: skip
                    raise SuiteError(f"{origin}:{_line_of(text, location)}: case {index + 1}: {error}") from None
                line = _line_of(text, ("case", index, "operator"))
                implementations = None if group.implementations is None else tuple(group.implementations)
                for cache in group.cache:
                    cases.append(
                        SuiteCase(
                            problem,
                            implementations,
                            cache,
                            tuple(group.papers),
                            f"{origin}:{line}",
                            tuple(dict.fromkeys(group.threads)),
                            tuple(group.devices),
                        )
                    )
    if not cases and not file.roofs:
        raise SuiteError(f"{origin}: nothing to measure: add a [[case]], or `roofs = true`")
    return Suite(file.name, file.description, file.roofs, file.settings, tuple(cases))


def _model_at(location: Sequence[int | str]) -> type[BaseModel]:
    """The model whose key ``location`` names."""
    if len(location) == 1:
        return _SuiteFile
    return Settings if location[0] == "settings" else _CaseGroup


def _product(swept: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the parameters that are given as lists."""
    choices = [value if isinstance(value, list) else [value] for value in swept.values()]
    return [dict(zip(swept, combination, strict=True)) for combination in itertools.product(*choices)]


def _line_of(text: str, location: Sequence[int | str]) -> int:
    """Line (from 1) of the key that ``location`` names, or of the closest one above it that is found."""
    lines = ["" if line.lstrip().startswith("#") else line for line in text.splitlines()]
    start, stop, found = 0, len(lines), 1
    inside = ""
    for part in location:
        if isinstance(part, int):
            opening = _OPENINGS.get(inside)
            openings = [i for i in range(start, stop) for _ in opening.finditer(lines[i])] if opening else []
            if part < len(openings):
                start, found = openings[part], openings[part] + 1
                stop = max(found, openings[part + 1]) if part + 1 < len(openings) else stop
            continue
        inside = part
        for i in range(start, stop):
            if re.search(rf"(^|[\s{{,.\[\"'])({re.escape(part)})[\"']?\s*[=\].]", lines[i]):
                # The entries of [[case]] are looked for from its first one on, those of a key from its line on.
                start, found = i, i + 1
                break
    return found


_OPENINGS = {
    "case": re.compile(r"^\s*\[\[\s*case\s*\]\]"),
    "problems": re.compile(r"\{|^\s*\[\[\s*case\.problems\s*\]\]"),
}
"""What an entry of a list of tables begins with."""
