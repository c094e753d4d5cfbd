"""The seam of energy meters: what a meter is, what it can say, and how it fails."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

PowerKind = Literal["instant", "averaged"]

GAIN_RELATIVE = 0.05
"""Gain uncertainty of a card's sensor where no calibration is given: cards were found within about 5 % of a meter at the
plug, some at 11 % (Yang, Adamek, Armour, SC'24, arXiv 2312.02741)."""


class MeterError(ValueError):
    """A meter that cannot be chosen: unknown name, unreadable trace, ambiguous device. One line."""


class MeterFault(Exception):
    """A meter that cannot read. ``code`` for programs, the message for people: what happened and what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class MeterFacts:
    """What a meter is and what it covers."""

    meter: str
    scope: str
    """``board``, ``module``, ``package``, ``package+dram``, ``system``."""
    device: str = ""
    """Identity of the device for caching what was learnt about it: UUID or zone names."""
    driver: str = ""
    has_counter: bool = False
    """An energy counter can be read."""
    power: PowerKind | None = None
    """What its power reading is; ``None`` without one."""
    averaging_s: float = 0.0
    """Time that a power reading averages over."""
    resolution_j: float | None = None
    """Step of the counter by its documentation."""
    power_limit_w: float | None = None
    gain_relative: float = GAIN_RELATIVE
    notes: tuple[str, ...] = ()
    """What was tried first and why it is not used; labels of doubt."""
    rests: tuple[str, ...] = ("awake",)
    """Idle baselines that mean something here."""


@dataclass(frozen=True)
class DeviceState:
    """The side channel: one look at the device. ``None`` where it does not say."""

    power_w: float | None = None
    sm_mhz: float | None = None
    memory_mhz: float | None = None
    temperature_c: float | None = None
    limited_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds limited since some start, by cause: ``sw_power_cap, sw_thermal, hw_thermal, power_brake``."""


@dataclass(frozen=True)
class Neighbours:
    """Who else is on the device."""

    foreign_pids: tuple[int, ...] = ()
    own_context: bool = False
    """This process holds a context on it."""
    busy_percent: float | None = None
    """Utilisation while we do nothing."""
    shared_slice: bool = False
    """The device is one slice of a card whose sensor covers all slices (MIG)."""
    unknown: tuple[str, ...] = ()
    """Questions the device did not answer."""


class EnergySource(ABC):
    """One meter on one device. Readings raise :class:`MeterFault`; no reading is ever 0 for want of a sensor."""

    @property
    @abstractmethod
    def facts(self) -> MeterFacts:
        """What the meter is."""

    @abstractmethod
    def energy_j(self) -> float:
        """Counter of joules since some start; wraps are already undone."""

    def power_w(self) -> float:
        """Power now, by ``facts.power``."""
        raise MeterFault("not_supported", f"{self.facts.meter} has no power reading")

    def state(self) -> DeviceState:
        """Look at the side channel; never raises for a sensor that is not there."""
        return DeviceState()

    def neighbours(self) -> Neighbours:
        """Who else uses the device."""
        return Neighbours()

    def close(self) -> None:  # noqa: B027 - most meters hold nothing open
        """Give back what was opened. May be called twice."""


class NullSource(EnergySource):
    """No meter, and why."""

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        self.reason = reason

    @property
    def facts(self) -> MeterFacts:
        return MeterFacts("none", "", rests=())

    def energy_j(self) -> float:
        raise MeterFault(self.code, self.reason)
