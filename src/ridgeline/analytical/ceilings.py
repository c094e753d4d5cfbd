"""Ceilings: the limits of a device, each figure with its interval, kind and source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ridgeline.analytical.quantities import bits
from ridgeline.analytical.work import RateKey

Kind = Literal["datasheet", "measured", "derived", "assumed"]
PHYSICAL: tuple[Kind, ...] = ("datasheet", "derived", "assumed")
"""Kinds of ceiling that no correct measurement can exceed."""

_STRICT = {"extra": "forbid"}
"""What pydantic is told when a catalogue loads; a plain dict, so that a roofline does not import pydantic (0.1 s)."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a figure comes from: a data sheet and its table, or a measurement."""

    __pydantic_config__ = _STRICT

    title: str
    detail: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        if not self.title.strip():
            raise ValueError("a ceiling needs a source: give the data sheet and table, or the measurement")


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A ceiling on arithmetic: operations per second of one unit on given precisions (a multiply-add is two)."""

    __pydantic_config__ = _STRICT

    unit: str
    a: str
    b: str
    accumulator: str
    sparsity: str = "dense"
    value_per_s: float
    low_per_s: float
    high_per_s: float
    kind: Kind
    source: Source
    threads: int | None = None
    """Threads it holds for, on a CPU; ``None`` for the whole device."""
    clock_mhz: float | None = None
    """Core clock that the value holds at; ``None`` where the source does not tell."""

    def __post_init__(self) -> None:
        _check_interval(self.low_per_s, self.value_per_s, self.high_per_s)
        if self.clock_mhz is not None and not self.clock_mhz > 0.0:
            raise ValueError(f"clock_mhz must be positive, not {self.clock_mhz:g}")
        for precision in (self.a, self.b, self.accumulator):
            bits(precision)
        _ = self.key

    @property
    def key(self) -> RateKey:
        """The unit and precisions as a key."""
        return RateKey(self.unit, self.a, self.b, self.accumulator, self.sparsity)

    @property
    def label(self) -> str:
        """Short name for tables."""
        return self.key.label


@dataclass(frozen=True, kw_only=True)
class Bandwidth:
    """A ceiling on movement: bytes per second between one memory level and the cores."""

    __pydantic_config__ = _STRICT

    level: str
    access: str = "any"
    """Access pattern it was taken with: read, copy, triad, or any."""
    value_per_s: float
    low_per_s: float
    high_per_s: float
    kind: Kind
    source: Source
    threads: int | None = None

    def __post_init__(self) -> None:
        _check_interval(self.low_per_s, self.value_per_s, self.high_per_s)

    @property
    def label(self) -> str:
        """Short name for tables."""
        return self.level


@dataclass(frozen=True, kw_only=True)
class Link:
    """A ceiling on movement between devices: bytes per second in *one direction*, and the latency of a message."""

    __pydantic_config__ = _STRICT

    name: str
    """nvlink, infinity_fabric, pcie, ici, ethernet ..."""
    per_direction_bytes_per_s: float
    """Bytes per second that one device sends over all its lanes together; vendors often print both directions' sum."""
    latency_s: float | None = None
    domain_size: int | None = None
    """Devices that reach each other at this rate, this one included; ``None`` where the source does not tell."""
    kind: Kind
    source: Source

    def __post_init__(self) -> None:
        if not self.per_direction_bytes_per_s > 0.0:
            raise ValueError(f"a link needs a positive bandwidth, not {self.per_direction_bytes_per_s:g}")
        if self.latency_s is not None and not self.latency_s > 0.0:
            raise ValueError(f"latency_s must be positive, not {self.latency_s:g}")


Ceiling = Rate | Bandwidth


def _check_interval(low: float, value: float, high: float) -> None:
    if not 0.0 < low <= value <= high:
        raise ValueError(f"a ceiling needs 0 < low <= value <= high, not {low:g}, {value:g}, {high:g}")
