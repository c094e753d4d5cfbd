"""Which meter: by name, or the first that works."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ridgeline.bench.energy.nvml import NvmlSource
from ridgeline.bench.energy.rapl import RaplSource
from ridgeline.bench.energy.replay import ReplaySource, load_trace
from ridgeline.bench.energy.source import EnergySource, MeterError, MeterFault, NullSource
from ridgeline.bench.energy.zeus_source import ZeusSource

CHOICES = "auto, none, nvml, rapl, zeus, replay:FILE"


@dataclass(frozen=True)
class MeterSeen:
    """One meter of this host: what it is, or why it cannot be used."""

    meter: str
    scope: str
    reason: str
    """Empty where it works."""


def _sources(unit_uuid: str | None) -> dict[str, Callable[[], EnergySource]]:
    """Meters in the order that ``auto`` tries them: of a card where a card is measured, of the CPU otherwise."""
    card: dict[str, Callable[[], EnergySource]] = {
        "nvml": lambda: NvmlSource(unit_uuid),
        "zeus": lambda: ZeusSource(unit_uuid),
    }
    return card if unit_uuid is not None else {"rapl": RaplSource, "zeus": lambda: ZeusSource(None)}


def check_meter(name: str) -> None:
    """Refuse a name that is no meter, before anything is measured.

    Raises:
        MeterError: one line naming the choices; for ``replay:FILE`` also where the trace cannot be read.
    """
    kind, colon, file = name.partition(":")
    if kind == "replay" and file:
        load_trace(Path(file))
    elif colon or kind not in ("auto", "none", "nvml", "rapl", "zeus"):
        raise MeterError(f"unknown meter {name!r}: one of {CHOICES}")


def choose_source(
    name: str, unit_uuid: str | None = None, *, clock: Callable[[], float] = time.monotonic
) -> EnergySource:
    """Open a meter.

    Args:
        name: ``auto``, ``none``, ``nvml``, ``rapl``, ``zeus`` or ``replay:FILE``. ``auto`` takes NVML, then Zeus, for a
            card, and RAPL, then Zeus, for the CPU.
        unit_uuid: UUID of the card that is measured, as torch or NVML write it; ``None`` for the CPU.
        clock: seconds, for a replay.

    Returns:
        The meter, or a :class:`NullSource` that says why a known meter cannot be used here.

    Raises:
        MeterError: for an unknown name, a trace that cannot be read, a UUID that no card has.
    """
    check_meter(name)
    if name == "none":
        return NullSource("switched_off", "no meter was asked for (--meter none)")
    if name.startswith("replay:"):
        return ReplaySource(*load_trace(Path(name.partition(":")[2])), clock=clock)
    if name == "auto":
        return _first(_sources(unit_uuid))
    openers: dict[str, Callable[[], EnergySource]] = {
        "nvml": lambda: NvmlSource(unit_uuid),
        "rapl": RaplSource,
        "zeus": lambda: ZeusSource(unit_uuid),
    }
    try:
        return openers[name]()
    except MeterFault as fault:
        return NullSource(fault.code, str(fault))


def _first(openers: dict[str, Callable[[], EnergySource]]) -> EnergySource:
    """The first that opens; otherwise why the first choice does not, which is the one to mend."""
    refused: MeterFault | None = None
    for opener in openers.values():
        try:
            return opener()
        except MeterFault as fault:
            refused = refused or fault
        except MeterError as error:
            refused = refused or MeterFault("no_such_device", str(error))
    assert refused is not None
    return NullSource(refused.code, str(refused))


def meters_seen(unit_uuid: str | None = None) -> list[MeterSeen]:
    """Every meter of this host and whether it works, for the doctor."""
    seen = []
    for name in ("nvml", "rapl", "zeus"):
        try:
            source = choose_source(name, unit_uuid)
        except MeterError as error:
            seen.append(MeterSeen(name, "", str(error)))
            continue
        seen.append(MeterSeen(name, source.facts.scope, source.reason if isinstance(source, NullSource) else ""))
        source.close()
    return seen
