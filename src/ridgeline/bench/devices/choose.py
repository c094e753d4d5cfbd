"""Which unit to measure on, by the name a user gives."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ridgeline.bench.devices.unit import Session, Unit, UnitError


def choose_unit(name: str | None = None) -> Unit:
    """The unit called ``name``; without a name the first CUDA card that torch can use, else this host.

    Raises:
        UnitError: for a name that is no unit here; names those that are.
    """
    if name is None:
        return _best()
    kind, _, argument = name.partition(":")
    if kind not in _KINDS:
        raise UnitError(f"unknown device {name!r}: one of {', '.join(sorted(_KINDS))}")
    return _KINDS[kind](argument)


def open_session(spec: str) -> Session:
    """Open, in a worker, the unit whose :attr:`Unit.spec` is ``spec``; a card is not described again.

    Raises:
        UnitError: where it cannot be opened.
    """
    kind, _, argument = spec.partition(":")
    if kind == "cuda":
        from ridgeline.bench.devices.cuda_session import open_cuda

        return open_cuda(argument)
    return choose_unit(spec).session()


def _best() -> Unit:
    from ridgeline.bench.devices.cuda_probe import something_there

    if something_there():
        try:
            return _cuda("")
        except UnitError as error:
            print(f"ridgeline: a GPU is here, but the CPU is measured: {error}", file=sys.stderr)
    return _cpu("")


def _cpu(argument: str) -> Unit:
    from ridgeline.bench.devices.cpu import detect

    if argument:
        raise UnitError(f"cpu:{argument}: this host is one unit: write cpu")
    return detect()


def _cuda(argument: str) -> Unit:
    from ridgeline.bench.devices.cuda import detect

    return detect(argument)


def _replay(argument: str) -> Unit:
    from ridgeline.bench.devices.replay import open_replay

    return open_replay(argument)


_KINDS: dict[str, Callable[[str], Unit]] = {"cpu": _cpu, "cuda": _cuda, "replay": _replay}
"""How the unit of each kind is made from what follows the colon."""
