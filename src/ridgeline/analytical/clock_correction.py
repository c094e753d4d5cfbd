"""Roofs at the clock that was seen: a slow kernel and a slow clock tell themselves apart.

A data sheet's arithmetic rate holds at one clock. Where the card ran slower, because of its power or thermal limit,
the rate it could reach shrinks in proportion; bandwidth of main memory has a clock of its own and does not.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ridgeline.analytical.ceilings import Rate
from ridgeline.analytical.device import Device


def clock_share(rate: Rate, clock_mhz: Any) -> Any:
    """Share of ``rate`` that is left at ``clock_mhz`` (a number or a column); ``rate`` must state its own clock.

    Raises:
        ValueError: for a clock that is not a positive number.
    """
    _check_clock(clock_mhz)
    if rate.clock_mhz is None:
        raise ValueError(f"{rate.label} states no clock")
    return clock_mhz / rate.clock_mhz


def rate_at_clock(rate: Rate, clock_mhz: float) -> Rate | None:
    """``rate`` at another core clock; ``None`` where the clock that its value holds at is not known.

    Args:
        rate: a ceiling, in operations per second at ``rate.clock_mhz``.
        clock_mhz: core clock that was measured, in MHz.

    Raises:
        ValueError: for a clock that is not a positive number.
    """
    _check_clock(clock_mhz)
    if rate.clock_mhz is None:
        return None
    share = clock_share(rate, clock_mhz)
    return dataclasses.replace(
        rate,
        value_per_s=rate.value_per_s * share,
        low_per_s=rate.low_per_s * share,
        high_per_s=rate.high_per_s * share,
        clock_mhz=clock_mhz,
    )


def device_at_clock(device: Device, clock_mhz: float) -> Device | None:
    """``device`` with every rate at ``clock_mhz`` and its bandwidths as they are; ``None`` where no rate can be moved.

    A rate whose clock is not known is left out: beside rates that were scaled it would be a roof of another card.

    Raises:
        ValueError: for a clock that is not a positive number.
    """
    moved = [rate_at_clock(rate, clock_mhz) for rate in device.rates]
    rates = tuple(rate for rate in moved if rate is not None)
    return dataclasses.replace(device, rates=rates) if rates else None


def raised_to_clock(device: Device, clock_mhz: float) -> Device:
    """``device`` with the rates that were stated at a lower clock than ``clock_mhz`` raised to it.

    What is physically possible follows the clock that was seen: a data sheet's tensor rate of an H100 holds at 1830 MHz,
    and the card runs at up to 1980.

    Raises:
        ValueError: for a clock that is not a positive number.
    """

    def raised(rate: Rate) -> Rate:
        moved = rate_at_clock(rate, clock_mhz)
        return moved if moved is not None and moved.value_per_s > rate.value_per_s else rate

    return dataclasses.replace(device, rates=tuple(raised(rate) for rate in device.rates))


def _check_clock(clock_mhz: Any) -> None:
    clocks = np.atleast_1d(np.asarray(clock_mhz, dtype=np.float64))
    wrong = ~(np.isfinite(clocks) & (clocks > 0.0))
    if wrong.any():
        raise ValueError(f"a clock must be a positive number of MHz, not {clocks[wrong][0]:g}")
