"""Devices: what a piece of hardware can do at most, each figure with its interval, kind and source."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ridgeline.analytical.quantities import holds_exactly
from ridgeline.analytical.work import RateKey

Kind = Literal["datasheet", "measured", "derived", "assumed"]
PHYSICAL: tuple[Kind, ...] = ("datasheet", "derived", "assumed")
"""Kinds of ceiling that no correct measurement can exceed."""

_STRICT = ConfigDict(extra="forbid")


class DeviceError(ValueError):
    """A device description that does not validate. One line: file, key, what is wrong."""


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


Ceiling = Rate | Bandwidth


def _check_interval(low: float, value: float, high: float) -> None:
    if not 0.0 < low <= value <= high:
        raise ValueError(f"a ceiling needs 0 < low <= value <= high, not {low:g}, {value:g}, {high:g}")


@dataclass(frozen=True, kw_only=True)
class MemoryLevel:
    """A level of the memory hierarchy."""

    __pydantic_config__ = _STRICT

    name: str
    """L1, L2, L3, DRAM, HBM ..."""
    capacity_bytes: float
    per_core: bool = False
    """Whether each core has one of its own, so that n threads hold n times as much."""

    def capacity_for(self, threads: int) -> float:
        """Bytes that ``threads`` threads hold in it together."""
        return self.capacity_bytes * (threads if self.per_core else 1)


@dataclass(frozen=True, kw_only=True)
class Device:
    """A SKU: its memory levels from the fastest to the largest, and its ceilings."""

    __pydantic_config__ = _STRICT

    id: str
    name: str
    vendor: str
    kind: Literal["cpu", "gpu"]
    memory: tuple[MemoryLevel, ...]
    rates: tuple[Rate, ...] = ()
    bandwidths: tuple[Bandwidth, ...] = ()
    tdp_w: float | None = None
    tdp_source: Source | None = None

    def __post_init__(self) -> None:
        if not self.memory:
            raise ValueError("a device needs at least one memory level")
        names = {level.name for level in self.memory}
        for bandwidth in self.bandwidths:
            if bandwidth.level not in names:
                raise ValueError(f"bandwidth of {bandwidth.level}, which is not a memory level of {self.id}")
        if self.tdp_w is not None and self.tdp_source is None:
            raise ValueError("tdp_w needs tdp_source")

    @property
    def main_memory(self) -> MemoryLevel:
        """The largest, outermost level."""
        return self.memory[-1]

    def level_for(self, working_set_bytes: float, cache: str, threads: int) -> MemoryLevel:
        """The level whose roof applies: main memory when the cache is cold, else the smallest that holds the set."""
        if cache == "cold":
            return self.main_memory
        for level in self.memory:
            if working_set_bytes <= level.capacity_for(threads):
                return level
        return self.main_memory

    def with_ceilings(self, ceilings: Iterable[Ceiling]) -> Device:
        """This device with further ceilings."""
        new = tuple(ceilings)
        return dataclasses.replace(
            self,
            rates=self.rates + tuple(c for c in new if isinstance(c, Rate)),
            bandwidths=self.bandwidths + tuple(c for c in new if isinstance(c, Bandwidth)),
        )

    def select(self, kinds: Iterable[Kind], threads: int) -> Device:
        """This device with only the ceilings of ``kinds`` that hold for ``threads`` threads."""
        wanted = set(kinds)

        def applies(c: Ceiling) -> bool:
            return c.kind in wanted and c.threads in (None, threads)

        return dataclasses.replace(
            self,
            rates=tuple(c for c in self.rates if applies(c)),
            bandwidths=tuple(c for c in self.bandwidths if applies(c)),
        )

    def rate(self, key: RateKey) -> Rate | None:
        """The highest ceiling of any unit that can do ``key``'s arithmetic without loss, or ``None``.

        A unit qualifies when its operands hold ``key``'s operands exactly and its accumulator holds ``key``'s: a float32
        FMA can form bfloat16 products. Special functions are only done by the special-function unit. Structured
        sparsity is never a substitute for dense work.
        """

        def serves(c: Rate) -> bool:
            if (c.unit == "special") != (key.unit == "special") or c.sparsity != key.sparsity:
                return False
            if key.unit == "vector" and c.unit == "matrix":
                return False
            return (
                holds_exactly(c.a, key.a)
                and holds_exactly(c.b, key.b)
                and holds_exactly(c.accumulator, key.accumulator)
            )

        return max((c for c in self.rates if serves(c)), key=lambda c: c.value_per_s, default=None)

    def bandwidth(self, level: str) -> Bandwidth | None:
        """The highest bandwidth ceiling of ``level``, or ``None``."""
        return max((c for c in self.bandwidths if c.level == level), key=lambda c: c.value_per_s, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON or TOML."""
        return dict(_DEVICE.dump_python(self, mode="json", exclude_none=True))


_DEVICE = TypeAdapter(Device)


def device_from_dict(values: Mapping[str, Any], origin: str) -> Device:
    """Validate a device description.

    Raises:
        DeviceError: one line naming ``origin``, the key and what is wrong.
    """
    try:
        return _DEVICE.validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "device"
        raise DeviceError(f"{origin}: {where}: {first['msg']}") from None


def load_device(path: Path) -> Device:
    """Read a device from a TOML file.

    Raises:
        DeviceError: for a file that cannot be read, is not TOML, or does not validate.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DeviceError(f"{path}: {error}") from None
    return device_from_dict(values, str(path))


def catalogue() -> dict[str, Device]:
    """Devices that ship with Ridgeline, by id."""
    folder = resources.files("ridgeline.analytical") / "hardware"
    devices = [
        device_from_dict(tomllib.loads(entry.read_text(encoding="utf-8")), entry.name)
        for entry in sorted(folder.iterdir(), key=lambda e: e.name)
        if entry.name.endswith(".toml")
    ]
    return {d.id: d for d in devices}
