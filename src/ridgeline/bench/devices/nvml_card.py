"""A card through NVML: found by its UUID, its facts, and its clocks, power, limits and other processes.

Needs no privileges and no CUDA context. torch and NVML number cards differently, so an index is never used to find one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ridgeline.bench.devices.cuda_watch import CardCounters, CardReader, CardSample
from ridgeline.bench.devices.unit import UnitError, UnitLostError
from ridgeline.bench.energy.nvml import same_uuid

SM_CLOCK, MEMORY_CLOCK = 1, 2
LIMIT_FIELDS = {
    74: "power limit",
    75: "thermal limit",
    77: "board limit",
    79: "reliability limit",
    269: "thermal limit",
    270: "thermal limit",
    271: "power brake",
}
"""NVML field ids of the counters of limited time, in nanoseconds (nvml.h: NVML_FI_DEV_PERF_POLICY_*, and
NVML_FI_DEV_CLOCKS_EVENT_REASON_* from driver 560 on). Software and hardware slowdown by heat are one cause."""
THERMAL_BEFORE_560 = 75
"""Read only where 269 and 270 are not given: it counts the same time."""
VIOLATION_POLICIES = {0: "power limit", 1: "thermal limit", 3: "board limit", 5: "reliability limit"}
"""NVML_PERF_POLICY_* of nvmlDeviceGetViolationStatus, for drivers without the fields; it goes with CUDA 14."""
LOST = (15, 16, 9, 18)
"""Return codes after which the card is gone: lost, reset required, driver not loaded, driver and library differ."""
VALUE_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""Members of NVML's value union by nvmlValueType_t."""


def nvml_cards() -> int:
    """Cards that NVML sees; 0 where there is no driver. Takes about a millisecond where there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
    finally:
        pynvml.nvmlShutdown()


class NvmlCard(CardReader):
    """One card, open until :meth:`close`.

    Args:
        uuid: as torch or NVML writes it.
        clock: seconds.

    Raises:
        UnitError: where NVML cannot be used or knows no such card; one line.
    """

    def __init__(
        self,
        uuid: str,
        clock: Callable[[], float] = time.monotonic,
        known_pid: Callable[[int], bool] = lambda pid: Path(f"/proc/{pid}").exists(),
    ) -> None:
        import pynvml

        self._nvml: Any = pynvml
        self._clock = clock
        self._known_pid = known_pid
        self._open = False
        try:
            pynvml.nvmlInit()
            self._open = True
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            found = [h for h in handles if same_uuid(pynvml.nvmlDeviceGetUUID(h), uuid)]
        except pynvml.NVMLError as error:
            self.close()
            raise UnitError(f"NVML: {error}: check the driver with nvidia-smi") from None
        if not found:
            self.close()
            raise UnitError("NVML does not list the card that torch uses: a slice of it (MIG), or another driver")
        self._handle = found[0]
        self._fields = self._fields_given()
        self._seen_us = 0

    def facts(self) -> dict[str, str]:
        """What decides a number on this card, as text by name; what the driver does not tell is left out."""
        n, handle = self._nvml, self._handle
        raw: dict[str, Any] = {
            "driver": self._try(n.nvmlSystemGetDriverVersion),
            "power_limit_w": _thousandth(self._try(n.nvmlDeviceGetEnforcedPowerLimit, handle)),
            "power_limit_default_w": _thousandth(self._try(n.nvmlDeviceGetPowerManagementDefaultLimit, handle)),
            "max_sm_clock_mhz": self._try(n.nvmlDeviceGetMaxClockInfo, handle, SM_CLOCK),
            "max_memory_clock_mhz": self._try(n.nvmlDeviceGetMaxClockInfo, handle, MEMORY_CLOCK),
            "application_sm_clock_mhz": self._try(n.nvmlDeviceGetApplicationsClock, handle, SM_CLOCK),
            "ecc": _on_or_off(self._try(n.nvmlDeviceGetCurrentEccMode, handle)),
            "mig": _on_or_off((self._try(n.nvmlDeviceGetMigMode, handle) or [None])[0]),
            "persistence_mode": _on_or_off(self._try(n.nvmlDeviceGetPersistenceMode, handle)),
        }
        return {name: str(value) for name, value in raw.items() if value is not None}

    def sample(self) -> CardSample:
        """As :meth:`CardReader.sample`."""
        n, handle = self._nvml, self._handle
        temperature = self._try(n.nvmlDeviceGetTemperatureV, handle, 0)
        if temperature is None:
            temperature = self._try(n.nvmlDeviceGetTemperature, handle, 0)
        return CardSample(
            _number(self._try(n.nvmlDeviceGetClockInfo, handle, SM_CLOCK)),
            _number(self._try(n.nvmlDeviceGetClockInfo, handle, MEMORY_CLOCK)),
            _thousandth(self._try(n.nvmlDeviceGetPowerUsage, handle)),
            _number(temperature),
        )

    def counters(self) -> CardCounters:
        """As :meth:`CardReader.counters`.

        Raises:
            UnitLostError: where the driver says that the card is gone.
        """
        limited: dict[str, float] = {}
        with self._lost():
            if self._fields:
                for value in self._nvml.nvmlDeviceGetFieldValues(self._handle, self._fields):
                    if value.nvmlReturn in LOST:
                        raise UnitLostError(f"NVML: {self._nvml.NVMLError(value.nvmlReturn)}")
                    if value.nvmlReturn == 0:
                        _add(limited, LIMIT_FIELDS[int(value.fieldId)], _field_value(value) * 1e-9)
            else:
                for policy, cause in VIOLATION_POLICIES.items():
                    status = self._try(self._nvml.nvmlDeviceGetViolationStatus, self._handle, policy)
                    if status is not None:
                        _add(limited, cause, float(status.violationTime) * 1e-9)
        return CardCounters(self._clock(), limited)

    def others(self) -> int | None:
        """Other compute processes that had time on the card since the last call, where NVML tells; else all others."""
        processes = self._try(self._nvml.nvmlDeviceGetComputeRunningProcesses, self._handle)
        if processes is None:
            return None
        pids = {int(process.pid) for process in processes}
        foreign = pids - {os.getpid()}
        if pids == foreign and len(foreign) == 1 and not self._known_pid(next(iter(foreign))):
            return 0  # in a container NVML gives the ids of the host: the only process is this one
        if not foreign:
            return 0
        busy = self._busy_pids()
        return len(foreign) if busy is None else len(foreign & busy)

    def _busy_pids(self) -> set[int] | None:
        n = self._nvml
        try:
            used = n.nvmlDeviceGetProcessUtilization(self._handle, self._seen_us)
        except n.NVMLError as error:
            # Not found: no process had time on the card since then.
            return set() if error.value == n.NVML_ERROR_NOT_FOUND else None
        except AttributeError:
            return None
        self._seen_us = max((int(u.timeStamp) for u in used), default=self._seen_us)
        return {int(u.pid) for u in used if u.smUtil > 0}

    def close(self) -> None:
        """Let go of NVML."""
        if self._open:
            self._open = False
            self._try(self._nvml.nvmlShutdown)

    def _fields_given(self) -> list[int]:
        """Those of :data:`LIMIT_FIELDS` that this driver and card give."""
        values = self._try(self._nvml.nvmlDeviceGetFieldValues, self._handle, list(LIMIT_FIELDS)) or []
        given = [int(value.fieldId) for value in values if value.nvmlReturn == 0]
        if {269, 270} & set(given):
            given = [number for number in given if number != THERMAL_BEFORE_560]
        return given

    def _try(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, or ``None`` where this card or driver does not give it."""
        try:
            return function(*arguments)
        except self._nvml.NVMLError:
            return None

    @contextlib.contextmanager
    def _lost(self) -> Iterator[None]:
        try:
            yield
        except self._nvml.NVMLError as error:
            if error.value in LOST:
                raise UnitLostError(f"NVML: {error}: check the card with nvidia-smi") from None


def _add(limited: dict[str, float], cause: str, seconds: float) -> None:
    limited[cause] = limited.get(cause, 0.0) + seconds


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _thousandth(value: Any) -> float | None:
    return None if value is None else float(value) / 1e3


def _on_or_off(value: Any) -> str | None:
    return None if value is None else "on" if value else "off"


def _field_value(field: Any) -> float:
    kind = int(field.valueType)
    return float(getattr(field.value, VALUE_MEMBERS[kind] if kind < len(VALUE_MEMBERS) else "ullVal"))
