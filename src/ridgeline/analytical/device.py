"""Devices: what a piece of hardware holds and can do at most."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ridgeline.analytical.ceilings import Bandwidth, Ceiling, Kind, Link, Rate, Source
from ridgeline.analytical.quantities import holds_exactly
from ridgeline.analytical.work import RateKey, fma_key

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class Power:
    """What the device draws, in watts; ``None`` where nobody published or measured it."""

    __pydantic_config__ = _STRICT

    tdp_w: float | None = None
    """The highest sustained power that the vendor states: the default limit."""
    idle_w: float | None = None
    sustained_w: float | None = None
    """Mean power under a compute-bound kernel."""
    scope: Literal["device", "module", "system"] = "device"
    """What the figures cover: a GH200's are those of the module, its CPU included."""
    kind: Kind
    source: Source

    def __post_init__(self) -> None:
        for name in ("tdp_w", "idle_w", "sustained_w"):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise ValueError(f"{name} must be positive, not {value:g}")


@dataclass(frozen=True, kw_only=True)
class Price:
    """A range of prices, of one device, on a day."""

    __pydantic_config__ = _STRICT

    basis: Literal["rent_per_hour", "purchase"]
    low_usd: float
    high_usd: float
    date: str
    """When it held: YYYY-MM. Prices go stale within weeks."""
    kind: Kind = "assumed"
    """``datasheet`` for a list price, ``assumed`` for a range put together from what providers and resellers ask."""
    source: Source

    def __post_init__(self) -> None:
        if not 0.0 < self.low_usd <= self.high_usd:
            raise ValueError(f"a price needs 0 < low_usd <= high_usd, not {self.low_usd:g}, {self.high_usd:g}")
        if not self.date.strip():
            raise ValueError("a price needs its date (YYYY-MM)")


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
    kind: Literal["cpu", "gpu", "asic", "soc"]
    architecture: str = ""
    """Family whose members predict each other, such as ``hopper``."""
    released: str = ""
    """Year, or year and month, of the release."""
    unit_count: int | None = None
    """Multiprocessors, compute units or cores."""
    base_clock_mhz: float | None = None
    boost_clock_mhz: float | None = None
    confidence: Literal["high", "medium", "low", ""] = ""
    """high: the vendor's figures, met again in another source; medium: the vendor's, not opened again, or sources differ a
    little; low: derived or reported by others. Prices are low everywhere."""
    note: str = ""
    """What a reader of the figures has to know."""
    memory: tuple[MemoryLevel, ...]
    rates: tuple[Rate, ...] = ()
    bandwidths: tuple[Bandwidth, ...] = ()
    links: tuple[Link, ...] = ()
    power: tuple[Power, ...] = ()
    prices: tuple[Price, ...] = ()

    def __post_init__(self) -> None:
        if not self.memory:
            raise ValueError("a device needs at least one memory level")
        names = {level.name for level in self.memory}
        for bandwidth in self.bandwidths:
            if bandwidth.level not in names:
                raise ValueError(f"bandwidth of {bandwidth.level}, which is not a memory level of {self.id}")

    @property
    def main_memory(self) -> MemoryLevel:
        """The largest, outermost level."""
        return self.memory[-1]

    @property
    def tdp_w(self) -> float | None:
        """The highest sustained power that the vendor states; of what it covers, :attr:`power` tells the scope."""
        return next((power.tdp_w for power in self.power if power.tdp_w is not None), None)

    @property
    def idle_w(self) -> float | None:
        """Power without work, where somebody published or measured it."""
        return next((power.idle_w for power in self.power if power.idle_w is not None), None)

    @property
    def sustained_w(self) -> float | None:
        """Mean power under a compute-bound kernel, where somebody published or measured it."""
        return next((power.sustained_w for power in self.power if power.sustained_w is not None), None)

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

    def peak(self, precision: str, unit: str | None = None) -> Rate | None:
        """The highest dense ceiling stated for exactly ``precision`` with the accumulator the field uses; never another's.

        ``None`` means that the device does not compute in ``precision``, or that nobody said how fast.
        """
        wanted = fma_key(precision, unit or "matrix")
        found = (
            c
            for c in self.rates
            if c.key == dataclasses.replace(wanted, unit=c.unit)
            and c.unit in ((unit,) if unit else ("matrix", "vector"))
        )
        return max(found, key=lambda c: c.value_per_s, default=None)

    def bandwidth(self, level: str) -> Bandwidth | None:
        """The highest bandwidth ceiling of ``level``, or ``None``."""
        return max((c for c in self.bandwidths if c.level == level), key=lambda c: c.value_per_s, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON or TOML."""
        return dict(device_adapter().dump_python(self, mode="json", exclude_none=True))


@functools.cache
def device_adapter() -> TypeAdapter[Device]:
    """Validates and writes devices. Made at first use: importing pydantic takes longer than all of this."""
    from pydantic import TypeAdapter

    return TypeAdapter(Device)
