"""Which device of the catalogue a driver's card is: by its name, its memory and its number of multiprocessors.

The name alone is not enough. An A100 has 40 or 80 GB under names that differ by a suffix, a GH200 calls itself by its
CPU's memory, one half of an MI250X carries the name of the whole, and a MIG slice is a small part of its card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ridgeline.analytical.catalogue import SHIPPED, Entry, entries

MEMORY_RANGE = (0.93, 1.10)
"""Share of the stated capacity that a driver may report: 1.07 where a vendor's GB is 2^30 bytes (H100: 85 GB of "80"),
less where the driver or error correction keeps a part (T4: 15.6 GB of 16)."""


@dataclass(frozen=True)
class Identified:
    """The device that a card is, or why it is none."""

    id: str | None
    reason: str
    """How it was recognised, or what kept it from being."""


def identify(
    name: str,
    memory_bytes: float | None = None,
    unit_count: int | None = None,
    known: Mapping[str, Entry] | None = None,
) -> Identified:
    """The catalogue's device for what NVML, ROCm or torch say of a card; never raises for an unknown one.

    Args:
        name: the driver's name, such as ``NVIDIA H100 80GB HBM3``.
        memory_bytes: reported memory; None or 0 where it is not told.
        unit_count: multiprocessors or compute units; None or 0 where it is not told.
        known: the catalogue; default the one in use. Among its matches, files of the user's go first.
    """
    known = entries() if known is None else known
    spoken = " ".join(name.split())
    named = [
        e for e in known.values() if e.match.name and re.fullmatch(e.match.name, spoken, re.IGNORECASE) is not None
    ]
    if not named:
        part = "; a slice of a card (MIG) has no ceilings of its own" if " MIG " in f" {spoken} " else ""
        return Identified(None, f"no device file matches the name {spoken!r}{part}")
    reasons = {e.device.id: _mismatch(e, memory_bytes, unit_count) for e in named}
    fitting = [e for e in named if not reasons[e.device.id]]
    fitting = [e for e in fitting if e.origin != SHIPPED] or fitting
    if len(fitting) == 1:
        return Identified(fitting[0].device.id, f"name, memory and units of {fitting[0].device.id}")
    if fitting:
        ids = ", ".join(e.device.id for e in fitting)
        return Identified(None, f"{spoken!r} may be {ids}: tell its memory and unit count")
    return Identified(None, "; ".join(f"{spoken!r} is not {name}: {reason}" for name, reason in reasons.items()))


def _mismatch(entry: Entry, memory_bytes: float | None, unit_count: int | None) -> str:
    """What speaks against the entry; empty where nothing does."""
    device = entry.device
    if memory_bytes:
        capacity = device.main_memory.capacity_bytes
        low, high = entry.match.memory_bytes or (MEMORY_RANGE[0] * capacity, MEMORY_RANGE[1] * capacity)
        if not low <= memory_bytes <= high:
            return f"{memory_bytes / 1e9:.1f} GB of memory, which has {capacity / 1e9:.0f}"
    if unit_count and device.unit_count and unit_count != device.unit_count:
        return f"{unit_count} multiprocessors, which has {device.unit_count}"
    return ""
