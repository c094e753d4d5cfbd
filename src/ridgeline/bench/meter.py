"""Energy meters of this host: for now only why a record has no energy figure."""

from __future__ import annotations

from functools import cache
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@cache
def energy_reason() -> str:
    """Why there is no energy figure on this host; one line."""
    counters = sorted(POWERCAP.glob("intel-rapl:*/energy_uj"))
    if not counters:
        return "no RAPL counter on this machine, and no other meter"
    try:
        counters[0].read_text()
    except PermissionError:
        return f"RAPL is there but only root may read it: sudo chmod a+r {POWERCAP}/intel-rapl:*/energy_uj"
    except OSError as error:
        return f"RAPL cannot be read: {error.strerror}"
    return "RAPL is readable, but Ridgeline does not measure energy yet"
