"""Why a record has no energy figure, in one line."""

from __future__ import annotations

from functools import cache

from ridgeline.bench.energy.choose import choose_source
from ridgeline.bench.energy.source import NullSource


@cache
def energy_reason() -> str:
    """Why there is no energy figure of this host's processor; one line."""
    source = choose_source("auto")
    if isinstance(source, NullSource):
        return source.reason
    source.close()
    return f"{source.facts.meter} works, but energy was not measured in this run"
