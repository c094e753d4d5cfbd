"""CPU packages and DRAM through RAPL's powercap files (Linux, Documentation/power/powercap)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ridgeline.bench.energy.source import EnergySource, MeterFacts, MeterFault

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Zone:
    """One RAPL domain."""

    path: Path
    name: str
    """``package-0``, ``dram`` ..."""
    range_uj: int
    """Value at which the counter returns to 0."""


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()


def grant_command(root: Path = POWERCAP) -> str:
    """The command that lets everyone read the counters; only root may since Linux 5.10 (PLATYPUS, CVE-2020-8694)."""
    return f"sudo chmod -R a+r {root}/*rapl*/"


def find_zones(root: Path = POWERCAP, read: Callable[[Path], str] = _read) -> list[Zone]:
    """Packages and their DRAM; a package holds its cores, so those are left out, and psys holds the packages.

    Raises:
        MeterFault: ``no_meter`` without a package zone, ``no_permission`` or ``unreadable`` where it cannot be read.
    """
    zones: list[Zone] = []
    for folder in sorted(root.glob("*rapl*:*")) if root.is_dir() else []:
        if not re.fullmatch(r"(intel|amd)-rapl:\d+(:\d+)?", folder.name):
            continue  # the MMIO interface shows the same packages again
        try:
            name = read(folder / "name")
            if name.startswith("package") or name == "dram":
                zones.append(Zone(folder, name, int(read(folder / "max_energy_range_uj"))))
        except (OSError, ValueError) as error:
            raise _fault(error, folder, root) from None
    if not any(zone.name.startswith("package") for zone in zones):
        raise MeterFault("no_meter", "no RAPL counter on this machine, and no other meter")
    return zones


def _fault(error: Exception, path: Path, root: Path) -> MeterFault:
    if isinstance(error, PermissionError):
        return MeterFault("no_permission", f"RAPL is there but only root may read it: {grant_command(root)}")
    if isinstance(error, OSError):
        return MeterFault("unreadable", f"RAPL cannot be read: {path}: {error.strerror or error}")
    return MeterFault("unreadable", f"RAPL cannot be read: {path}: not a whole number")


class RaplSource(EnergySource):
    """Sum of all packages and their DRAM, wraps undone zone by zone.

    A counter that fell is a wrap if the step this makes is below the power that a package can draw; otherwise it was
    reset, which is a fault.

    Raises:
        MeterFault: as :func:`find_zones`, and where a counter cannot be read.
    """

    def __init__(
        self, root: Path = POWERCAP, read: Callable[[Path], str] = _read, largest_step_fraction: float = 0.5
    ) -> None:
        self._root, self._reader = root, read
        self._largest = largest_step_fraction
        self._zones = find_zones(root, read)
        self._last = [self._value(zone) for zone in self._zones]
        self._sum_uj = 0
        dram = any(zone.name == "dram" for zone in self._zones)
        self._facts = MeterFacts(
            meter="rapl",
            scope="package+dram" if dram else "package",
            device="+".join(f"{zone.path.name}:{zone.name}" for zone in self._zones),
            has_counter=True,
            resolution_j=1e-6,
        )

    @property
    def facts(self) -> MeterFacts:
        return self._facts

    def _value(self, zone: Zone) -> int:
        path = zone.path / "energy_uj"
        try:
            return int(self._reader(path))
        except (OSError, ValueError) as error:
            raise _fault(error, path, self._root) from None

    def energy_j(self) -> float:
        for index, zone in enumerate(self._zones):
            value = self._value(zone)
            step = value - self._last[index]
            if step < 0:
                step += zone.range_uj
                if not 0 <= step <= self._largest * zone.range_uj:
                    raise MeterFault("counter_reset", f"{zone.path.name} ({zone.name}) went backwards without a wrap")
            self._last[index] = value
            self._sum_uj += step
        return self._sum_uj / 1e6
