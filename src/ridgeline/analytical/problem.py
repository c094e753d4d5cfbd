"""Problem and Structure: the scalar parameters of one computation, and what in it depends on data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from ridgeline.analytical.quantities import UnknownPrecisionError, bits, canonical_json, digest
from ridgeline.analytical.work import Work


class ProblemError(ValueError):
    """Parameters that describe no computation. ``key`` names the parameter that is wrong."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key


class StructureError(ValueError):
    """A structure that lacks a figure which the work of its problem depends on."""


@dataclass(frozen=True)
class Structure:
    """The realised data-dependent part of a problem: its figures (kept blocks, non-zeros, ...) and a digest of it."""

    figures: Mapping[str, float] = field(default_factory=dict)
    digest: str = ""

    def figure(self, name: str) -> float:
        """The figure called ``name``.

        Raises:
            StructureError: where this structure does not state it.
        """
        try:
            return self.figures[name]
        except KeyError:
            stated = ", ".join(self.figures) or "none"
            raise StructureError(f"work on what is realised needs the figure {name!r}; stated: {stated}") from None


NO_STRUCTURE = Structure()
"""Structure of a problem whose work does not depend on data."""

P = TypeVar("P", bound="type[Problem]")
_PROBLEMS: dict[str, type[Problem]] = {}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Base of all problems: frozen, hashable, canonical JSON, never arrays.

    A subclass is a frozen keyword-only dataclass of ints, floats, bools and strings, decorated with
    :func:`problem`, that checks itself in ``check`` and counts itself in ``work``.
    """

    operator: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            # A module without postponed annotations gives the class itself, not its name.
            declared = f.type if isinstance(f.type, str) else f.type.__name__
            if declared == "int | None" and value is None:
                continue
            if declared in ("int", "int | None"):
                if isinstance(value, bool) or not isinstance(value, int):
                    raise ProblemError(f.name, f"must be a whole number, not {value!r}")
                if value <= 0:
                    raise ProblemError(f.name, f"must be at least 1, not {value}")
            if declared == "float":
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                    raise ProblemError(f.name, f"must be a finite number, not {value!r}")
                object.__setattr__(self, f.name, float(value))  # 1 and 1.0 are the same problem: one digest
            if declared == "bool" and not isinstance(value, bool):
                raise ProblemError(f.name, f"must be true or false, not {value!r}")
            if declared == "str" and not isinstance(value, str):
                raise ProblemError(f.name, f"must be text, not {value!r}")
            if f.name == "precision":
                try:
                    bits(value)
                except UnknownPrecisionError as error:
                    raise ProblemError(f.name, str(error)) from None
        self.check()

    def check(self) -> None:
        """Raise :class:`ProblemError` where the parameters contradict each other."""

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        """The exact work of this problem, given its realised structure."""
        raise TypeError(f"{type(self).__name__} does not count its work")

    def expected_work(self) -> Work:
        """The forecast of the work before the structure is known; exact for problems without structure."""
        return self.work(NO_STRUCTURE)

    def footprint_bytes(self) -> float:
        """Bytes of all inputs, constants and outputs of one call: what must fit in memory once."""
        return float(self.expected_work().bytes)

    @property
    def message_bytes(self) -> float | None:
        """Size S of a collective's message, as nccl-tests define it; ``None`` for what is no collective."""
        return None

    @property
    def label(self) -> str:
        """The shape in a few characters, for tables."""
        return " ".join(f"{key}={value}" for key, value in self.to_dict().items())

    def to_dict(self) -> dict[str, Any]:
        """Parameters by name, in declaration order, without options that are ``None``: ids hold when one is added."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def digest(self) -> str:
        """Identity of the problem: digest of the operator and the canonical JSON of its parameters."""
        return digest({"operator": self.operator, **self.to_dict()})

    def canonical_json(self) -> str:
        """Parameters as canonical JSON."""
        return canonical_json(self.to_dict())


def problem(operator: str) -> Callable[[P], P]:
    """Register a problem class as the parameters of ``operator``."""

    def register(cls: P) -> P:
        if operator in _PROBLEMS and _PROBLEMS[operator].__qualname__ != cls.__qualname__:
            raise ValueError(f"operator {operator!r} already has the problem {_PROBLEMS[operator].__qualname__}")
        cls.operator = operator
        _PROBLEMS[operator] = cls
        return cls

    return register


def problem_classes() -> Mapping[str, type[Problem]]:
    """Problem class by operator name, of every problem module imported so far."""
    return _PROBLEMS
