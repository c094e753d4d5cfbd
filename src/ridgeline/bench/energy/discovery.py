"""What has to be learnt about a sensor before it is used, once per device and driver: how often it updates."""

from __future__ import annotations

import numpy as np

from ridgeline.analytical.energy import EnergyError, UpdateProfile, update_profile
from ridgeline.bench.energy.source import EnergySource, MeterFault
from ridgeline.bench.energy.window import Hands, Load, WindowTrace, run_window

WATCH_S = 3.0
"""Time a counter is watched under load. Periods from 10 to 100 ms were seen on NVIDIA cards, and 1 ms of RAPL."""
MOST_CHANGES = 60
"""Changes after which a fast counter is known well enough."""
POWER_PERIOD_S = 0.1
"""Update period of a power sensor whose readings do not change: the most common one (arXiv 2312.02741)."""


def learn_counter(source: EnergySource, load: Load, hands: Hands) -> UpdateProfile:
    """Watch the counter under load with dense polls.

    Raises:
        MeterFault: ``sensor_frozen`` for a counter that does not move, or what the meter reports.
    """
    trace = run_window(source, load, hands, WATCH_S, None, dense=True, most_edges=MOST_CHANGES)
    try:
        return update_profile(trace.edges)
    except EnergyError as error:
        raise MeterFault(error.code, str(error)) from None


def power_period_s(trace: WindowTrace) -> float:
    """Median time between changes of a polled power reading, seconds."""
    times = np.array([t for t, _ in trace.power])
    watts = np.array([w for _, w in trace.power])
    changed = times[1:][np.diff(watts) != 0.0]
    return float(np.median(np.diff(changed))) if changed.size > 3 else POWER_PERIOD_S
