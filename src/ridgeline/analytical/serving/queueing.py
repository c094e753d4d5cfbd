"""Queues with a closed form, to hold the simulation against: one server, Poisson arrivals (Kleinrock, "Queueing Systems" 1)."""

from __future__ import annotations

import math


def md1_wait_s(rate_per_s: float, service_s: float) -> float:
    """Mean wait before service of M/D/1 (Pollaczek-Khinchine with no variance).

    Raises:
        ValueError: where the load is not below 1: there is no long run.
    """
    load = _load(rate_per_s, service_s)
    return load * service_s / (2.0 * (1.0 - load))


def mm1_wait_s(rate_per_s: float, service_s: float) -> float:
    """Mean wait before service of M/M/1.

    Raises:
        ValueError: as :func:`md1_wait_s`.
    """
    load = _load(rate_per_s, service_s)
    return load * service_s / (1.0 - load)


def mm1_sojourn_percentile_s(rate_per_s: float, service_s: float, percentile: float) -> float:
    """Percentile of wait and service together of M/M/1, which is exponential.

    Raises:
        ValueError: as :func:`md1_wait_s`.
    """
    load = _load(rate_per_s, service_s)
    return -math.log(1.0 - percentile / 100.0) * service_s / (1.0 - load)


def _load(rate_per_s: float, service_s: float) -> float:
    load = rate_per_s * service_s
    if not 0.0 < load < 1.0:
        raise ValueError(f"a queue has a long run for 0 < load < 1, not {load:g}")
    return load
