"""Energy of a measurement: figures with intervals, how they were taken, and why one is missing.

A missing figure is ``None`` with a reason, never 0.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ridgeline.analytical.energy import Estimate

Method = Literal["counter_edge", "counter_naive", "power_integral", "average_power_integral"]
"""How joules were taken, best first: edge-aligned windows of the energy counter; counter values at the ends of the
window; integral of instant power; integral of power that the driver averages (1 s)."""

Quality = Literal["good", "low_confidence", "contaminated", "none"]
"""good: may enter trends; low_confidence: few updates, trials or doubtful; contaminated: others used the device."""


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Interval(_Fact):
    """A figure with its uncertainties as half-widths in its own unit."""

    value: float
    random: float = Field(ge=0.0)
    """Half-width of the 95 % interval from noise and spread."""
    sensor: float = Field(default=0.0, ge=0.0)
    """Half-width from the sensor's gain: matters only against another card."""

    @property
    def low(self) -> float:
        """Lower end of the random interval."""
        return self.value - self.random

    @property
    def high(self) -> float:
        """Upper end of the random interval."""
        return self.value + self.random

    @classmethod
    def of(cls, estimate: Estimate | None) -> Interval | None:
        """From the maths; ``None`` stays ``None``."""
        if estimate is None:
            return None
        return cls(value=estimate.value, random=estimate.random, sensor=estimate.sensor)


class SideChannel(_Fact):
    """What the device said beside the windows; series of equal length, an entry ``None`` where it said nothing."""

    time_s: tuple[float, ...] = ()
    """Seconds since the first window began."""
    power_w: tuple[float | None, ...] = ()
    sm_mhz: tuple[float | None, ...] = ()
    memory_mhz: tuple[float | None, ...] = ()
    temperature_c: tuple[float | None, ...] = ()

    @model_validator(mode="after")
    def _equal(self) -> SideChannel:
        if len({len(s) for s in (self.time_s, self.power_w, self.sm_mhz, self.memory_mhz, self.temperature_c)}) != 1:
            raise ValueError("series of the side channel differ in length")
        return self


class Window(_Fact):
    """One window that holds: the data behind the figures."""

    start_s: float
    """First update of the sensor that counts, on the meter's monotonic clock."""
    end_s: float
    """Last update that counts."""
    power_w: Interval
    launch_s: float = Field(gt=0.0)
    """Seconds per launch while the load ran."""
    launches: int = Field(ge=1)
    edges: int = Field(ge=0)


class RejectedWindow(_Fact):
    """A window that does not hold, and why."""

    code: str
    reason: str


class EnergyFacts(_Fact):
    """Energy of one launch, or why there is none."""

    meter: str
    """``nvml``, ``rapl``, ``zeus``, ``replay`` or ``none``."""
    scope: str = ""
    """What the sensor covers: ``board``, ``module``, ``package``, ``package+dram``, ``system``."""
    method: Method | None = None
    quality: Quality = "none"
    reason_code: str = ""
    """Why there is no figure, for programs."""
    reason: str = ""
    """The same for people, one line."""
    labels: tuple[str, ...] = ()
    """What a reader must know: ``power_limited``, ``clock_moved``, ``drift`` ..."""
    notes: tuple[str, ...] = ()
    """Steps of the ladder that were not taken, and why; one line each."""
    gross_j: Interval | None = None
    """Joules per launch, everything the sensor covers."""
    net_j: Interval | None = None
    """Joules per launch above idle awake; ``None`` without a baseline."""
    power_w: Interval | None = None
    """Mean power under load."""
    launch_s: Interval | None = None
    """Seconds per launch in the same windows."""
    j_per_flop: Interval | None = None
    j_per_byte: Interval | None = None
    edp_js: Interval | None = None
    """Energy-delay product per launch, J.s."""
    ed2p_js2: Interval | None = None
    """Energy times delay squared, J.s^2."""
    idle_awake_w: Interval | None = None
    idle_sleep_w: Interval | None = None
    update_period_s: float | None = Field(default=None, gt=0.0)
    update_jitter_s: float | None = Field(default=None, ge=0.0)
    resolution_j: float | None = Field(default=None, gt=0.0)
    sensor_relative: float | None = Field(default=None, ge=0.0)
    """Gain uncertainty of the sensor."""
    window_s: float | None = Field(default=None, gt=0.0)
    """Mean length of the valid windows."""
    edges: int | None = Field(default=None, ge=0)
    """Fewest updates of the sensor in a valid window."""
    trials: int = Field(default=0, ge=0)
    """Valid windows."""
    launches: int = Field(default=0, ge=0)
    """Launches in the valid windows."""
    windows: tuple[Window, ...] = ()
    """Every valid window, in order."""
    rejected: tuple[RejectedWindow, ...] = ()
    drift_relative: float | None = None
    """Largest change of power within a window."""
    counter_over_power: float | None = Field(default=None, gt=0.0)
    """Counter's mean power over that of the instant readings: the two sensors against each other."""
    power_limit_w: float | None = Field(default=None, gt=0.0)
    limited: dict[str, float] = {}
    """Fraction of the windows limited by ``sw_power_cap, sw_thermal, hw_thermal, power_brake``."""
    driver: str = ""
    side_channel: SideChannel = SideChannel()

    @model_validator(mode="after")
    def _consistent(self) -> EnergyFacts:
        figures = (self.net_j, self.j_per_flop, self.j_per_byte, self.edp_js, self.ed2p_js2, self.power_w)
        if self.gross_j is None:
            if not self.reason or not self.reason_code:
                raise ValueError("a missing energy figure needs its reason and code")
            if any(f is not None for f in figures) or self.method is not None or self.quality != "none":
                raise ValueError("figures without a gross energy")
        else:
            if self.reason or self.reason_code:
                raise ValueError("an energy figure with a reason why there is none")
            if self.method is None or self.quality == "none" or not self.scope:
                raise ValueError("an energy figure needs method, scope and quality")
            if self.trials == 0 or len(self.windows) != self.trials:
                raise ValueError("an energy figure needs its windows")
            if self.gross_j.value <= 0.0 or self.power_w is None or self.power_w.value <= 0.0:
                raise ValueError("gross energy and power must be positive")
            if self.net_j is not None and self.idle_awake_w is None:
                raise ValueError("net energy needs its idle baseline")
        return self
