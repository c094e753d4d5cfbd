"""What an idealized runtime is fitted from: measured requests, their trials, and what is said of a request's time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

RESPONSES = ("seconds", "joules", "usd")
"""What may be fitted: time, energy or price of a request."""

NEIGHBOURS = 2
"""Steps on either side that a step is denoised with."""

FEWEST_DEGREES = 3
"""Degrees of freedom from which trials tell the noise."""
LEAST_NOISE = 1e-4

Statistic = Literal["median", "minimum"]


class IdealizedError(ValueError):
    """Points that cannot be fitted, or a request that the fit says nothing of. One line: what, where, what to do."""


@dataclass(frozen=True)
class Point:
    """One kind of request, as it was measured: a prompt of ``p`` tokens, ``o`` generated ones, ``b`` requests at once.

    ``o`` counts the token that the prefill yields, so ``o`` = 1 is the prefill alone and ``o`` - 1 steps follow.
    """

    p: int
    o: int
    b: int
    trials: tuple[float, ...]
    """The response of every trial: seconds, joules or USD; of all ``b`` requests together."""
    steps: tuple[tuple[float, ...], ...] = ()
    """Where they were timed, each trial's steps: the prefill, then every further token."""

    def __post_init__(self) -> None:
        for name in ("p", "o", "b"):
            if getattr(self, name) < 1:
                raise IdealizedError(f"{name}={getattr(self, name)}: must be at least 1")
        if not self.trials or not all(math.isfinite(t) and t > 0.0 for t in self.trials):
            raise IdealizedError(f"p={self.p} o={self.o}: needs trials, each a positive number")

    def value(self, statistic: Statistic) -> float:
        """The trials as one number; the minimum is that of each step, where the steps are known."""
        if statistic == "minimum":
            return denoised(self.steps) if self.steps else min(self.trials)
        return statistics.median(self.trials)

    def minima_without_one(self) -> list[float]:
        """The minimum without each of the trials, of which there are several."""
        if self.steps:
            return [denoised(self.steps[:k] + self.steps[k + 1 :]) for k in range(len(self.steps))]
        return [min(self.trials[:k] + self.trials[k + 1 :]) for k in range(len(self.trials))]


def relative_noise(points: Sequence[Point], statistic: Statistic) -> float | None:
    """Relative standard deviation of the points' values, from their trials; ``None`` where too few tell it.

    Of medians: the pooled spread of the trials over the root of their number; the median of three and more varies by
    up to sqrt(pi / 2) more than the mean. Of minima: by how much a value rises without its best trial, root mean square
    over the points; where delays are exponential, that is how far the minimum lies above its floor.
    """
    repeated = [point for point in points if len(point.trials) > 1]
    if statistic == "minimum":
        rises = [max(math.log(v / q.value("minimum")) for v in q.minima_without_one()) for q in repeated]
        squares, degrees, count = math.fsum(r * r for r in rises), len(rises), 1.0
    else:
        squares, degrees = 0.0, 0
        for point in repeated:
            logs = [math.log(t) for t in point.trials]
            squares += math.fsum((x - statistics.fmean(logs)) ** 2 for x in logs)
            degrees += len(logs) - 1
        count = statistics.fmean(len(point.trials) for point in points)
    if degrees < FEWEST_DEGREES:
        return None
    factor = math.pi / 2.0 if count >= 3.0 else 1.0
    return max(math.sqrt(squares / degrees / count * factor), LEAST_NOISE)


def points_from_rows(rows: Iterable[Mapping[str, Any]], response: str, origin: str) -> tuple[Point, ...]:
    """Points of rows with ``p``, ``o``, the response, and perhaps ``b`` (default 1); equal (p, o, b) are trials.

    Args:
        rows: numbers, or text as a CSV file has it. The first is called line 2, as below a header.
        response: one of :data:`RESPONSES`: the column that is read.
        origin: named in messages.

    Raises:
        IdealizedError: for a response or column that is not there, or a value that is no number of its kind.
    """
    if response not in RESPONSES:
        raise IdealizedError(f"response {response!r}: one of {', '.join(RESPONSES)}")
    trials: dict[tuple[int, int, int], list[float]] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{origin}: line {number}"
        p, o = _count(row, "p", where), _count(row, "o", where)
        b = _count(row, "b", where) if row.get("b") not in (None, "") else 1
        trials.setdefault((p, o, b), []).append(_positive(row, response, where))
    if not trials:
        raise IdealizedError(f"{origin}: no points: give rows of p, o and {response}")
    return tuple(Point(p, o, b, tuple(values)) for (p, o, b), values in sorted(trials.items()))


def _cell(row: Mapping[str, Any], name: str, where: str) -> Any:
    value = row.get(name)
    if value is None or value == "":
        known = ", ".join(str(key) for key in row if key is not None)
        raise IdealizedError(f"{where}: no value in column {name!r}; the columns are {known}")
    return value


def _count(row: Mapping[str, Any], name: str, where: str) -> int:
    value = _cell(row, name, where)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 1.0 and number == int(number)):
        raise IdealizedError(f"{where}: {name}={value!r}: must be a whole number of at least 1")
    return int(number)


def _positive(row: Mapping[str, Any], name: str, where: str) -> float:
    value = _cell(row, name, where)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0.0):
        raise IdealizedError(f"{where}: {name}={value!r}: must be a positive number")
    return number


def denoised(step_trials: Iterable[Iterable[float]]) -> float:
    """The runtime without contention, from trials of one request that were timed step by step.

    The paper takes the minimum over trials of the whole request. Contention comes and goes within a request, so where
    the steps are known each is replaced by the fastest of its own trials and, among generated tokens, of the
    :data:`NEIGHBOURS` on either side, whose cost differs by one token of context: the same estimate from fewer trials.

    Args:
        step_trials: for each trial, seconds of its steps: the prefill, then every generated token.

    Raises:
        IdealizedError: where there is no trial or trials differ in their number of steps.
    """
    trials = [tuple(trial) for trial in step_trials]
    if not trials or not trials[0] or len({len(trial) for trial in trials}) != 1:
        raise IdealizedError("denoising needs trials of one request, all with the same steps")
    fastest: list[float] = [min(step) for step in zip(*trials, strict=True)]
    prefill, steps = fastest[0], fastest[1:]
    near = (steps[max(0, i - NEIGHBOURS) : i + NEIGHBOURS + 1] for i in range(len(steps)))
    return prefill + math.fsum(min(window) for window in near)


def software_efficiency(ideal_s: float, measured_s: float) -> float:
    """Ideal over measured time: the share of the hardware that the software makes use of.

    Above 1 the measurement beats the bound: one of the two is wrong, and the number says so; it is not cut to 1.

    Raises:
        IdealizedError: where either is not a positive time.
    """
    for name, seconds in (("ideal", ideal_s), ("measured", measured_s)):
        if not (math.isfinite(seconds) and seconds > 0.0):
            raise IdealizedError(f"{name} time {seconds!r}: must be positive seconds")
    return ideal_s / measured_s


def usd_per_request(seconds: float, usd_per_device_hour: float, devices: int = 1, b: int = 1) -> float:
    """Cost of one request: time x devices x price, shared by the ``b`` that run together (the idealized cost of the paper).

    Raises:
        IdealizedError: for a price or a count that is not positive.
    """
    if not (math.isfinite(usd_per_device_hour) and usd_per_device_hour > 0.0 and devices >= 1 and b >= 1):
        raise IdealizedError(
            f"price {usd_per_device_hour!r} USD per hour, {devices} devices, batch {b}: all must be positive"
        )
    return seconds * devices * usd_per_device_hour / 3600.0 / b
