"""Meters that Zeus reaches (extra ``energy``): AMD cards, Apple silicon, Jetson. Its counters, our windows.

Zeus' own windows are not used: they are not aligned with the counter's updates and state no uncertainty.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ridgeline.bench.energy.source import EnergySource, MeterError, MeterFacts, MeterFault

INSTALL = "pip install 'ridgeline[energy]'"

_APPLE = ("cpu_total_mj", "gpu_mj", "dram_mj", "ane_mj")
"""Parts of an Apple chip that do not hold one another."""


class ZeusSource(EnergySource):
    """A counter in millijoules behind Zeus' device layer.

    Args:
        uuid: of the GPU; ``None`` takes the chip (Apple, Jetson) or the only GPU.
        device: module to use in place of ``zeus.device``.

    Raises:
        MeterFault: ``not_installed``, ``no_meter``, or what the device layer reports.
        MeterError: where several GPUs are there and ``uuid`` names none of them.
    """

    def __init__(self, uuid: str | None = None, device: Any = None) -> None:
        if device is None:
            try:
                device = importlib.import_module("zeus.device")
            except ImportError as error:
                raise MeterFault("not_installed", f"zeus is not installed ({error.name}): {INSTALL}") from None
        self._counter: Callable[[], float]
        try:
            scope, name = self._open_chip(device)
        except Exception:  # Zeus raises its own error of every vendor where there is no such chip
            scope, name = self._open_gpu(device, uuid)
        self._facts = MeterFacts("zeus", scope, device=name, has_counter=True, resolution_j=1e-3)

    def _open_chip(self, device: Any) -> tuple[str, str]:
        chip = device.get_soc()

        def counter() -> float:
            return _chip_mj(chip.get_total_energy_consumption())

        counter()
        self._counter = counter
        return "system", type(chip).__name__

    def _open_gpu(self, device: Any, uuid: str | None) -> tuple[str, str]:
        try:
            cards = list(device.get_gpus().gpus)
        except Exception as error:
            raise MeterFault("no_meter", f"zeus finds no meter: {_line(error)}") from None
        named = {card: _uuid(card) for card in cards}
        chosen = cards if uuid is None else [c for c, known in named.items() if known and _same(known, uuid)]
        if len(chosen) != 1:
            there = ", ".join(known or "unnamed" for known in named.values()) or "none"
            raise MeterError(f"meter zeus: say which GPU by its UUID, one of {there}")
        card = chosen[0]
        try:
            trusted = card.supports_get_total_energy_consumption()
        except Exception as error:  # of every vendor's binding: a driver that went away
            raise MeterFault("unknown_error", f"zeus cannot use this GPU: {_line(error)}") from None
        if not trusted:
            raise MeterFault("not_supported", "zeus trusts no energy counter of this GPU")
        self._counter = lambda: float(card.get_total_energy_consumption())
        return "board", named[card] or "GPU"

    @property
    def facts(self) -> MeterFacts:
        return self._facts

    def energy_j(self) -> float:
        try:
            return self._counter() / 1e3
        except MeterFault:
            raise
        except Exception as error:  # of every vendor's binding
            raise MeterFault("unknown_error", f"zeus cannot read the counter: {_line(error)}") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _chip_mj(measured: Any) -> float:
    total = getattr(measured, "total_energy_mj", None)
    if total is not None:
        return float(total)
    parts = [value for name in _APPLE if (value := getattr(measured, name, None)) is not None]
    if not parts:
        raise MeterFault("not_supported", "zeus reports no energy of this chip")
    return float(sum(parts))


def _uuid(card: Any) -> str | None:
    """UUID of a card by its vendor's library."""
    try:
        if type(card).__name__.startswith("NVIDIA"):
            import pynvml

            return str(pynvml.nvmlDeviceGetUUID(card.handle))
        import amdsmi

        return str(amdsmi.amdsmi_get_gpu_device_uuid(card.handle))
    except Exception:  # no library, or a card that does not say
        return None


def _same(known: str, uuid: str) -> bool:
    from ridgeline.bench.energy.nvml import same_uuid

    return same_uuid(known, uuid)
