"""Which unit to measure on, by the name a user gives."""

from __future__ import annotations

from collections.abc import Callable

from ridgeline.bench.devices.unit import Unit, UnitError


def choose_unit(name: str | None = None) -> Unit:
    """The unit called ``name``; without a name the best one of this machine.

    Raises:
        UnitError: for a name that is no unit here; names those that are.
    """
    kind, _, argument = (name or "cpu").partition(":")
    if kind not in _KINDS:
        raise UnitError(f"unknown device {name!r}: one of {', '.join(sorted(_KINDS))}")
    return _KINDS[kind](argument)


def _cpu(argument: str) -> Unit:
    from ridgeline.bench.devices.cpu import detect

    if argument:
        raise UnitError(f"cpu:{argument}: this host is one unit: write cpu")
    return detect()


def _replay(argument: str) -> Unit:
    from ridgeline.bench.devices.replay import open_replay

    return open_replay(argument)


_KINDS: dict[str, Callable[[str], Unit]] = {"cpu": _cpu, "replay": _replay}
"""How the unit of each kind is made from what follows the colon."""
