"""The CPU of this host: its memory levels, physical ceilings and threads."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from ridgeline.analytical.ceilings import Kind
from ridgeline.analytical.cores import Core, find_core, physical_ceilings
from ridgeline.analytical.device import Device, MemoryLevel
from ridgeline.bench.devices.cpu_session import CpuSession, PerfCounterTimer
from ridgeline.bench.devices.unit import Member, RoofSpec, Unit, UnitError
from ridgeline.bench.environment import cpu_facts, unit_hash
from ridgeline.results.measurement import Placement

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
MAIN_MEMORY = "DRAM"


@dataclass(frozen=True)
class Cpu(Unit):
    """This host as something to measure on."""

    device: Device
    threads: int
    """Processors this process may use."""
    spec = "cpu"
    torch_device = "cpu"
    timer = PerfCounterTimer.name

    @property
    def placement(self) -> Placement:
        """One rank on this host."""
        return Placement(device=self.device.id, torch_device="cpu", unit=unit_hash())

    def members(self, ranks: int) -> Sequence[Member]:
        """Processes of this host, with as many processors each."""
        if ranks > self.threads:
            raise UnitError(f"{ranks} ranks need a processor each: {self.device.name} has {self.threads}")
        return (Member(self.spec, unit_hash(), self.threads // ranks),) * ranks

    @property
    def last_level_cache_bytes(self) -> float:
        """Capacity of the outermost cache."""
        caches = self.device.memory[:-1]
        return caches[-1].capacity_for(self.threads) if caches else 32 * 2.0**20

    def roofs(self) -> Sequence[RoofSpec]:
        """Every level and precision, with one thread and with all."""
        from ridgeline.bench.roofs import cpu_roofs

        return cpu_roofs(self.device, self.threads, self.last_level_cache_bytes)

    def session(self) -> CpuSession:
        """This process on this host."""
        return CpuSession()


def available_threads() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def detect() -> Cpu:
    """Describe this host."""
    facts = cpu_facts()
    name = facts.get("model name", "unknown CPU")
    core, kind = _core(facts, name)
    threads = available_threads()
    memory = (*_caches(), MemoryLevel(name=MAIN_MEMORY, capacity_bytes=float(psutil.virtual_memory().total)))
    known = {level.name for level in memory}
    ceilings = [
        ceiling
        for count in sorted({1, threads})
        for ceiling in physical_ceilings(core, kind, count, MAIN_MEMORY)
        if getattr(ceiling, "level", MAIN_MEMORY) in known
    ]
    device = Device(
        id=f"{_slug(name)}-{_slug(core.name)}-{threads}t",
        name=f"{name}, {core.name}, {threads} threads",
        vendor=core.vendor or facts.get("vendor_id", "unknown"),
        kind="cpu",
        memory=memory,
    )
    return Cpu(device.with_ceilings(ceilings), threads)


def _core(facts: dict[str, str], name: str) -> tuple[Core, Kind]:
    try:
        family, model = int(facts["cpu family"]), int(facts["model"])
    except (KeyError, ValueError):
        family, model = 0, 0
    return find_core(facts.get("vendor_id", ""), family, model, name)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _caches() -> list[MemoryLevel]:
    """Data and unified caches of processor 0, from the innermost outwards, as the kernel reports them."""
    levels = []
    for index in sorted(CACHES.glob("index*")):
        try:
            if (index / "type").read_text().strip() == "Instruction":
                continue
            level = int((index / "level").read_text())
            size = (index / "size").read_text().strip()
            shared = (index / "shared_cpu_list").read_text().strip()
        except (OSError, ValueError):
            continue
        scale = {"K": 2**10, "M": 2**20, "G": 2**30}.get(size[-1], 1)
        capacity = float(int(size.rstrip("KMG")) * scale)
        # Hyper-threads share their core's cache; "0" alone or "0,32" is one core, a longer list is a shared cache.
        per_core = level <= 2 and len(re.findall(r"\d+", shared)) <= 2
        levels.append(MemoryLevel(name=f"L{level}", capacity_bytes=capacity, per_core=per_core))
    return levels
