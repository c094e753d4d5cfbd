"""Limits: what each execution unit, memory level and link needs at least, for one case or for columns of them.

:func:`ridgeline.analytical.roofline.bound` judges one measured record; this module serves models and sweeps. Units and
memory may overlap, so no implementation beats the maximum over them (Williams, Waterman, Patterson, "Roofline", CACM
52(4), 2009); one that overlaps nothing needs their sum. Every count is a Python number or a float64 column, and nothing
here loops over rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ridgeline.analytical.ceilings import Bandwidth, Rate
from ridgeline.analytical.clock_correction import clock_share
from ridgeline.analytical.device import Device, MemoryLevel
from ridgeline.analytical.work import RateKey, Work

TermKind = Literal["unit", "memory", "link", "power"]
End = Literal["low", "value", "high"]
Cache = Literal["cold", "warm"]


class LimitError(ValueError):
    """The device states nothing that could limit this work. One line: device, what is missing, what to do."""


@dataclass(frozen=True)
class Limits:
    """Seconds that each unit, memory level and link needs at least; numbers, or float64 columns of one length."""

    names: tuple[str, ...]
    """Name of each limit, such as ``matrix bfloat16``, ``HBM``, ``HBM or L2``, ``nvlink``, ``power``."""
    kinds: tuple[TermKind, ...]
    seconds: tuple[Any, ...]
    left_out: tuple[str, ...] = ()
    """Parts of the work for which the device states no ceiling: the limits stay valid, only weaker."""
    served_by: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Asked rate to the ceiling that serves it, where the two differ (:meth:`Device.rate`: it holds the values)."""

    @property
    def overlapped_s(self) -> Any:
        """The bound: everything overlaps, so the longest term decides."""
        longest = self.seconds[0]
        for term in self.seconds[1:]:
            longest = np.maximum(longest, term)
        return longest

    @property
    def serial_s(self) -> Any:
        """The time without any overlap: units, levels and links one after the other. Power is no activity of its own,
        so the power roof is a floor under the sum and no part of it."""
        total: Any = 0.0
        for kind, term in zip(self.kinds, self.seconds, strict=True):
            if kind != "power":
                total = total + term
        for kind, term in zip(self.kinds, self.seconds, strict=True):
            if kind == "power":
                total = np.maximum(total, term)
        return total

    def of(self, kind: TermKind) -> Any:
        """The longest term of ``kind`` in seconds; 0.0 where there is none."""
        longest: Any = 0.0
        for own, term in zip(self.kinds, self.seconds, strict=True):
            if own == kind:
                longest = np.maximum(longest, term)
        return longest

    @property
    def product_s(self) -> Any:
        """The term of the matrix unit, or where it takes no part the longest of the units': what kernels' share of the
        arithmetic peak is a share of."""
        for name, kind, seconds in zip(self.names, self.kinds, self.seconds, strict=True):
            if kind == "unit" and name.startswith("matrix "):
                return seconds
        return self.of("unit")

    @property
    def dominant(self) -> Any:
        """Index into :attr:`names` of the term that decides: an int, or an intp column. The first of equals."""
        return np.argmax(np.stack(np.broadcast_arrays(*self.seconds)), axis=0)[()]

    @property
    def bound_by(self) -> Any:
        """Name of the term that decides: a string, or an object column of strings (made here, not on the way)."""
        index = self.dominant
        return self.names[int(index)] if np.ndim(index) == 0 else np.array(self.names, dtype=object)[index]

    def with_term(self, name: str, kind: TermKind, seconds: Any) -> Limits:
        """These limits and one more."""
        return dataclasses.replace(
            self, names=(*self.names, name), kinds=(*self.kinds, kind), seconds=(*self.seconds, seconds)
        )


def limits(
    work: Work,
    device: Device,
    *,
    level: str | None = None,
    cache: Cache = "cold",
    substitute: bool = False,
    clock_mhz: Any = None,
    end: End = "value",
) -> Limits:
    """Seconds that each unit, memory level and link of ``device`` needs for ``work``.

    Select the ceilings first where several kinds are stated (:meth:`Device.select`); the highest of them counts.

    Args:
        work: counts as numbers or float64 columns.
        device: the device and its ceilings.
        level: memory level that the bytes come from; default the main memory. The levels between it and the cores
            carry the same bytes, and each whose bandwidth is stated is a limit too.
        cache: ``cold``: every byte comes from ``level``. ``warm``: as many bytes as the last-level cache holds may
            already be there, so only the rest must come from main memory. This second bound is lower, holds for any
            state of the cache, and its term is labelled ``HBM or L2``.
        substitute: work of a matrix unit in a precision that the device lacks is an error; True lets a unit do it
            whose formats hold every value exactly (:meth:`Device.rate`), named in :attr:`Limits.served_by`. Vector
            and special-function work always goes by that rule. Structured sparsity serves only work that asks for it.
        clock_mhz: measured core clock, a number or a column: arithmetic rates are scaled to it. A rate that states no
            clock is left out then (:func:`~ridgeline.analytical.clock_correction.device_at_clock`).
        end: end of the ceilings' intervals: ``high`` gives the shortest times, which nothing can beat.

    Raises:
        LimitError: for a precision the device lacks, bytes over links where it states none, an unknown level, or work
            that no ceiling applies to.
        ValueError: for a clock that is not positive.
    """
    names: list[str] = []
    kinds: list[TermKind] = []
    seconds: list[Any] = []
    left_out: list[str] = []
    served_by: dict[str, str] = {}

    for name, term in _unit_terms(work.operations, device, substitute, clock_mhz, end, left_out, served_by):
        names.append(name)
        kinds.append("unit")
        seconds.append(term)
    for name, term in _memory_terms(work.bytes, device, level, cache, end, left_out):
        names.append(name)
        kinds.append("memory")
        seconds.append(term)
    if np.any(np.asarray(work.link_bytes) > 0.0):
        if not device.links:
            raise LimitError(
                f"{device.id} states no link, and the work passes bytes over one: add [[links]] to a device file"
            )
        link = max(device.links, key=lambda each: each.per_direction_bytes_per_s)
        names.append(link.name)
        kinds.append("link")
        seconds.append(work.link_bytes / link.per_direction_bytes_per_s)
    if not seconds:
        raise LimitError(f"{device.id} states no ceiling for {', '.join(left_out) or 'work without operations'}")
    return Limits(tuple(names), tuple(kinds), tuple(seconds), tuple(left_out), served_by)


def native_rate(device: Device, key: RateKey, *, substitute: bool = False) -> Rate | None:
    """The ceiling for ``key``; a matrix precision that the device lacks is refused instead of served by another.

    Returns:
        The highest ceiling that holds ``key``'s values (:meth:`Device.rate`); ``None`` where there is none, for work
        that is not a matrix unit's.

    Raises:
        LimitError: where ``key`` is a matrix unit's, no unit computes on its operands as they are, and ``substitute``
            is not set.
    """
    rate = device.rate(key)
    if key.unit != "matrix" or substitute:
        return rate
    has = [r for r in device.rates if r.unit != "special" and (r.a, r.b, r.sparsity) == (key.a, key.b, key.sparsity)]
    if rate is not None and has:
        return rate
    stated = sorted({r.label for r in device.rates if r.unit == "matrix"})
    exact = f"; {rate.label} holds its values exactly: ask for a substitute to use it" if rate is not None else ""
    raise LimitError(f"{device.id} has no {key.label} rate (it states {', '.join(stated) or 'no matrix rate'}){exact}")


def last_level_cache(device: Device) -> MemoryLevel | None:
    """The largest level above main memory, or ``None``."""
    return device.memory[-2] if len(device.memory) > 1 else None


def cache_bytes(device: Device) -> float:
    """Bytes that the last-level cache holds, all units' parts together; 0.0 where none is stated."""
    level = last_level_cache(device)
    return 0.0 if level is None else level.capacity_for(device.unit_count or 1)


def overhead_s(launches: Any, per_launch_s: Any, layers: Any = 0, per_layer_s: Any = 0.0) -> Any:
    """Seconds that no roof explains: each launch and each layer costs a fixed time, whatever it does."""
    return launches * per_launch_s + layers * per_layer_s


@dataclass(frozen=True, kw_only=True)
class PowerRoof:
    """The power limit as a ceiling: energy of the work over the power that is left for it.

    Choi, Bedard, Fowler, Vuduc, "A Roofline Model of Energy", IPDPS 2013: energy is linear in operations, bytes and
    time, so a device that may draw ``limit_w`` needs at least (energy of the work) / (limit - static power).
    """

    limit_w: float
    static_w: float
    """Power that is drawn whatever the work; at the least the idle power."""
    j_per_flop: float
    j_per_byte: float

    def __post_init__(self) -> None:
        if not self.limit_w > self.static_w >= 0.0:
            raise ValueError(
                f"a power roof needs limit_w > static_w >= 0, not {self.limit_w:g} W and {self.static_w:g} W: "
                "nothing is left for the work"
            )
        if self.j_per_flop < 0.0 or self.j_per_byte < 0.0:
            raise ValueError("j_per_flop and j_per_byte must not be negative")

    def energy_j(self, work: Work) -> Any:
        """Joules of the operations and bytes alone, static power left out."""
        return self.j_per_flop * work.flop + self.j_per_byte * work.bytes

    def seconds(self, work: Work) -> Any:
        """The shortest time in which the limit lets this work be done."""
        return self.energy_j(work) / (self.limit_w - self.static_w)


def with_power_roof(terms: Limits, work: Work, roof: PowerRoof) -> Limits:
    """``terms`` and the time that the power limit asks for."""
    return terms.with_term("power", "power", roof.seconds(work))


def _unit_terms(
    operations: Mapping[RateKey, Any],
    device: Device,
    substitute: bool,
    clock_mhz: Any,
    end: End,
    left_out: list[str],
    served_by: dict[str, str],
) -> list[tuple[str, Any]]:
    """Work of different precisions adds up within one unit; units overlap."""
    by_unit: dict[str, list[tuple[Rate, Any]]] = {}
    for key, count in operations.items():
        rate = native_rate(device, key, substitute=substitute)
        if rate is not None and clock_mhz is not None and rate.clock_mhz is None:
            rate = None
        if rate is None:
            left_out.append(key.label)
            continue
        if (rate.a, rate.b) != (key.a, key.b):
            served_by[key.label] = rate.label
        per_s = _value(rate, end)
        share = 1.0 if clock_mhz is None else clock_share(rate, clock_mhz)
        by_unit.setdefault(rate.unit, []).append((rate, count / (per_s * share)))
    found = []
    for parts in by_unit.values():
        labels = list(dict.fromkeys(rate.label for rate, _ in parts))
        name = " + ".join([labels[0], *(label.split(" ", 1)[1] for label in labels[1:])])
        total = parts[0][1]
        for _, more in parts[1:]:
            total = total + more
        found.append((name, total))
    return found


def _memory_terms(
    moved_bytes: Any, device: Device, level: str | None, cache: Cache, end: End, left_out: list[str]
) -> list[tuple[str, Any]]:
    if np.ndim(moved_bytes) == 0 and float(moved_bytes) == 0.0:
        return []
    levels = [each.name for each in device.memory]
    source = levels[-1] if level is None else level
    if source not in levels:
        raise LimitError(f"{device.id} has no memory level {source!r}: one of {', '.join(levels)}")
    outer = levels.index(source)
    terms = []
    for name in levels[: outer + 1]:
        bandwidth = device.bandwidth(name)
        if bandwidth is None:
            if name == source:
                left_out.append(f"bytes of {name}")
            continue
        count, label = moved_bytes, name
        if cache == "warm" and name == levels[-1] and len(levels) > 1:
            count, label = np.maximum(moved_bytes - cache_bytes(device), 0.0), f"{name} or {levels[-2]}"
        terms.append((label, count / _value(bandwidth, end)))
    return terms


def _value(ceiling: Rate | Bandwidth, end: End) -> float:
    return {"low": ceiling.low_per_s, "value": ceiling.value_per_s, "high": ceiling.high_per_s}[end]
