"""Uncertain inputs: distributions, and draws that are common to everything that shares an input.

Each input is drawn from a stream of its own name. So ``price of H100`` has the same draws whatever else stands in a
scenario, a device's effect is the same for all its layouts, and two options are compared under the same worlds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from ridgeline.analytical.serving.traffic import Floats, uniforms


class ChanceError(ValueError):
    """A distribution that cannot be. One line."""


@dataclass(frozen=True)
class Certain:
    """A number."""

    value: float

    @property
    def middle(self) -> float:
        """The number."""
        return self.value

    def quantile(self, u: Floats) -> Floats:
        """The number, as often as asked."""
        return np.full(len(u), self.value)


@dataclass(frozen=True)
class Triangular:
    """Between ``low`` and ``high``, most likely ``mode``."""

    low: float
    mode: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.mode <= self.high or self.low == self.high:
            raise ChanceError(
                f"needs low <= mode <= high and low < high, not {self.low:g}, {self.mode:g}, {self.high:g}"
            )

    @property
    def middle(self) -> float:
        """The median."""
        return float(self.quantile(np.asarray([0.5]))[0])

    def quantile(self, u: Floats) -> Floats:
        """Inverse of the distribution function."""
        width = self.high - self.low
        rising = self.low + np.sqrt(u * width * (self.mode - self.low))
        falling = self.high - np.sqrt((1.0 - u) * width * (self.high - self.mode))
        return np.where(u * width < self.mode - self.low, rising, falling)


@dataclass(frozen=True)
class Lognormal:
    """A median and the standard deviation of the logarithm."""

    median: float
    sigma: float

    def __post_init__(self) -> None:
        if not (self.median > 0.0 and self.sigma > 0.0):
            raise ChanceError(f"needs a positive median and sigma, not {self.median:g}, {self.sigma:g}")

    @property
    def middle(self) -> float:
        """The median."""
        return self.median

    def quantile(self, u: Floats) -> Floats:
        """Inverse of the distribution function."""
        return self.median * np.exp(self.sigma * ndtri(u))


Chance = Certain | Triangular | Lognormal


def parse_chance(value: Any, *, least: float = 0.0, most: float = math.inf) -> Chance:
    """A number, ``{low, mode, high}`` or ``{median, sigma}``, all of it from ``least`` to ``most``.

    Raises:
        ChanceError: for anything else.
    """
    chance: Chance
    if isinstance(value, bool):
        raise ChanceError("needs a number, {low, mode, high} or {median, sigma}")
    if isinstance(value, int | float):
        chance = Certain(float(value))
    elif isinstance(value, dict) and set(value) == {"low", "mode", "high"} and _numbers(value):
        chance = Triangular(float(value["low"]), float(value["mode"]), float(value["high"]))
    elif isinstance(value, dict) and set(value) == {"median", "sigma"} and _numbers(value):
        chance = Lognormal(float(value["median"]), float(value["sigma"]))
    else:
        raise ChanceError("needs a number, {low, mode, high} or {median, sigma}")
    ends = (chance.low, chance.high) if isinstance(chance, Triangular) else (chance.middle, chance.middle)
    if not all(math.isfinite(end) and least <= end <= most for end in ends):
        raise ChanceError(f"must lie from {least:g} to {most:g}")
    return chance


def _numbers(values: dict[str, Any]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values.values())


class Draws:
    """Draws of named inputs, made when first asked for."""

    def __init__(self, seed: int, count: int) -> None:
        self.seed = seed
        self.count = count
        self.used: dict[str, Floats] = {}
        """Uniform numbers of every uncertain input that was asked for: where each draw lies in its distribution."""

    def __call__(self, name: str, chance: Chance) -> Floats:
        """``count`` draws of the input ``name``."""
        if isinstance(chance, Certain):
            return chance.quantile(np.empty(self.count))
        if name not in self.used:
            self.used[name] = uniforms(self.seed, name, self.count)
        return chance.quantile(self.used[name])
