"""NVIDIA cards through NVML (nvidia-ml-py), found by UUID and never by index.

NVML's sensors are those of the board, also for a MIG slice. What a power reading averages over differs by chip:
``nvmlDeviceGetPowerUsage`` is instantaneous up to GA100 and a 1 s average on other Ampere and newer (NVML API reference,
nvmlDeviceGetPowerUsage), while the field POWER_INSTANT is what it says everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ridgeline.bench.energy.source import (
    DeviceState,
    EnergySource,
    MeterError,
    MeterFacts,
    MeterFault,
    Neighbours,
    PowerKind,
)

CODES: Mapping[int, tuple[str, str]] = {
    1: ("uninitialized", "NVML was shut down while it was used"),
    2: ("invalid_argument", "NVML refuses the call for this device: update nvidia-ml-py and the driver"),
    3: ("not_supported", "this card or virtual GPU has no such sensor"),
    4: (
        "no_permission",
        "NVML needs more rights here: run as root, or start the container with the GPU capability utility",
    ),
    5: ("already_initialized", "NVML says it was started twice: start a fresh process"),
    6: ("not_found", "NVML finds no such device: compare the UUID with nvidia-smi -L"),
    7: ("insufficient_size", "NVML's answer did not fit: update nvidia-ml-py"),
    8: ("insufficient_power", "the card lacks external power: check its power cables"),
    9: ("driver_not_loaded", "the NVIDIA driver is not loaded: sudo modprobe nvidia"),
    10: ("timeout", "NVML timed out: check the driver with nvidia-smi"),
    11: ("irq_issue", "the kernel has an interrupt problem with the card: see dmesg"),
    12: ("library_not_found", "libnvidia-ml.so.1 is not there: install the NVIDIA driver, on a machine with a card"),
    13: ("function_not_found", "this driver is too old for the call: update the NVIDIA driver"),
    14: ("corrupted_inforom", "the card's infoROM is damaged: see nvidia-smi -q"),
    15: ("gpu_lost", "the GPU fell off the bus: reboot, and see dmesg for its Xid"),
    16: ("reset_required", "the GPU must be reset: sudo nvidia-smi --gpu-reset"),
    17: ("operating_system", "the operating system blocked the call: check the container's device access"),
    18: (
        "driver_mismatch",
        "driver and NVML library differ in version: reboot, or restart the container after an update",
    ),
    19: ("in_use", "the GPU is in use and NVML refuses: end the other process"),
    20: ("out_of_memory", "NVML ran out of memory: free host memory"),
    21: ("no_data", "NVML has no data for this yet"),
    22: ("vgpu_ecc_not_supported", "this virtual GPU does not allow ECC: ask the host's administrator"),
    23: ("insufficient_resources", "the driver ran out of a resource: end other users of the GPU"),
    24: ("frequency_not_supported", "the card does not know this clock: reset it with nvidia-smi -rgc"),
    25: ("argument_version_mismatch", "NVML wants another structure version: update nvidia-ml-py"),
    26: ("deprecated", "this driver no longer has the call: update nvidia-ml-py"),
    27: ("not_ready", "the card is not ready: try again"),
    28: ("gpu_not_found", "no GPU on this machine"),
    29: ("invalid_state", "the card is in a state that does not allow this: check it with nvidia-smi"),
    30: ("reset_type_not_supported", "the card cannot be reset in this way: reboot"),
    999: ("unknown_error", "NVML reports an unknown error: check the driver with nvidia-smi"),
}
"""NVML return codes as reasons (NVML API reference, nvmlReturn_t)."""

LIMITS = {"sw_power_cap": 74, "sw_thermal": 269, "hw_thermal": 270, "power_brake": 271}
"""Field ids of the nanosecond counters of limited time."""

POWER_AVERAGE, POWER_INSTANT = 185, 186
SCOPES = {0: "board", 1: "module"}
"""Scope ids of the power fields. Grace Hopper answers for the module only, which holds the CPU too."""

AMPERE = 7
GA100 = ("A100", "A800", "A30 ", "A30X")
"""Names of cards with the GA100 chip."""

PART_TIME_S = 0.025
"""A100 and H100 look at 25 ms of every 100 ms (Yang, Adamek, Armour, SC'24)."""


def fault(error: Any, doing: str) -> MeterFault:
    """A reason from an ``NVMLError``."""
    value = int(getattr(error, "value", 999))
    code, advice = CODES.get(value, ("unknown_error", f"NVML reports code {value}: check the driver with nvidia-smi"))
    return MeterFault(code, f"{doing}: {advice}")


def same_uuid(one: str, other: str) -> bool:
    """Whether two UUIDs name one device: torch gives them bare, NVML with ``GPU-`` or ``MIG-`` before."""
    return _bare(one) == _bare(other)


def _bare(uuid: str) -> str:
    text = uuid.strip().lower()
    for prefix in ("gpu-", "mig-"):
        text = text.removeprefix(prefix)
    return text


class NvmlSource(EnergySource):
    """The sensors of one card.

    Args:
        uuid: of the card or of a MIG slice, as torch, nvidia-smi or CUDA_VISIBLE_DEVICES write it; ``None`` takes the
            only card there is.
        pid_exists: whether a process id is known in this pid namespace; in a container NVML names the host's ids.

    Raises:
        MeterFault: where NVML or the card cannot be opened or has no energy and no power sensor.
        MeterError: where ``uuid`` names no card, or is missing and there are several.
    """

    def __init__(self, uuid: str | None = None, *, pid_exists: Callable[[int], bool] | None = None) -> None:
        import pynvml

        self._nvml: Any = pynvml
        self._pid_exists = pid_exists or (lambda pid: Path(f"/proc/{pid}").exists())
        self._open = False
        self._call(pynvml.nvmlInit, doing="starting NVML")
        self._open = True
        try:
            self._slice = False
            self._handle = self._find(uuid)
            self._facts = self._learn()
        except BaseException:
            self.close()
            raise

    @property
    def facts(self) -> MeterFacts:
        return self._facts

    def _call(self, function: Callable[..., Any], *args: Any, doing: str) -> Any:
        try:
            return function(*args)
        except self._nvml.NVMLError as error:
            raise fault(error, doing) from None

    def _try(self, function: Callable[..., Any], *args: Any) -> Any:
        """The answer, or ``None`` where the device does not give it."""
        try:
            return function(*args)
        except self._nvml.NVMLError:
            return None

    def _find(self, uuid: str | None) -> Any:
        n = self._nvml
        handles = [
            self._call(n.nvmlDeviceGetHandleByIndex, i, doing="opening the GPU")
            for i in range(self._call(n.nvmlDeviceGetCount, doing="counting GPUs"))
        ]
        names = [self._call(n.nvmlDeviceGetUUID, handle, doing="reading the GPU's UUID") for handle in handles]
        if uuid is None:
            if len(handles) == 1:
                return handles[0]
            if not handles:
                raise MeterFault("gpu_not_found", "no GPU on this machine")
            raise MeterError(f"{len(handles)} GPUs: say which by its UUID, one of {', '.join(names)}")
        if not uuid.strip().lower().startswith("mig-"):
            for handle, name in zip(handles, names, strict=True):
                if same_uuid(name, uuid):
                    return handle
        # torch gives the UUID of a MIG slice without its prefix.
        parent = self._parent("MIG-" + _bare(uuid)) or (self._parent(uuid) if uuid.startswith("MIG-") else None)
        if parent is None:
            raise MeterError(f"no GPU with UUID {uuid}: there are {', '.join(names) or 'none'}")
        self._slice = True
        return parent

    def _parent(self, uuid: str) -> Any:
        """The card that holds a MIG slice."""
        found = self._try(self._nvml.nvmlDeviceGetHandleByUUID, uuid)
        return None if found is None else self._try(self._nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, found)

    def _learn(self) -> MeterFacts:
        n, handle = self._nvml, self._handle
        notes: list[str] = []
        counter = True
        try:
            n.nvmlDeviceGetTotalEnergyConsumption(handle)
        except n.NVMLError as error:
            counter = False
            notes.append(str(fault(error, "no energy counter")))
        name = str(self._try(n.nvmlDeviceGetName, handle) or "")
        self._power: tuple[str, int, int] | None = None
        scope, kind, averaging_s = "board", None, 0.0
        for field, what in ((POWER_INSTANT, "instant"), (POWER_AVERAGE, "averaged")):
            for scope_id, scope_name in SCOPES.items():
                if self._power is None and self._field(field, scope_id) is not None:
                    self._power, scope = ("field", field, scope_id), scope_name
                    kind = what
        if self._power is None:
            notes.append("no power field: this driver or card does not give it")
            if self._try(n.nvmlDeviceGetPowerUsage, handle) is not None:
                self._power = ("usage", 0, 0)
                kind = "averaged" if self._usage_is_averaged(name) else "instant"
        if kind == "averaged":
            averaging_s = 1.0
        elif kind == "instant":
            averaging_s = PART_TIME_S if any(chip in name for chip in ("A100", "A800", "H100", "H800")) else 0.1
        if not counter and self._power is None:
            raise MeterFault("not_supported", f"{name or 'this GPU'} has neither an energy counter nor a power sensor")
        limit_mw = self._try(n.nvmlDeviceGetEnforcedPowerLimit, handle)
        mode = self._try(n.nvmlDeviceGetMigMode, handle)
        if mode is not None and int(mode[0]) == 1:
            self._slice = True
        power_kind: PowerKind | None = kind  # type: ignore[assignment]
        return MeterFacts(
            meter="nvml",
            scope=scope,
            device=str(self._call(n.nvmlDeviceGetUUID, handle, doing="reading the GPU's UUID")),
            driver=str(self._try(n.nvmlSystemGetDriverVersion) or ""),
            has_counter=counter,
            power=power_kind,
            averaging_s=averaging_s,
            resolution_j=1e-3,
            power_limit_w=limit_mw / 1e3 if limit_mw else None,
            notes=tuple(notes),
            rests=("awake", "sleep"),
        )

    def _usage_is_averaged(self, name: str) -> bool:
        architecture = self._try(self._nvml.nvmlDeviceGetArchitecture, self._handle)
        return architecture is not None and architecture >= AMPERE and not any(chip in name + " " for chip in GA100)

    def _field(self, field: int, scope: int = 0) -> Any:
        """Value of a field, or ``None``; each field has its own return code."""
        values = self._try(self._nvml.nvmlDeviceGetFieldValues, self._handle, [(field, scope)])
        if values is None or values[0].nvmlReturn != 0:
            return None
        return _value(values[0])

    def energy_j(self) -> float:
        millijoules = self._call(
            self._nvml.nvmlDeviceGetTotalEnergyConsumption, self._handle, doing="reading the energy counter"
        )
        return float(millijoules) / 1e3

    def power_w(self) -> float:
        doing = "reading the power sensor"
        if self._power is None:
            raise MeterFault("not_supported", f"{doing}: this card has none")
        how, field, scope = self._power
        if how == "usage":
            return float(self._call(self._nvml.nvmlDeviceGetPowerUsage, self._handle, doing=doing)) / 1e3
        values = self._call(self._nvml.nvmlDeviceGetFieldValues, self._handle, [(field, scope)], doing=doing)
        if values[0].nvmlReturn != 0:
            raise fault(self._nvml.NVMLError(values[0].nvmlReturn), doing)
        return float(_value(values[0])) / 1e3

    def state(self) -> DeviceState:
        n, handle = self._nvml, self._handle
        power_w = None
        if self._power is not None:
            try:
                power_w = self.power_w()
            except MeterFault:
                power_w = None
        temperature = self._try(n.nvmlDeviceGetTemperatureV, handle, 0)
        if temperature is None:
            temperature = self._try(n.nvmlDeviceGetTemperature, handle, 0)
        limited: dict[str, float] = {}
        values = self._try(n.nvmlDeviceGetFieldValues, handle, list(LIMITS.values()))
        if values is not None:
            for cause, value in zip(LIMITS, values, strict=True):
                if value.nvmlReturn == 0:
                    limited[cause] = float(_value(value)) / 1e9
        sm, memory = self._try(n.nvmlDeviceGetClockInfo, handle, 1), self._try(n.nvmlDeviceGetClockInfo, handle, 2)
        return DeviceState(
            power_w,
            None if sm is None else float(sm),
            None if memory is None else float(memory),
            None if temperature is None else float(temperature),
            limited,
        )

    def neighbours(self) -> Neighbours:
        n, handle = self._nvml, self._handle
        unknown = []
        pids: list[int] = []
        processes = self._try(n.nvmlDeviceGetComputeRunningProcesses, handle)
        if processes is None:
            unknown.append("processes")
        else:
            pids = sorted({int(process.pid) for process in processes})
        own = os.getpid()
        foreign = [pid for pid in pids if pid != own]
        own_context = own in pids
        if not own_context and len(foreign) == 1 and not self._pid_exists(foreign[0]):
            # In a container NVML names the host's ids: a single unknown one is ourselves.
            foreign, own_context = [], True
        rates = self._try(n.nvmlDeviceGetUtilizationRates, handle)
        if rates is None:
            unknown.append("utilisation")
        return Neighbours(
            tuple(foreign), own_context, None if rates is None else float(rates.gpu), self._slice, tuple(unknown)
        )

    def close(self) -> None:
        if self._open:
            self._open = False
            self._try(self._nvml.nvmlShutdown)


def _value(field: Any) -> float:
    """The member of NVML's union that its type names (nvmlValueType_t)."""
    members = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
    kind = int(field.valueType)
    return float(getattr(field.value, members[kind] if kind < len(members) else "ullVal"))
