"""Inverse questions: not how long it takes, but what would have to be so that it takes no longer.

Every quantity asked about here moves the time in one direction only, so a bisection finds the exact answer: the last
whole number that meets a limit, or the smallest float64 that does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ridgeline.analytical.device import Device
from ridgeline.analytical.limits import limits
from ridgeline.analytical.step_form import Counted
from ridgeline.analytical.work import Work


class InverseError(ValueError):
    """A question without an answer. One line: what was asked, and how far off it is."""


def bandwidth_to_be_compute_bound_bytes_per_s(work: Work, device: Device, *, substitute: bool = False) -> Any:
    """Main-memory bandwidth from which on ``work`` waits for an execution unit of ``device``, in bytes per second.

    Numbers or columns. Infinite for work without arithmetic that the device states a rate for: no bandwidth will do.
    """
    terms = limits(work, device, substitute=substitute)
    with np.errstate(divide="ignore"):
        return np.divide(work.bytes, np.asarray(terms.of("unit"), dtype=np.float64))[()]


def intensity_to_be_compute_bound_flop_per_byte(work: Work, device: Device, *, substitute: bool = False) -> Any:
    """Operations per byte that ``work`` would need, its mix of operations kept, to wait for a unit: the ridge point."""
    terms = limits(work, device, substitute=substitute)
    return work.intensity_flop_per_byte * terms.of("memory") / terms.of("unit")


def step_bandwidth_to_be_compute_bound_bytes_per_s(
    operations: Sequence[Counted], device: Device, *, share: float = 0.5, substitute: bool = False
) -> float:
    """Main-memory bandwidth from which on ``share`` of a step's bound is spent waiting for execution units.

    Operations follow one another, and each waits for its own limit; those without arithmetic always wait for memory,
    so ``share`` 1.0 has no answer for a step that holds one. Fusible operations are left out, as in the step's bound.

    Raises:
        InverseError: where no bandwidth reaches the share.
        LimitError: as :func:`~ridgeline.analytical.limits.limits`.
    """
    if not 0.0 < share < 1.0:
        raise InverseError(f"share must lie between 0 and 1, not {share:g}")
    counted = [o for o in operations if not o.fusible and o.transfer is None]
    compute_s = [float(o.count * limits(o.work, device, substitute=substitute).of("unit")) for o in counted]
    moved_bytes = [float(o.count * o.work.bytes) for o in counted]

    def reached(bytes_per_s: float) -> bool:
        pairs = [(c, b / bytes_per_s) for c, b in zip(compute_s, moved_bytes, strict=True)]
        waiting_for_units = math.fsum(c for c, m in pairs if c >= m)
        return waiting_for_units >= share * math.fsum(max(pair) for pair in pairs)

    if not any(compute_s):
        raise InverseError(f"nothing in this step computes on a unit whose rate {device.id} states")
    return smallest_float(reached, 1.0, 1e30)


def bandwidth_for_time_bytes_per_s(
    time_s: Callable[[Device], float], device: Device, limit_s: float, *, level: str | None = None
) -> float:
    """The least bandwidth of ``level`` (default main memory) with which ``time_s`` keeps within ``limit_s``.

    Args:
        time_s: seconds on a device; must not grow with its bandwidth.

    Raises:
        InverseError: where no bandwidth is enough, with the time that is left at an unlimited one.
    """
    name = level or device.main_memory.name

    def within(bytes_per_s: float) -> bool:
        return time_s(with_bandwidth(device, name, bytes_per_s)) <= limit_s

    if not within(1e30):
        left_s = time_s(with_bandwidth(device, name, 1e30))
        raise InverseError(
            f"no bandwidth of {name} meets {1e3 * limit_s:g} ms on {device.id}: {1e3 * left_s:g} ms are left without it"
        )
    return smallest_float(within, 1.0, 1e30)


def with_bandwidth(device: Device, level: str, bytes_per_s: float) -> Device:
    """``device`` with one bandwidth of ``level`` in place of those it states.

    Raises:
        InverseError: where the device states none.
    """
    old = device.bandwidth(level)
    if old is None:
        raise InverseError(f"{device.id} states no bandwidth of {level}")
    new = dataclasses.replace(old, value_per_s=bytes_per_s, low_per_s=bytes_per_s, high_per_s=bytes_per_s)
    others = tuple(b for b in device.bandwidths if b.level != level)
    return dataclasses.replace(device, bandwidths=(*others, new))


def largest_within(time_s: Callable[[int], float], limit_s: float, least: int = 1, most: int = 1 << 20) -> int:
    """The largest whole number from ``least`` to ``most`` (a batch, a length) whose time keeps within ``limit_s``.

    Args:
        time_s: seconds; must not shrink as the number grows.

    Raises:
        InverseError: where not even ``least`` does, with what it takes.
    """
    if time_s(least) > limit_s:
        raise InverseError(f"even {least} takes {1e3 * time_s(least):g} ms, and {1e3 * limit_s:g} ms are allowed")
    low, high = least, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if time_s(middle) <= limit_s else (low, middle)
    return low


def smallest_float(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest float64 between two positive ones from which on ``holds`` is true; it must be so at ``high``.

    Raises:
        InverseError: where it is not true at ``high``.
    """
    if not holds(high):
        raise InverseError(f"no answer up to {high:g}")
    if holds(low):
        return low
    while True:
        # Positive floats are ordered as the integers of their bits: 64 steps reach neighbours.
        middle = _from_bits((_bits(low) + _bits(high)) // 2)
        if middle == low:
            return high
        low, high = (low, middle) if holds(middle) else (middle, high)


def _bits(value: float) -> int:
    return int(np.float64(value).view(np.int64))


def _from_bits(value: int) -> float:
    return float(np.int64(value).view(np.float64))
