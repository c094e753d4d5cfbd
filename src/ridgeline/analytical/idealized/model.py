"""The idealized runtime: fit, prediction, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ridgeline.analytical.idealized.design import Column, Columns, Solution, best, identified
from ridgeline.analytical.idealized.points import RESPONSES, IdealizedError, Point, Statistic, relative_noise

ASSUMED_NOISE = 0.01
"""Relative noise of points without repeated trials. Left-out points cannot tell it from the deviation of the prefill;
with 1 % the 90 % intervals from 8 single requests of each A100 log covered 92 to 100 % of the others."""
ASSUMED_SCORES = 2.0
"""Left-out points that the assumed deviation counts for."""
FEWEST_LEFT_OUT = 3
"""Left-out points from which an interval is calibrated."""
TIED = 1e-6
"""Relative distance below which two trends are one knot."""


@dataclass(frozen=True)
class Estimate:
    """What is expected of requests; float64 columns."""

    value: Column
    low: Column | None
    high: Column | None
    """Ends of the interval that holds a new measurement with ``confidence``; ``None`` where it is not known."""
    confidence: float
    extrapolated: Column
    """Whether the prompt, or the last context, lies outside of what was measured."""
    reason: str = ""
    """Why there is no interval."""


@dataclass(frozen=True)
class LeftOut:
    """A point as the others predict it."""

    point: Point
    value: float
    predicted: float | None
    """``None`` where the others tell too little."""
    score: float | None
    """ln(value / predicted) over its standard deviation."""

    @property
    def error(self) -> float | None:
        """Predicted over measured, less one."""
        return None if self.predicted is None else self.predicted / self.value - 1.0


@dataclass(frozen=True)
class IdealizedRuntime:
    """A fitted T(p, o, b), made by :func:`fit_runtime`."""

    response: str
    """One of :data:`~ridgeline.analytical.idealized.points.RESPONSES`."""
    statistic: Statistic
    overhead: float
    """Constant part of every request that was known beforehand."""
    points: tuple[Point, ...]
    solution: Solution
    noise: float
    """Relative standard deviation of a point."""
    knots: Column
    """[2, n]: trend and prefill, both increasing: the map from one to the other."""
    left_out: tuple[LeftOut, ...] = field(default=())

    @property
    def constants(self) -> dict[str, float]:
        """The constants by name, in the response's unit: of the whole prefill (flat), per token, per token and prompt
        token (pair), per decode step (step), per step and sequence, per step and context token. A knee is given in
        tokens."""
        s = self.solution
        found = dict(zip(s.shape.names, (float(c) for c in s.constants), strict=True))
        if s.shape.linear and s.shape.sharpness != 1.0:
            found |= {"knee_tokens": s.shape.knee, "sharpness": s.shape.sharpness}
        return found

    def prompt(self, p: Any, b: Any = 1) -> Column:
        """alpha(p): the response of a request that yields one token, without overhead. Grows with p.

        Raises:
            IdealizedError: for a prompt or a batch that the points say nothing of.
        """
        x = self._columns(p, 1, b)
        trend = self.solution.trend(x)
        knots, values = self.knots
        # Straight between knots: over the steps of real prefills (tiles) a cubic's median error was 3.2 %, this one's
        # 3.0 %, with the trend as the axis; on the axis of p it was 3.4 % (published A100 runtimes, one left out).
        # Outside of the knots alpha follows the trend from the nearest one.
        inside = np.clip(trend, knots[0], knots[-1])
        outside = np.divide(trend, inside, out=np.ones_like(trend), where=inside > 0.0)
        return np.asarray(np.interp(inside, knots, values) * outside)

    def step(self, context: Any, b: Any = 1) -> Column:
        """beta(context): the response of one generated token that attends to ``context`` tokens in each sequence.

        Raises:
            IdealizedError: where no point generated a second token, or for a batch that the points say nothing of.
        """
        self._columns(1, 2, b)
        context = np.asarray(context, dtype=np.float64)
        if not np.all(context >= 1.0):
            raise IdealizedError(f"context={np.min(context):g}: must be at least 1")
        return self.solution.decode(Columns.of(context - 1.0, 2, b))

    def predict(self, p: Any, o: Any, b: Any = 1, confidence: float = 0.9) -> Estimate:
        """Expected response of requests, with the interval that holds a new measurement.

        Args:
            p: prompt tokens, at least 1; a number or a column.
            o: generated tokens, at least 1.
            b: requests at once; another batch than the fitted needs points of at least two.
            confidence: of the interval.

        Raises:
            IdealizedError: where the points say nothing of such requests.
        """
        x = self._columns(p, o, b)
        value = self._value(x)
        measured = Columns.of(*_axes(self.points))
        outside = (x.p < measured.p.min()) | (x.p > measured.p.max())
        outside |= (x.p + x.o) > max((measured.p + measured.o).max(), measured.p.max() + 1.0)
        scores = [point.score for point in self.left_out if point.score is not None]
        if len(scores) < FEWEST_LEFT_OUT:
            reason = f"{len(scores)} of {len(self.points)} points can be left out; an interval needs {FEWEST_LEFT_OUT}"
            return Estimate(value, None, None, confidence, outside, reason)
        # Some scores of 1 stand for what was assumed, so that few lucky points do not make an interval of no width.
        # The noise does not shrink with them: they do not tell it from the deviation of the prefill.
        spread = (ASSUMED_SCORES + math.fsum(s * s for s in scores)) / (ASSUMED_SCORES + len(scores))
        of_model = spread * (self.solution.standard_deviation(x) / value) ** 2
        quantile = float(stdtrit(len(scores), (1.0 + confidence) / 2.0))
        half = quantile * np.sqrt(of_model + max(spread, 1.0) * self.noise**2)
        return Estimate(value, value * np.exp(-half), value * np.exp(half), confidence, outside)

    def _value(self, x: Columns) -> Column:
        return self.overhead + self.prompt(x.p, x.b) + self.solution.decode(x)

    def _columns(self, p: Any, o: Any, b: Any) -> Columns:
        """The requests as columns, if the fit can speak of them."""
        x = Columns.of(p, o, b)
        shape = self.solution.shape
        for name, column in (("p", x.p), ("o", x.o), ("b", x.b)):
            if not np.all(np.isfinite(column)) or column.min() < 1.0:
                raise IdealizedError(f"{name}={column.min():g}: must be at least 1")
        if not shape.step and x.o.max() > 1.0:
            raise IdealizedError("no point generated more than one token: measure one with o > 1")
        known = np.unique([point.b for point in self.points])
        if not (shape.sequence or (len(known) > 1 and not shape.step)) and not np.isin(x.b, known).all():
            raise IdealizedError(
                f"measured at batch {', '.join(map(str, known))} only: measure o > 1 at a second one to predict b={x.b.max():g}"
            )
        if not shape.linear:
            tokens = {point.p * point.b for point in self.points}
            if not np.isin(x.tokens, list(tokens)).all():
                raise IdealizedError(f"measured with p={self.points[0].p} only: measure a second prompt length")
        return x

    def residuals(self) -> Column:
        """Fitted over measured, less one, at each point."""
        return self._value(Columns.of(*_axes(self.points))) / _values(self.points, self.statistic) - 1.0

    @property
    def r_squared(self) -> float | None:
        """Share of the variance of the points that the fit explains; ``None`` where they do not vary."""
        values = _values(self.points, self.statistic)
        total = float(np.sum((values - values.mean()) ** 2))
        if total == 0.0:
            return None
        return 1.0 - float(np.sum((self.residuals() * values) ** 2)) / total


def _axes(points: Sequence[Point]) -> tuple[list[int], list[int], list[int]]:
    return [q.p for q in points], [q.o for q in points], [q.b for q in points]


def _values(points: Sequence[Point], statistic: Statistic) -> Column:
    return np.array([point.value(statistic) for point in points])


def fit_runtime(
    points: Sequence[Point],
    *,
    response: str = "seconds",
    statistic: Statistic = "median",
    overhead: float = 0.0,
    noise: float | None = None,
    leave_out: bool = True,
) -> IdealizedRuntime:
    """Fit T(p, o, b) to measured points.

    Args:
        points: each (p, o, b) once, with its trials.
        response: what was measured.
        statistic: of the trials: ``minimum`` gives the denoised runtime, from which contention is removed.
        overhead: constant part of every request that is known beforehand, such as a network's round trip; the points
            alone do not tell it from the flat part of the prefill.
        noise: relative standard deviation of a point; without it, from the spread of the trials.
        leave_out: whether to predict each point from the others, which intervals need.

    Raises:
        IdealizedError: where the points do not tell the constants.
    """
    if response not in RESPONSES:
        raise IdealizedError(f"response {response!r}: one of {', '.join(RESPONSES)}")
    ordered = tuple(sorted(points, key=lambda q: (q.b, q.p, q.o)))
    _check(ordered, statistic, overhead)
    told = relative_noise(ordered, statistic) if noise is None else noise
    known = ASSUMED_NOISE if told is None else told
    fitted = _fit(ordered, response, statistic, overhead, known)
    if not leave_out:
        return fitted
    left_out = tuple(_leave_out(ordered, index, fitted) for index in range(len(ordered)))
    return replace(fitted, left_out=left_out)


def _check(points: Sequence[Point], statistic: Statistic, overhead: float) -> None:
    if not points:
        raise IdealizedError("no points to fit")
    if len({(q.p, q.o, q.b) for q in points}) != len(points):
        raise IdealizedError("a (p, o, b) is there twice: give its values as trials of one point")
    x = Columns.of(*_axes(points))
    if x.o.min() == x.o.max() and x.o.max() > 1.0:
        raise IdealizedError(
            f"every point has o={int(x.o.max())}: measure some with o=1, so that the prompt is told from the steps"
        )
    if not (math.isfinite(overhead) and overhead >= 0.0):
        raise IdealizedError(f"overhead {overhead!r}: must be a number of at least 0")
    for point in points:
        if point.value(statistic) <= overhead:
            raise IdealizedError(
                f"p={point.p} o={point.o}: {point.value(statistic):g} is not above the overhead of {overhead:g}"
            )
    shape = identified(x)
    needed = len(shape.names) - shape.pair - shape.context
    if len(points) < needed:
        raise IdealizedError(f"{len(points)} points for {needed} constants: measure more")
    if np.linalg.matrix_rank(shape.design(x)[:, [n not in ("pair", "context") for n in shape.names]]) < needed:
        raise IdealizedError("the points vary p, o and b together: vary each while the others stay")


def _fit(
    points: Sequence[Point], response: str, statistic: Statistic, overhead: float, noise: float
) -> IdealizedRuntime:
    x = Columns.of(*_axes(points))
    solution = best(x, _values(points, statistic) - overhead, noise)
    return IdealizedRuntime(response, statistic, overhead, tuple(points), solution, noise, _knots(solution))


def _knots(solution: Solution) -> Column:
    """The increasing map from trend to prefill, through the prefills as the points tell them."""
    measured = sorted({(p, b) for p, b in zip(solution.x.p, solution.x.b, strict=True)})
    x = Columns.of([p for p, _ in measured], 1, [b for _, b in measured])
    trend = solution.trend(x)
    prefill = np.maximum(trend + solution.deviation(x), 0.0)
    order = np.argsort(trend, kind="stable")
    groups: list[list[float]] = []  # trend, sum of prefills, count
    for index in order:
        if groups and trend[index] <= groups[-1][0] * (1.0 + TIED):
            groups[-1][1] += prefill[index]
            groups[-1][2] += 1.0
        else:
            groups.append([trend[index], prefill[index], 1.0])
    pooled: list[list[float]] = []  # sum, count, knots: neighbours that fall are pooled into their mean
    for _, total, count in groups:
        pooled.append([total, count, 1.0])
        while len(pooled) > 1 and pooled[-2][0] / pooled[-2][1] > pooled[-1][0] / pooled[-1][1]:
            last = pooled.pop()
            pooled[-1] = [a + b for a, b in zip(pooled[-1], last, strict=True)]
    values = [total / count for total, count, knots in pooled for _ in range(int(knots))]
    return np.array([[group[0] for group in groups], values])


def _leave_out(points: Sequence[Point], index: int, whole: IdealizedRuntime) -> LeftOut:
    point = points[index]
    others = [other for number, other in enumerate(points) if number != index]
    value = point.value(whole.statistic)
    try:
        _check(others, whole.statistic, whole.overhead)
        fitted = _fit(others, whole.response, whole.statistic, whole.overhead, whole.noise)
        x = fitted._columns(point.p, point.o, point.b)
    except IdealizedError:
        return LeftOut(point, value, None, None)
    if set(_kinds(whole)) - set(_kinds(fitted)):
        # Without this point a constant is not told at all, as the growth with the context by the only long prompt.
        return LeftOut(point, value, None, None)
    predicted = float(fitted._value(x)[0])
    relative = math.hypot(float(fitted.solution.standard_deviation(x)[0]) / predicted, fitted.noise)
    return LeftOut(point, value, predicted, math.log(value / predicted) / relative)


def _kinds(runtime: IdealizedRuntime) -> tuple[str, ...]:
    """Constants but those of the trend's form, which another knee replaces."""
    return tuple(name for name in runtime.solution.shape.names if name not in ("flat", "token", "pair"))
