"""A recorded or scripted meter: JSON lines of facts and readings, played against a clock.

    {"meter": "nvml", "scope": "board", "power_limit_w": 700}
    {"t_s": 0.0, "energy_j": 12.0, "power_w": 70.0, "sm_mhz": 1980, "temperature_c": 41}
    {"t_s": 0.1, "energy_j": 19.0}
    {"t_s": 3.0, "fault": "gpu_lost"}

A reading holds until the next one, as a sensor's does; a key that a line leaves out keeps its value.
"""

from __future__ import annotations

import json
import math
import time
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ridgeline.bench.energy.source import GAIN_RELATIVE, DeviceState, EnergySource, MeterError, MeterFacts, MeterFault

_Positive = Annotated[float, Field(gt=0.0)]
_NotNegative = Annotated[float, Field(ge=0.0)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class TraceFacts(_Line):
    """First line of a trace."""

    meter: str = "replay"
    """Meter that was recorded."""
    scope: str = "board"
    device: str = ""
    driver: str = ""
    averaging_s: _NotNegative = 0.0
    power_limit_w: _Positive | None = None
    gain_relative: _NotNegative = GAIN_RELATIVE


class TraceReading(_Line):
    """One later line."""

    t_s: _NotNegative
    energy_j: _NotNegative | None = None
    power_w: _NotNegative | None = None
    sm_mhz: _NotNegative | None = None
    memory_mhz: _NotNegative | None = None
    temperature_c: float | None = None
    limited_s: dict[str, float] | None = None
    fault: str | None = None


def load_trace(path: Path) -> tuple[TraceFacts, list[TraceReading]]:
    """Read a trace.

    Raises:
        MeterError: one line with file and line number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise MeterError(f"meter replay: {path}: {reason}") from None
    facts: TraceFacts | None = None
    readings: list[TraceReading] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if facts is None:
                facts = TraceFacts.model_validate(values)
            else:
                readings.append(TraceReading.model_validate(values))
        except json.JSONDecodeError:
            raise MeterError(f"meter replay: {path}: line {number}: not JSON") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "line"
            raise MeterError(f"meter replay: {path}: line {number}: {where}: {first['msg']}") from None
        if len(readings) > 1 and readings[-1].t_s < readings[-2].t_s:
            raise MeterError(f"meter replay: {path}: line {number}: t_s goes back")
    if facts is None or not readings:
        raise MeterError(f"meter replay: {path}: no readings")
    return facts, readings


class ReplaySource(EnergySource):
    """Plays a trace; its time 0 is the first reading that is asked for.

    After the last line the last reading holds, which a window then reports as a frozen sensor.
    """

    def __init__(
        self, facts: TraceFacts, readings: list[TraceReading], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._start_s = math.nan
        self._times = [reading.t_s for reading in readings]
        self._held: list[TraceReading] = []
        held = TraceReading(t_s=0.0)
        for reading in readings:
            held = held.model_copy(update=reading.model_dump(exclude_none=True))
            self._held.append(held)
        self._facts = MeterFacts(
            meter="replay",
            scope=facts.scope,
            device=facts.device,
            driver=facts.driver,
            has_counter=any(r.energy_j is not None for r in readings),
            power="instant" if any(r.power_w is not None for r in readings) else None,
            averaging_s=facts.averaging_s,
            power_limit_w=facts.power_limit_w,
            gain_relative=facts.gain_relative,
            notes=(f"replay of a trace of {facts.meter}",),
        )

    @property
    def facts(self) -> MeterFacts:
        return self._facts

    def _now(self) -> TraceReading:
        now = self._clock()
        if math.isnan(self._start_s):
            self._start_s = now
        held = self._held[max(0, bisect_right(self._times, now - self._start_s) - 1)]
        if held.fault:
            raise MeterFault(held.fault, f"fault in the trace at {held.t_s} s: {held.fault}")
        return held

    def energy_j(self) -> float:
        value = self._now().energy_j
        if value is None:
            raise MeterFault("not_supported", "the trace has no energy counter here")
        return value

    def power_w(self) -> float:
        value = self._now().power_w
        if value is None:
            raise MeterFault("not_supported", "the trace has no power here")
        return value

    def state(self) -> DeviceState:
        try:
            now = self._now()
        except MeterFault:
            return DeviceState()
        return DeviceState(now.power_w, now.sm_mhz, now.memory_mhz, now.temperature_c, now.limited_s or {})
