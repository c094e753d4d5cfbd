"""A replayed card: a trace in the place of hardware, through the whole pipeline.

Kernels run on the CPU for the checks; times, clocks and faults are the trace's. Its records have the timer ``replay``
and a unit ``replay-...``, so that they are never taken for a measurement or compared with one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ridgeline.analytical.device import Device
from ridgeline.bench.devices.trace import Trace, load_trace
from ridgeline.bench.devices.unit import RoofSpec, Unit, UnitError
from ridgeline.results.measurement import Measurement, Placement

if TYPE_CHECKING:
    from ridgeline.bench.devices.replay_session import ReplaySession

TIMER = "replay"


@dataclass(frozen=True)
class Replay(Unit):
    """A trace as something to measure on."""

    spec: str
    device: Device
    trace: Trace
    threads: int = 1
    torch_device = "cpu"
    timer = TIMER

    @property
    def placement(self) -> Placement:
        """One rank on a unit that only this trace is."""
        return Placement(device=self.device.id, torch_device="cpu", unit=f"replay-{self.trace.digest}")

    @property
    def last_level_cache_bytes(self) -> float:
        """None to pass through: the times of cold launches are scripted too."""
        return 0.0

    def roofs(self) -> Sequence[RoofSpec]:
        """None: the ceilings are those of the catalogue and of the trace."""
        return ()

    def session(self) -> ReplaySession:
        """The trace, played in this process."""
        from ridgeline.bench.devices.replay_session import ReplaySession

        return ReplaySession(self.trace)

    def facts(self) -> Mapping[str, str]:
        """Those of the trace, and its digest."""
        return {**self.trace.facts, "replayed_trace": self.trace.digest}


def open_replay(argument: str) -> Replay:
    """The unit of ``replay:FILE``.

    Raises:
        UnitError: for no file, or one that is no trace.
    """
    if not argument:
        raise UnitError("replay: name a trace: --device replay:FILE (docs/replay.md says what it holds)")
    path = Path(argument).resolve()
    trace = load_trace(path)
    device = trace.resolve_device(str(path))
    return Replay(f"replay:{path}", replace(device, name=f"{device.name} (replayed)"), trace)


def trace_from_measurement(measurement: Measurement, device: Device) -> Trace:
    """A trace that plays the blocks that count of a stored measurement again.

    Args:
        measurement: one with samples.
        device: the one it was taken on.

    Raises:
        UnitError: for a measurement without samples.
    """
    samples = [s for block in measurement.used_samples_s for s in block]
    if not samples:
        raise UnitError(f"record {measurement.record_id}: {measurement.status}: has no samples to replay")
    series: dict[str, list[tuple[float, float]]] = {}
    now_s = 0.0
    for block, seen in zip(measurement.samples_s, measurement.conditions, strict=False):
        for sensor in ("clock_mhz", "memory_clock_mhz", "power_w", "temperature_c"):
            value = getattr(seen, sensor)
            if value is not None:
                series.setdefault(sensor, []).append((now_s, value))
        now_s += sum(block) * measurement.launches_per_sample
    return Trace.model_validate(
        {
            "device": device.to_dict(),
            "launches": [
                {
                    "operator": measurement.operator,
                    "implementation": measurement.implementation,
                    "samples_s": samples,
                }
            ],
            **series,
        }
    )
