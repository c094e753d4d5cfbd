"""What a profiler's file says, before it is joined to a case."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from ridgeline.results.counters import CounterTool, LaunchCounters
from ridgeline.results.durable import StoreError


@dataclass(frozen=True)
class Trace:
    """Launches by the name of their kernel, in the file's order."""

    tool: CounterTool
    kernels: dict[str, list[LaunchCounters]]
    notes: tuple[str, ...] = ()
    """How figures came about that the tool does not state as such."""


def launch(where: str, **facts: float | int | None) -> LaunchCounters:
    """One entry, validated.

    Raises:
        StoreError: for a figure that cannot be, such as a negative time or 120 percent.
    """
    try:
        return LaunchCounters.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        raise StoreError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
