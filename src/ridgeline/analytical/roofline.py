"""The bound: the shortest time in which a device could do a piece of work.

Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009, with a hierarchy of memory levels and several units. Units
and memory overlap, so the bound is the maximum over them; within one unit, work of different precisions adds up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ridgeline.analytical.ceilings import Ceiling
from ridgeline.analytical.device import Device
from ridgeline.analytical.work import RateKey, Work

IMPOSSIBLE_MARGIN = 1.05
"""A time is impossible when all of it lies below the physical bound divided by this (DESIGN 3)."""


@dataclass(frozen=True)
class Term:
    """One limit on the time: seconds that one unit or one memory level needs."""

    limit: str
    """The ceiling's name, such as ``vector float32`` or ``DRAM``."""
    seconds: float
    low_s: float
    high_s: float
    """Seconds at the upper and the lower end of the ceiling's interval."""


@dataclass(frozen=True)
class Bound:
    """Shortest possible time, the limit that sets it, and every limit considered."""

    seconds: float
    low_s: float
    high_s: float
    bound_by: str
    terms: tuple[Term, ...]


def bound(work: Work, device: Device, level: str) -> Bound | None:
    """The bound of ``work`` with its bytes in memory ``level``, from the ceilings that ``device`` carries.

    Select the ceilings first (:meth:`Device.select`). ``None`` where no ceiling applies at all. Work for which the
    device states no rate is left out: the result stays a bound, only a weaker one. ``None`` too where the work passes
    over links: no device states a link's ceiling yet, and what its memory could do says nothing about a link.
    """
    if float(work.link_bytes) > 0.0:
        return None
    terms = _compute_terms(work.operations, device)
    bandwidth = device.bandwidth(level)
    if bandwidth is not None and float(work.bytes) > 0.0:
        terms.append(_term(level, {bandwidth: float(work.bytes)}))
    if not terms:
        return None
    longest = max(terms, key=lambda t: t.seconds)
    return Bound(
        longest.seconds, max(t.low_s for t in terms), max(t.high_s for t in terms), longest.limit, tuple(terms)
    )


def _compute_terms(operations: Mapping[RateKey, float], device: Device) -> list[Term]:
    by_unit: dict[str, dict[Ceiling, float]] = {}
    for key, count in operations.items():
        rate = device.rate(key)
        if rate is not None and float(count) > 0.0:
            counts = by_unit.setdefault(rate.unit, {})
            counts[rate] = counts.get(rate, 0.0) + float(count)
    return [_term(max(counts, key=lambda c: counts[c] / c.value_per_s).label, counts) for counts in by_unit.values()]


def _term(limit: str, counts: Mapping[Ceiling, float]) -> Term:
    return Term(
        limit,
        sum(n / c.value_per_s for c, n in counts.items()),
        sum(n / c.high_per_s for c, n in counts.items()),
        sum(n / c.low_per_s for c, n in counts.items()),
    )
