"""The linear part of an idealized runtime: what each point says of each constant, and the constants that fit best.

T(p, o, b) = trend(n, p) + deviation(p, b) + decode, with n = b p tokens in the prefill:

- trend = flat g(n) + pair n p, where g = (1 + (n / knee)^sharpness)^(1 / sharpness): flat while launches or weights
  bound the prefill, linear where arithmetic does, quadratic in the attention; sharpness 1 adds the first two, larger
  ones come near to their maximum;
- decode = step (o - 1) + sequence b (o - 1) + context b sum of the o - 1 contexts p + 1 .. p + o - 1;
- the deviation is what the trend misses (tiles, cache sizes, other kernels): Gaussian, proportional to the trend and
  correlated over ln p and ln b, so that close prompts deviate alike.

No constant is negative. For a given knee and sharpness the rest is linear: non-negative generalised least squares.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

Column = NDArray[np.float64]

DEVIATION = 0.05
"""Assumed standard deviation of the prefill around its trend, relative. It weighs trend against deviation; the width
of intervals is calibrated on left-out points and hardly depends on it."""
LENGTH = 1.0
"""Distance in ln p over which deviations of the prefill lose their likeness."""
SHARPNESS = (2.0, 4.0, 8.0, 32.0)
KNEES = 9
"""Tried over all prompts, and again between the neighbours of the best."""
KNEE_PENALTY = 4.0
"""By how much a knee, two constants more, has to lower the weighted sum of squares (Akaike: 2 for each)."""
CONTEXT_SPREAD = 1.5
"""Ratio of mean contexts from which a growth of the step with the context is told from its constant part."""


@dataclass(frozen=True)
class Columns:
    """(p, o, b) of several requests as float64 columns."""

    p: Column
    o: Column
    b: Column

    @classmethod
    def of(cls, p: Any, o: Any, b: Any) -> Columns:
        """From numbers or columns of one length."""
        p, o, b = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (p, o, b)))
        return cls(np.atleast_1d(p), np.atleast_1d(o), np.atleast_1d(b))

    @property
    def tokens(self) -> Column:
        """Tokens of the prefill."""
        return self.b * self.p

    @property
    def contexts(self) -> Column:
        """Sum over the decode steps of the tokens each attends to, over all sequences."""
        return self.b * ((self.o - 1.0) * self.p + self.o * (self.o - 1.0) / 2.0)


@dataclass(frozen=True)
class Shape:
    """Which constants there are, and the two that are not linear."""

    sharpness: float = 1.0
    knee: float = 1.0
    """Tokens at which linear work equals the flat part; only where ``sharpness`` exceeds 1."""
    linear: bool = True
    """Whether the prompt lengths tell a part linear in the tokens."""
    pair: bool = False
    step: bool = False
    sequence: bool = False
    context: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the constants, in the order of the design's columns."""
        trend = ["flat"] + (["token"] if self.linear and self.sharpness == 1.0 else []) + ["pair"] * self.pair
        return (*trend, *["step"] * self.step, *["sequence"] * self.sequence, *["context"] * self.context)

    def trend_design(self, x: Columns) -> Column:
        """[points, trend constants]."""
        n = x.tokens
        columns = [np.ones_like(n)]
        if self.linear and self.sharpness == 1.0:
            columns.append(n)
        elif self.linear:
            columns = [np.exp(np.logaddexp(0.0, self.sharpness * np.log(n / self.knee)) / self.sharpness)]
        if self.pair:
            columns.append(n * x.p)
        return np.stack(columns, axis=1)

    def decode_design(self, x: Columns) -> Column:
        """[points, constants of the decode steps]."""
        columns = [x.o - 1.0] * self.step + [x.b * (x.o - 1.0)] * self.sequence + [x.contexts] * self.context
        return np.stack(columns, axis=1) if columns else np.empty((len(x.p), 0))

    def design(self, x: Columns) -> Column:
        """[points, constants]."""
        return np.concatenate((self.trend_design(x), self.decode_design(x)), axis=1)


def correlation(x: Columns, y: Columns) -> Column:
    """[len(x), len(y)]: how alike the prefills of two requests deviate from the trend."""
    far = np.abs(np.log(x.p[:, None] / y.p[None])) + np.abs(np.log(x.b[:, None] / y.b[None]))
    return np.exp(-far / LENGTH)


@dataclass(frozen=True)
class Solution:
    """Constants of one shape, and what is needed to predict with their uncertainty."""

    shape: Shape
    x: Columns
    constants: Column
    scale: Column
    """Standard deviation of each point's prefill around the trend."""
    lower: Column
    """Cholesky factor of the points' covariance."""
    residual: Column
    """lower^-1 (value - design constants)."""
    objective: float
    """Weighted sum of squares."""

    def trend(self, x: Columns) -> Column:
        """The prefill's trend."""
        design = self.shape.trend_design(x)
        return np.asarray(design @ self.constants[: design.shape[1]])

    def decode(self, x: Columns) -> Column:
        """Time of the generated tokens after the first."""
        design = self.shape.decode_design(x)
        return np.asarray(design @ self.constants[len(self.constants) - design.shape[1] :])

    def _covariance(self, x: Columns) -> Column:
        """[points, len(x)]: covariance of the points with the prefills of ``x``."""
        return self.scale[:, None] * correlation(self.x, x) * (DEVIATION * self.trend(x))[None]

    def deviation(self, x: Columns) -> Column:
        """Expected deviation of the prefills from the trend, given the points."""
        weights = solve_triangular(self.lower, self._covariance(x), lower=True)
        return np.asarray(weights.T @ self.residual)

    def standard_deviation(self, x: Columns) -> Column:
        """Of the response at ``x``, without noise, by universal kriging (Cressie, "Statistics for Spatial Data",
        1993)."""
        active = self.constants > 0.0
        if not active.any():
            active = np.ones_like(active)
        weights = solve_triangular(self.lower, self._covariance(x), lower=True)
        design = solve_triangular(self.lower, self.shape.design(self.x)[:, active], lower=True)
        unknown = self.shape.design(x)[:, active] - weights.T @ design
        information = np.linalg.pinv(design.T @ design, hermitian=True)
        of_constants = np.einsum("ij,jk,ik->i", unknown, information, unknown)
        of_deviation = (DEVIATION * self.trend(x)) ** 2 - np.sum(weights**2, axis=0)
        return np.asarray(np.sqrt(np.maximum(of_deviation, 0.0) + np.maximum(of_constants, 0.0)))


def identified(x: Columns) -> Shape:
    """The constants that the points can tell apart, with sharpness 1."""
    n = np.unique(x.tokens)
    later = x.o > 1.0
    mean_context = x.contexts[later] / (x.b[later] * (x.o[later] - 1.0))
    grows = later.sum() >= 2 and mean_context.max() >= CONTEXT_SPREAD * mean_context.min()
    batches = len(np.unique(x.b[later])) > 1
    quadratic = min(len(n), len(np.unique(x.p))) >= 4
    return Shape(linear=len(n) >= 2, pair=quadratic, step=bool(later.any()), sequence=batches, context=bool(grows))


def solve(shape: Shape, x: Columns, values: Column, noise: float) -> Solution:
    """The constants of ``shape``, in two passes: the deviations are proportional to a trend that has to be found."""
    design = shape.design(x)
    constants = _non_negative(design / values[:, None], np.ones_like(values))
    k = shape.trend_design(x).shape[1]
    scale = DEVIATION * (design[:, :k] @ constants[:k])
    covariance = np.diag((noise * values) ** 2) + np.outer(scale, scale) * correlation(x, x)
    lower = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
    white = solve_triangular(lower, np.column_stack((design, values)), lower=True)
    constants = _non_negative(white[:, :-1], white[:, -1])
    residual = white[:, -1] - white[:, :-1] @ constants
    return Solution(shape, x, constants, scale, lower, residual, float(residual @ residual))


def best(x: Columns, values: Column, noise: float) -> Solution:
    """The solution of the shape that fits best: the plain sum, or where there are enough prompts one with a knee.

    All are weighed by the covariance of the first.
    """
    plain = identified(x)
    solution = solve(plain, x, values, noise)
    n = np.unique(x.tokens)
    if len(n) < 3:
        return solution
    inverse = np.linalg.inv(solution.lower)
    white_values = inverse @ values

    def objective(shape: Shape) -> float:
        white = inverse @ shape.design(x)
        residual = white_values - white @ _non_negative(white, white_values)
        return float(residual @ residual)

    def with_knee(sharpness: float, knee: float) -> tuple[float, Shape]:
        shape = replace(plain, sharpness=sharpness, knee=float(knee))
        return objective(shape), shape

    knees = np.geomspace(n[0] * 1.01, n[-1], KNEES)
    _, coarse = min((with_knee(s, k) for s in SHARPNESS for k in knees), key=_first)
    step = knees[1] / knees[0]
    between = np.geomspace(coarse.knee / step, coarse.knee * step, KNEES)
    least, chosen = min((with_knee(s, k) for s in SHARPNESS for k in between), key=_first)
    return solve(chosen, x, values, noise) if least + KNEE_PENALTY < solution.objective else solution


def _non_negative(design: Column, values: Column) -> Column:
    """Least squares without negative constants; columns are brought to one length, as their units differ by 1e9."""
    lengths = np.linalg.norm(design, axis=0)
    constants, _ = nnls(design / lengths, values)
    return np.asarray(constants / lengths)


def _first(scored: tuple[float, Shape]) -> float:
    return scored[0]
