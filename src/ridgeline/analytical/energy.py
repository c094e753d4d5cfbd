"""Pure maths of energy: what counter and power samples say about a window, and with what uncertainty.

Uncertainty comes in two parts that are never mixed. *Random*: half-width of the 95 % interval from edges, sensor
noise and the spread between trials; it shrinks with longer windows and more trials. *Sensor*: relative gain error of the
card's sensor, the same in all its figures, so it matters only where different cards are compared (about 5 %: Yang,
Adamek, Armour, SC'24, arXiv 2312.02741).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

CONFIDENCE = 0.95
"""Of every random half-width."""


class EnergyError(ValueError):
    """Samples that carry no energy figure. ``code`` names the reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Edge:
    """One change of a counter, as seen by polling."""

    time_s: float
    """Middle of the bracket that holds the moment of the change, seconds."""
    energy_j: float
    """Value after the change, joules."""
    bracket_s: float
    """Width of the bracket, seconds."""


@dataclass(frozen=True)
class UpdateProfile:
    """How a counter moves, learnt by watching it."""

    period_s: float
    """Median time between changes."""
    jitter_s: float
    """Standard deviation of one change about the regular grid."""
    resolution_j: float
    """Largest step that divides all observed changes to within a thousandth of it, or the smallest change."""
    changes: int
    """Changes that were watched."""


@dataclass(frozen=True)
class WindowPower:
    """Mean power over one window."""

    power_w: float
    random_w: float
    """Half-width of the 95 % interval, watts."""
    start_s: float
    end_s: float
    edges: int
    """Updates of the sensor inside the window, its ends included."""
    drift_relative: float | None
    """Power of the last third over that of the first third, less 1; ``None`` with too few updates or within noise."""

    @property
    def window_s(self) -> float:
        """Length, seconds."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Estimate:
    """A value with its two uncertainties, both half-widths in the value's unit."""

    value: float
    random: float
    sensor: float = 0.0

    def scaled(self, factor: float) -> Estimate:
        """Times an exact factor."""
        return Estimate(self.value * factor, self.random * abs(factor), self.sensor * abs(factor))


def unwrap(values: Sequence[float], modulus: float) -> list[float]:
    """A counter that returns to 0 at ``modulus``, made continuous (one wrap at most between two samples).

    Raises:
        ValueError: for a modulus that is not positive or a value outside [0, modulus].
    """
    if not modulus > 0.0:
        raise ValueError(f"modulus must be positive, not {modulus}")
    whole, last, made = 0.0, None, []
    for value in values:
        if not 0.0 <= value <= modulus:
            raise ValueError(f"counter value {value} outside 0..{modulus}")
        if last is not None and value < last:
            whole += modulus
        made.append(whole + value)
        last = value
    return made


def counter_edges(time_s: ArrayLike, energy_j: ArrayLike, period_s: float | None = None) -> list[Edge]:
    """Changes of a polled counter.

    The moment of a change lies between the poll before it and the poll that saw it. Where polls are further apart than
    the counter's period, the value seen is at most one period old, which narrows the bracket.

    Args:
        time_s: times of the polls, ascending, shape [n].
        energy_j: counter values, shape [n].
        period_s: update period where it is known.

    Raises:
        EnergyError: ``clock_jump`` where times go back, ``counter_reset`` where the counter does.
    """
    t, e = _series(time_s, energy_j)
    if np.any(np.diff(e) < 0.0):
        raise EnergyError("counter_reset", "the energy counter went backwards: reset, or the driver was reloaded")
    found = []
    for k in np.nonzero(np.diff(e))[0]:
        width = float(t[k + 1] - t[k])
        if period_s is not None:
            width = min(width, period_s)
        found.append(Edge(float(t[k + 1]) - width / 2.0, float(e[k + 1]), width))
    return found


def update_profile(edges: Sequence[Edge]) -> UpdateProfile:
    """Period, jitter and resolution of a counter from its changes.

    Gaps of half to one and a half periods give the jitter: an update that was missed is no jitter.

    Raises:
        EnergyError: ``sensor_frozen`` for fewer than four changes.
    """
    if len(edges) < 4:
        raise EnergyError("sensor_frozen", f"the energy counter changed {len(edges)} times while it was watched")
    gaps = np.diff([edge.time_s for edge in edges])
    period = float(np.median(gaps))
    regular = gaps[(gaps > 0.5 * period) & (gaps < 1.5 * period)]
    # A gap holds the jitter of its two ends.
    jitter = float(np.std(regular, ddof=1)) / math.sqrt(2.0) if regular.size > 2 else period / 2.0
    steps = np.diff([edge.energy_j for edge in edges])
    return UpdateProfile(period, jitter, float(_resolution(steps)), len(edges))


def _resolution(steps: NDArray[np.float64]) -> float:
    """Greatest common step, by Euclid with a tolerance: counters step in whole units of theirs.

    Rests are taken to the nearest multiple, and each divisor is made exact by the sum of the steps so far, which holds it
    many times: rounding errors that Euclid would carry along reached 0.1 % in 2 of 60 000 random series.
    """
    smallest = float(steps.min())
    unit, total = smallest, 0.0
    for step in steps:
        a, b = float(step), unit
        while b > 1e-3 * smallest:
            a, b = b, abs(math.remainder(a, b))
        total += float(step)
        unit = total / max(1, round(total / a))
    return unit


def edge_window(edges: Sequence[Edge], jitter_s: float = 0.0, resolution_j: float = 0.0) -> WindowPower:
    """Mean power between the first and the last change.

    The energy between two changes is exact but for the resolution; the time of either end is known to its bracket and
    the jitter, u(t)^2 = bracket^2 / 12 + jitter^2, which misplaces the energy that flows at that end, P(t) u(t). A change
    is seen late, by root 3 of the jitter on average where the delay is uniform from zero; where the power at the ends
    differs this moves energy into or out of the window. Half-width: 2 u. The ends and not a fitted line give the
    power, because a line is biased where the power changes within the window.

    Raises:
        EnergyError: ``no_edges`` for fewer than two changes.
    """
    if len(edges) < 2:
        raise EnergyError("no_edges", f"{len(edges)} updates of the counter in the window: two are needed")
    first, last = edges[0], edges[-1]
    length, energy = last.time_s - first.time_s, last.energy_j - first.energy_j
    if not (length > 0.0 and energy > 0.0):
        raise EnergyError("sensor_frozen", "the counter did not move in the window")
    step = max(1, len(edges) // 10)
    begin_w = _mean_power(edges[: step + 1])
    final_w = _mean_power(edges[-step - 1 :])
    variance = 3.0 * (jitter_s * (final_w - begin_w)) ** 2 + resolution_j**2 / 6.0
    for edge, power_w in ((first, begin_w), (last, final_w)):
        # The power just at an end is itself known to its neighbourhood only: never taken below that of the window.
        variance += max(power_w, energy / length) ** 2 * (edge.bracket_s**2 / 12.0 + jitter_s**2)
    random_w = 2.0 * math.sqrt(variance) / length
    return WindowPower(energy / length, random_w, first.time_s, last.time_s, len(edges), _edge_drift(edges, jitter_s))


def _mean_power(edges: Sequence[Edge]) -> float:
    return (edges[-1].energy_j - edges[0].energy_j) / (edges[-1].time_s - edges[0].time_s)


def _edge_drift(edges: Sequence[Edge], jitter_s: float) -> float | None:
    third = len(edges) // 3
    if third < 3:
        return None
    powers, variances = [], []
    for part in (edges[: third + 1], edges[-third - 1 :]):
        length = part[-1].time_s - part[0].time_s
        powers.append(_mean_power(part))
        variances.append(sum(e.bracket_s**2 / 12.0 + jitter_s**2 for e in (part[0], part[-1])) / length**2)
    drift = powers[1] / powers[0] - 1.0 if powers[0] > 0.0 else 0.0
    return drift if abs(drift) > 2.0 * math.sqrt(sum(variances)) else None


def naive_window(
    start_s: float, end_s: float, begin_j: float, final_j: float, period_s: float, updates: int
) -> WindowPower:
    """Mean power from counter values at the ends, not aligned with its updates.

    Each end is up to one period old, uniformly: u(T) = period sqrt(2/12).

    Raises:
        EnergyError: ``sensor_frozen`` where the counter did not move, ``counter_reset`` where it went back.
    """
    if final_j < begin_j:
        raise EnergyError("counter_reset", "the energy counter went backwards: reset, or the driver was reloaded")
    if final_j == begin_j or not end_s > start_s:
        raise EnergyError("sensor_frozen", "the energy counter did not move in the window")
    power = (final_j - begin_j) / (end_s - start_s)
    relative = period_s / math.sqrt(6.0) / (end_s - start_s)
    return WindowPower(power, 2.0 * relative * power, start_s, end_s, updates, None)


def integrate_power(
    time_s: ArrayLike, power_w: ArrayLike, start_s: float, end_s: float, averaging_s: float, period_s: float
) -> WindowPower:
    """Mean power by the trapezoid rule over sensor updates.

    A reading that averages over the last ``averaging_s`` speaks of a moment half of that earlier, so the samples are
    shifted by it; only readings whose averaging lies inside [start, end] are used, so that the idle time around a load
    does not count. Repeats of one update are weighed by the time they hold. Random part: spread of the readings over the root of
    their independent number, and half a period at either end.

    Args:
        time_s: times of the polls, shape [n].
        power_w: readings, shape [n].
        start_s: start of the load.
        end_s: end of the load.
        averaging_s: averaging time of the sensor.
        period_s: update period of the sensor.

    Raises:
        EnergyError: ``no_edges`` where the window holds fewer than two updates, ``clock_jump`` where times go back.
    """
    t, p = _series(time_s, power_w)
    inside = (t - averaging_s - period_s >= start_s) & (t <= end_s)
    t, p = t[inside] - averaging_s / 2.0, p[inside]
    if t.size < 2:
        raise EnergyError("no_edges", f"{t.size} power readings of the load alone in the window: two are needed")
    length = float(t[-1] - t[0])
    mean = float(np.trapezoid(p, t)) / length
    if not mean > 0.0:
        raise EnergyError("sensor_frozen", "the power sensor reads 0 W under load")
    independent = max(2.0, min(float(t.size), length / max(averaging_s, period_s)))
    spread = float(np.std(p, ddof=1))
    quantile = float(stdtrit(independent - 1.0, 0.5 + CONFIDENCE / 2.0))
    ends = (float(p[-1]) - mean) ** 2 + (float(p[0]) - mean) ** 2
    random = math.sqrt((quantile * spread) ** 2 / independent + ends * (period_s / length) ** 2)
    third = t.size // 3
    drift = float(p[-third:].mean() / p[:third].mean()) - 1.0 if third >= 3 else None
    return WindowPower(mean, random, float(t[0]), float(t[-1]), int(t.size), drift)


def combine_trials(values: ArrayLike, within: ArrayLike, gain_relative: float = 0.0) -> Estimate:
    """Mean of trials: spread between them by Student's t, and their own half-widths; the sensor part aside.

    The spread already holds the random errors of the windows, so adding both is on the careful side; with one trial
    only its own half-width is known.

    Args:
        values: one per trial, shape [r].
        within: half-widths of the trials, shape [r].
        gain_relative: sensor uncertainty over the value.

    Raises:
        EnergyError: ``no_window`` without trials.
    """
    v, w = np.asarray(values, dtype=np.float64), np.asarray(within, dtype=np.float64)
    if v.size == 0 or v.shape != w.shape:
        raise EnergyError("no_window", "no valid window")
    own = float(np.sqrt(np.sum(w**2))) / v.size
    spread = 0.0
    if v.size > 1:
        quantile = float(stdtrit(v.size - 1, 0.5 + CONFIDENCE / 2.0))
        spread = quantile * float(np.std(v, ddof=1)) / math.sqrt(v.size)
    mean = float(v.mean())
    return Estimate(mean, math.hypot(own, spread), gain_relative * abs(mean))


def subtract_idle(gross: Estimate, idle_w: Estimate, seconds: float) -> Estimate:
    """Energy above idle: gross - P_idle x T. Random parts add in squares; the gain error is common to both readings.

    The sensor part is therefore that of the difference: the gain scales gross and idle alike.
    """
    value = gross.value - idle_w.value * seconds
    gain = gross.sensor / gross.value if gross.value else 0.0
    return Estimate(value, math.hypot(gross.random, idle_w.random * seconds), gain * abs(value))


def per_unit(energy: Estimate, amount: float | None) -> Estimate | None:
    """Joules per operation or per byte; ``None`` where there is no amount."""
    if amount is None or not (math.isfinite(amount) and amount > 0.0):
        return None
    return energy.scaled(1.0 / amount)


def delay_product(energy: Estimate, seconds: float, seconds_random: float = 0.0, power: int = 1) -> Estimate:
    """Energy-delay product E T^power in J.s^power, power 1 (EDP) or 2 (ED2P) (Gonzalez and Horowitz, JSSC 1996).

    Relative random parts add linearly, because energy is power times the same time.

    Raises:
        ValueError: for a time that is not positive.
    """
    if not seconds > 0.0:
        raise ValueError(f"time must be positive, not {seconds}")
    factor = seconds**power
    time_part = abs(energy.value) * factor * power * seconds_random / seconds
    return Estimate(energy.value * factor, energy.random * factor + time_part, energy.sensor * factor)


def longest_gap_s(time_s: Sequence[float]) -> float:
    """Longest time between neighbouring samples; 0 for fewer than two."""
    return max((b - a for a, b in pairwise(time_s)), default=0.0)


def _series(time_s: ArrayLike, values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    t, v = np.asarray(time_s, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if t.ndim != 1 or t.shape != v.shape:
        raise ValueError(f"times and values must be equally long, not {t.shape} and {v.shape}")
    if not (np.all(np.isfinite(t)) and np.all(np.isfinite(v))):
        raise EnergyError("not_a_number", "a sample is not finite")
    if np.any(np.diff(t) < 0.0):
        raise EnergyError("clock_jump", "the clock went backwards between samples")
    return t, v
