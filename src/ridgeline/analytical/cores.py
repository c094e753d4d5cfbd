"""CPU cores: the physical ceilings of a host, derived from what one core can do in a cycle at its highest clock.

A virtual machine does not say which product it runs on, at which clock, or over how many memory channels. What a core
can do per cycle is published for its family, and no clock of the family exceeds the highest one sold: their product is
a ceiling that no correct measurement can pass. It says what is impossible, not what is likely.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pydantic import ConfigDict, TypeAdapter

from ridgeline.analytical.ceilings import Bandwidth, Ceiling, Kind, Rate, Source
from ridgeline.analytical.work import fma_key

ASSUMED = "assumed"


@dataclass(frozen=True, kw_only=True)
class Core:
    """What one core of a CPU family can do."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    vendor: str
    """``vendor_id`` of /proc/cpuinfo."""
    family: int
    models: tuple[tuple[int, int], ...]
    """Ranges of CPUID model numbers, both ends included."""
    name_contains: str = ""
    """Text that the CPU's name must hold, where products of one model differ in clock."""
    max_clock_hz: float
    """Highest clock of any product of the family."""
    flop_per_cycle: Mapping[str, float]
    """Operations per cycle of one core by ``unit precision``; a multiply-add is two."""
    bytes_per_cycle: Mapping[str, float]
    """Bytes per cycle of one core by memory level, both directions together."""
    source: Source

    def matches(self, vendor: str, family: int, model: int, cpu_name: str) -> bool:
        """Whether this file describes the CPU."""
        in_range = any(low <= model <= high for low, high in self.models)
        return self.vendor == vendor and self.family == family and in_range and self.name_contains in cpu_name


_CORE = TypeAdapter(Core)


@cache
def cores() -> Mapping[str, Core]:
    """Cores that ship with Ridgeline, by file name; those with a ``name_contains`` come first."""
    folder = resources.files("ridgeline.analytical") / "hardware" / "cores"
    found = {
        entry.name.removesuffix(".toml"): _CORE.validate_python(tomllib.loads(entry.read_text(encoding="utf-8")))
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    }
    return dict(sorted(found.items(), key=lambda item: (not item[1].name_contains, item[0])))


def find_core(vendor: str, family: int, model: int, cpu_name: str) -> tuple[Core, Kind]:
    """The core of a CPU and the kind of ceiling it yields: derived, or assumed where no file describes it."""
    for core in cores().values():
        if core.matches(vendor, family, model, cpu_name):
            return core, "derived"
    return cores()[ASSUMED], "assumed"


def physical_ceilings(core: Core, kind: Kind, threads: int, main_memory: str) -> list[Ceiling]:
    """Ceilings of ``threads`` threads, one to a core: per cycle figures times the highest clock.

    Main memory is bounded by the path from the last cache to the cores, which all its bytes pass.
    """
    per_second = core.max_clock_hz * threads
    ceilings: list[Ceiling] = []
    for label, flop in core.flop_per_cycle.items():
        unit, precision = label.split()
        key = fma_key(precision, unit)
        value = flop * per_second
        ceilings.append(
            Rate(
                unit=unit,
                a=key.a,
                b=key.b,
                accumulator=key.accumulator,
                value_per_s=value,
                low_per_s=value,
                high_per_s=value,
                kind=kind,
                source=core.source,
                threads=threads,
            )
        )
    outermost = list(core.bytes_per_cycle)[-1]
    levels = {**core.bytes_per_cycle, main_memory: core.bytes_per_cycle[outermost]}
    for level, count in levels.items():
        value = count * per_second
        ceilings.append(
            Bandwidth(
                level=level,
                value_per_s=value,
                low_per_s=value,
                high_per_s=value,
                kind=kind,
                source=core.source,
                threads=threads,
            )
        )
    return ceilings
