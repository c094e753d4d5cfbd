"""One problem on one device: every limit, which decides, what would have to change, and where a measured time went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.device import Device
from ridgeline.analytical.inverse import (
    bandwidth_to_be_compute_bound_bytes_per_s,
    intensity_to_be_compute_bound_flop_per_byte,
)
from ridgeline.analytical.limits import LimitError, PowerRoof, limits, with_power_roof
from ridgeline.analytical.problem import Problem
from ridgeline.analytical.waterfall import waterfall
from ridgeline.analytical.work import Work


@dataclass(frozen=True, kw_only=True)
class Energies:
    """Energy of an operation and of a byte, for the power roof; the device's own limit where none is given."""

    j_per_flop: float
    j_per_byte: float
    limit_w: float | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measured time, with what is known of how it came about; ``None`` where it is not."""

    seconds: float
    launch_s: float | None = None
    clock_mhz: float | None = None
    moved_bytes: float | None = None
    warm: bool = False


def problem_bound(
    problem: Problem,
    device: Device,
    *,
    level: str | None = None,
    substitute: bool = False,
    energies: Energies | None = None,
    measured: Measured | None = None,
) -> dict[str, Any]:
    """The limits of ``problem`` on ``device`` as a document: keys end in their units, unknown figures are ``None``.

    Raises:
        LimitError: as :func:`~ridgeline.analytical.limits.limits`, for a power roof without a limit or that leaves
            nothing for the work, and for a measurement that says of itself what cannot be.
    """
    work = problem.expected_work()
    terms = limits(work, device, level=level, substitute=substitute)
    if energies is not None:
        terms = with_power_roof(terms, work, _power_roof(device, energies))
    bound_s = float(terms.overlapped_s)
    rows = [
        {"limit": name, "kind": kind, "seconds": float(seconds), "share": float(seconds) / bound_s if bound_s else None}
        for name, kind, seconds in zip(terms.names, terms.kinds, terms.seconds, strict=True)
    ]
    computes, moves = bool(terms.of("unit")), bool(terms.of("memory"))
    return {
        "operator": problem.operator,
        "problem": problem.to_dict(),
        "problem_label": problem.label,
        "device": device.id,
        "flop": float(work.flop),
        "bytes": float(work.bytes),
        "launches": float(work.launches),
        "operations": {key.label: float(count) for key, count in work.operations.items()},
        "read_bytes": {stream: float(count) for stream, count in work.read_bytes.items()},
        "written_bytes": {stream: float(count) for stream, count in work.written_bytes.items()},
        "intensity_flop_per_byte": float(work.intensity_flop_per_byte) if work.bytes else None,
        "limits": sorted(rows, key=lambda row: -float(row["seconds"])),
        "bound_s": bound_s,
        "serial_s": float(terms.serial_s),
        "bound_by": str(terms.bound_by),
        "left_out": list(terms.left_out),
        "served_by": dict(terms.served_by),
        "compute_bound_from_bytes_per_s": float(
            bandwidth_to_be_compute_bound_bytes_per_s(work, device, substitute=substitute)
        )
        if computes and moves
        else None,
        "compute_bound_from_flop_per_byte": float(
            intensity_to_be_compute_bound_flop_per_byte(work, device, substitute=substitute)
        )
        if computes and moves
        else None,
        "measured": None if measured is None else _gap(work, device, level, substitute, measured),
    }


def _power_roof(device: Device, energies: Energies) -> PowerRoof:
    limit_w = device.tdp_w if energies.limit_w is None else energies.limit_w
    if limit_w is None:
        raise LimitError(f"{device.id} states no power limit: give one in watts")
    # Without a stated idle power all of the limit is there for the work: the roof is weaker, and holds.
    static_w = device.idle_w or 0.0
    try:
        return PowerRoof(
            limit_w=limit_w, static_w=static_w, j_per_flop=energies.j_per_flop, j_per_byte=energies.j_per_byte
        )
    except ValueError as error:
        raise LimitError(str(error)) from None


def _gap(work: Work, device: Device, level: str | None, substitute: bool, measured: Measured) -> dict[str, Any]:
    if measured.seconds <= 0.0:
        raise LimitError(f"a measured time of {measured.seconds:g} s is none: give seconds, such as 1.2e-3")
    try:
        found = waterfall(
            work, device, measured.seconds, level=level, warm=measured.warm, launch_s=measured.launch_s,
            clock_mhz=measured.clock_mhz, moved_bytes=measured.moved_bytes, substitute=substitute,
        )  # fmt: skip
    except LimitError:
        raise
    except ValueError as error:
        raise LimitError(str(error)) from None
    return {
        "seconds": measured.seconds,
        "ideal_s": float(found.ideal_s),
        "share_of_ideal": float(found.ideal_s) / measured.seconds,
        "parts_s": {cause: float(part) for cause, part in found.parts.items()},
        "unknown": dict(found.unknown),
    }
