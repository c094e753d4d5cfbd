"""A trace: what a replayed card is, how long its launches take, what its sensors show, and what goes wrong on it.

One JSON file, described in ``docs/replay.md``. Virtual time begins at zero with every case, so that a case replays the
same in whatever order and worker it runs.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ridgeline.analytical.catalogue import DeviceError, device_from_dict, find_device
from ridgeline.analytical.ceilings import Bandwidth, Rate
from ridgeline.analytical.device import Device
from ridgeline.analytical.quantities import digest
from ridgeline.bench.devices.unit import UnitError

Sensor = Literal["clock_mhz", "memory_clock_mhz", "power_w", "temperature_c"]
FaultKind = Literal[
    "gpu_lost", "driver_mismatch", "launch_failure", "illegal_address", "out_of_memory", "hang", "crash",
    "wrong_result", "clock_jump", "throttle", "sensor_missing", "sensor_frozen", "counter_wrap",
]  # fmt: skip


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class _Selecting(_Part):
    operator: str = ""
    """Empty for every operator."""
    implementation: str = ""
    """Empty for every implementation."""

    def selects(self, operator: str, implementation: str) -> bool:
        """Whether this part of the trace speaks of a case."""
        return self.operator in ("", operator) and self.implementation in ("", implementation)


class LaunchTimes(_Selecting):
    """How long launches take: exactly one of ``constant_s``, ``cycle_s``, ``samples_s`` and ``median_s``."""

    constant_s: float | None = Field(default=None, gt=0.0)
    cycle_s: list[float] | None = Field(default=None, min_length=1)
    """Seconds of one launch after the other, over and over."""
    samples_s: list[float] | None = Field(default=None, min_length=1)
    """Seconds per launch of one sample after the other, over and over: what a recorded measurement gives."""
    median_s: float | None = Field(default=None, gt=0.0)
    """Median of a log-normal distribution."""
    noise_relative: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Standard deviation of the logarithm of the time of one sample."""
    autocorrelation: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Of that logarithm, from one sample to the next."""
    steps: list[tuple[float, float]] = []
    """(virtual second, factor): from then on times are multiplied by the factor."""

    @field_validator("cycle_s", "samples_s")
    @classmethod
    def _positive(cls, values: list[float] | None) -> list[float] | None:
        if values and min(values) <= 0.0:
            raise ValueError("a time is above zero")
        return values

    @model_validator(mode="after")
    def _one_form(self) -> LaunchTimes:
        given = [self.constant_s, self.cycle_s, self.samples_s, self.median_s]
        if sum(form is not None for form in given) != 1:
            raise ValueError("give one of constant_s, cycle_s, samples_s and median_s")
        if any(factor <= 0.0 for _, factor in self.steps):
            raise ValueError("a factor of steps is above zero")
        return self


class Fault(_Selecting):
    """What goes wrong, from a virtual time or from a launch of a matching case on."""

    kind: FaultKind
    at_s: float | None = Field(default=None, ge=0.0)
    at_launch: int | None = Field(default=None, ge=1)
    """Launches of a case are counted from 1, those of the checks included."""
    duration_s: float = Field(default=1e9, gt=0.0)
    """How long ``throttle`` lasts."""
    factor: float = Field(default=1.0, ge=1.0)
    """By how much ``throttle`` makes launches longer and the clock lower."""
    limit: Literal["power limit", "thermal limit", "power brake"] = "power limit"
    """What throttles."""
    sensor: Sensor | None = None
    """Which one is missing or frozen."""
    seconds: float = 0.0
    """By how much the host's clock jumps."""
    stays: bool = False
    """A lost card does not come back during the run."""

    @model_validator(mode="after")
    def _whole(self) -> Fault:
        if (self.at_s is None) == (self.at_launch is None):
            raise ValueError("give one of at_s and at_launch")
        if self.kind.startswith("sensor_") and self.sensor is None:
            raise ValueError(f"{self.kind} needs sensor")
        return self


class Trace(_Part):
    """A whole trace."""

    device: str | dict[str, Any]
    """Name of a device of the catalogue, path of a TOML file, or the facts of one as in such a file."""
    seed: int = 0
    facts: dict[str, str] = {}
    """Of the unit, such as driver and power limit; part of the content key."""
    ceilings: tuple[Rate | Bandwidth, ...] = ()
    """Further ceilings of the device."""
    launches: list[LaunchTimes] = Field(min_length=1)
    """The first that selects a case serves it."""
    clock_mhz: list[tuple[float, float]] = []
    """(virtual second, value), joined by straight lines; empty where there is no such sensor. So are the next three."""
    memory_clock_mhz: list[tuple[float, float]] = []
    power_w: list[tuple[float, float]] = []
    temperature_c: list[tuple[float, float]] = []
    faults: list[Fault] = []

    @field_validator("clock_mhz", "memory_clock_mhz", "power_w", "temperature_c")
    @classmethod
    def _in_order(cls, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        if any(later[0] <= earlier[0] for earlier, later in itertools.pairwise(points)):
            raise ValueError("its seconds must rise")
        return points

    @property
    def digest(self) -> str:
        """Identity of the trace, 12 hexadecimal digits."""
        return digest(self.model_dump(mode="json"))[:12]

    def times(self, operator: str, implementation: str) -> LaunchTimes | None:
        """The launch times of a case."""
        return next((times for times in self.launches if times.selects(operator, implementation)), None)

    def resolve_device(self, origin: str) -> Device:
        """The device that is replayed, with the trace's own ceilings.

        Raises:
            UnitError: where the catalogue has none of this id, or its facts do not validate.
        """
        if isinstance(self.device, str):
            try:
                return find_device(self.device).with_ceilings(self.ceilings)
            except DeviceError as error:
                raise UnitError(f"{origin}: device: {error}") from None
        try:
            return device_from_dict(self.device, f"{origin}: device").with_ceilings(self.ceilings)
        except (DeviceError, ValueError) as error:
            raise UnitError(" ".join(str(error).split())) from None


def load_trace(path: Path) -> Trace:
    """Read a trace.

    Raises:
        UnitError: one line naming the file, the key and what is wrong.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UnitError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except json.JSONDecodeError as error:
        raise UnitError(f"{path}: not JSON: {error}") from None
    try:
        return Trace.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "trace"
        raise UnitError(f"{path}: {where}: {first['msg']}") from None
