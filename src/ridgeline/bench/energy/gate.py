"""Rules on what surrounds a window: who shares the device, what limited it, whether it was steady."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ridgeline.bench.energy.source import DeviceState, Neighbours

BUSY_PERCENT = 5.0
"""Utilisation while we rest from which somebody else is at work."""
FEW_EDGES = 10
"""Updates below which a window is of low confidence."""
SW_THERMAL_FRACTION = 0.01
SW_POWER_CAP_FRACTION = 0.05
CLOCK_FRACTION = 0.02
"""Change of the SM clock within a window that is labelled."""
DRIFT_FRACTION = 0.02
"""Change of power within a window that is labelled."""
DISAGREE_FRACTION = 0.10
"""Difference of counter and power sensor that is labelled: 187 J against 327 J was seen on one card (zeus#181)."""
LIMIT_FACTOR = 1.5
"""Mean power over the power limit that no card draws."""


@dataclass(frozen=True)
class Gate:
    """Whether to measure at all."""

    refusal: tuple[str, str] | None
    """Code and reason, where no figure can be had."""
    labels: tuple[str, ...]
    contaminated: bool
    note: str = ""
    """What was found, one line."""


def judge(neighbours: Neighbours, exclusive: bool = False) -> Gate:
    """Before measuring.

    Args:
        neighbours: who else is on the device.
        exclusive: the user asserts that the rest of the card is idle, so that its board figure is that of the slice.
    """
    labels, notes = [], []
    if neighbours.shared_slice:
        if not exclusive:
            reason = "the sensor covers the whole card and this is one MIG slice of it: assert that the rest is idle"
            return Gate(("mig_board_scope", reason), (), False)
        labels.append("mig_board_scope")
    contaminated = False
    if neighbours.foreign_pids:
        contaminated = True
        labels.append("foreign_processes")
        notes.append(f"other processes on the GPU: {', '.join(map(str, neighbours.foreign_pids))}")
    if neighbours.busy_percent is not None and neighbours.busy_percent > BUSY_PERCENT:
        contaminated = True
        labels.append("busy_before")
        notes.append(f"the GPU was {neighbours.busy_percent:.0f} % busy before we began")
    labels += [f"unknown_{question}" for question in neighbours.unknown]
    return Gate(None, tuple(labels), contaminated, "; ".join(notes))


@dataclass(frozen=True)
class Verdict:
    """Whether one window holds."""

    refusal: tuple[str, str] | None
    labels: tuple[str, ...]


def limited_fractions(before: DeviceState, after: DeviceState, seconds: float) -> dict[str, float]:
    """Share of the time limited by each cause that was seen at both ends; a counter that fell says nothing."""
    found = {}
    for cause, late in after.limited_s.items():
        early = before.limited_s.get(cause)
        if early is not None and late >= early and seconds > 0.0:
            found[cause] = min(1.0, (late - early) / seconds)
    return found


def judge_window(
    power_w: float,
    drift_relative: float | None,
    limited: dict[str, float],
    sm_mhz: Sequence[float],
    power_limit_w: float | None,
) -> Verdict:
    """After a window.

    Args:
        power_w: its mean power.
        drift_relative: change of power within it.
        limited: fractions of time by cause.
        sm_mhz: clock samples under load.
        power_limit_w: limit of the card.
    """
    if limited.get("hw_thermal", 0.0) > 0.0:
        return Verdict(("hw_thermal", "the card slowed down because it was too hot"), ())
    if limited.get("power_brake", 0.0) > 0.0:
        return Verdict(("power_brake", "an external power brake slowed the card down"), ())
    if limited.get("sw_thermal", 0.0) > SW_THERMAL_FRACTION:
        share = 100.0 * limited["sw_thermal"]
        return Verdict(
            ("sw_thermal", f"the driver slowed the card down for its temperature, {share:.0f} % of the time"), ()
        )
    if power_limit_w is not None and power_w > LIMIT_FACTOR * power_limit_w:
        reason = f"{power_w:.0f} W is far above the power limit of {power_limit_w:.0f} W: the counter jumped"
        return Verdict(("implausible_power", reason), ())
    labels = []
    if limited.get("sw_power_cap", 0.0) > SW_POWER_CAP_FRACTION:
        labels.append("power_limited")
    if len(sm_mhz) > 1 and (max(sm_mhz) - min(sm_mhz)) > CLOCK_FRACTION * max(sm_mhz):
        labels.append("clock_moved")
    if drift_relative is not None and abs(drift_relative) > DRIFT_FRACTION:
        labels.append("drift")
    return Verdict(None, tuple(labels))
