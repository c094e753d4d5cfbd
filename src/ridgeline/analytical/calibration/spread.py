"""How far the truth lies from a prediction: an effect of the device, the same for all its kernels, and one of the shape.

``log(measured / predicted) = centre + scale z + e``. ``z`` is one number of a device, Student-t with as many degrees of
freedom as devices were left out less one; ``e`` is what remains within a device, by size of the call. Both are taken from
predictions of devices (or sites) that the model had *not* seen. Pooling all residuals instead would weigh a device by its rows
and believe that a new one is as familiar as the old.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

GRID = np.array(
    [
        0.001,
        0.005,
        0.01,
        0.025,
        0.05,
        0.1,
        0.15,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
        0.7,
        0.8,
        0.85,
        0.9,
        0.95,
        0.975,
        0.99,
        0.995,
        0.999,
    ]
)
"""Probabilities at which the shape effect is kept."""
REGIMES: tuple[float, ...] = (20e-6, 50e-6, 1e-3)
"""Predicted seconds that part the regimes of the shape effect: launch-bound calls scatter otherwise than long ones."""
_FEWEST = 40
"""Rows of a regime below which the shape effect of all regimes together is used."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The distribution of log(measured / predicted)."""

    centre: tuple[float, ...]
    """Mean device effect, by regime; zero where the model is unbiased on what it has not seen."""
    scale: tuple[float, ...]
    """Scale of the device effect of a *further* device, by regime; zero inside a measured device."""
    freedom: float
    """Degrees of freedom of the device effect."""
    shape: tuple[tuple[float, ...], ...]
    """Quantiles of the shape effect at :data:`GRID`, by regime."""

    def log_interval(self, predicted_s: Any, confidence: float) -> tuple[Any, Any]:
        """Columns (low, high) of log(measured / predicted) that hold the truth with ``confidence``."""
        regime = np.digitize(np.asarray(predicted_s, dtype=np.float64), REGIMES)
        ends = np.array([self._ends(index, confidence) for index in range(len(self.shape))])
        return ends[regime, 0], ends[regime, 1]

    def _ends(self, regime: int, confidence: float) -> tuple[float, float]:
        shape = np.asarray(self.shape[regime])
        tail = (1.0 - confidence) / 2.0
        fine = np.interp((np.arange(400) + 0.5) / 400.0, GRID, shape)
        total = self.centre[regime] + fine
        if self.scale[regime] > 0.0:
            z = stdtrit(self.freedom, (np.arange(400) + 0.5) / 400.0)
            total = (total[:, None] + self.scale[regime] * z[None, :]).ravel()
        low, high = np.quantile(total, [tail, 1.0 - tail])
        return float(low), float(high)

    def factors(self, predicted_s: Any, z: Any, shape_probability: Any) -> Any:
        """Measured over predicted in each draw, float64 [draws, rows].

        Args:
            predicted_s: seconds, [rows].
            z: device effect of each draw, [draws]; the same one for every operator on a device.
            shape_probability: of each draw, [draws]: its shape effect is the same for all rows of a regime, as of a
                kernel that is called again and again; independent ones would average out over a model's layers.
        """
        regime = np.digitize(np.asarray(predicted_s, dtype=np.float64), REGIMES)
        shape = np.stack([np.interp(shape_probability, GRID, s) for s in self.shape], axis=1)  # [draws, regimes]
        effect = np.asarray(self.centre)[None, :] + np.asarray(self.scale)[None, :] * np.asarray(z)[:, None]
        return np.exp((effect + shape)[:, regime])


def fit_spread(log_ratio: Any, predicted_s: Any, groups: Any, *, device_effect: bool) -> Spread:
    """The spread of predictions of what the model had not seen.

    Args:
        log_ratio: log(measured / predicted) of left-out rows.
        predicted_s: their predictions.
        groups: what was left out together with each row: the device or architecture, or the site.
        device_effect: whether a group is a device, and the spread is asked for of a further one. A group weighs the
            same however many rows it has.

    Raises:
        ValueError: for fewer than two groups: nothing then says how a further one differs.
    """
    log_ratio, predicted = np.asarray(log_ratio, dtype=np.float64), np.asarray(predicted_s, dtype=np.float64)
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{len(names)} group: a spread over groups needs at least two")
    if not device_effect:
        regime = np.digitize(predicted, REGIMES)
        shape = _shape_by_regime(log_ratio, regime, np.ones(len(log_ratio)))
        zero = (0.0,) * (len(REGIMES) + 1)
        return Spread(centre=zero, scale=zero, freedom=float(len(names) - 1), shape=shape)
    regime = np.digitize(predicted, REGIMES)
    n_regimes = len(REGIMES) + 1
    overall = np.array([np.median(log_ratio[group == g]) for g in range(len(names))])
    remainder, centre, scale = log_ratio.copy(), [], []
    for r in range(n_regimes):
        effects = []
        for g in range(len(names)):
            mine = (group == g) & (regime == r)
            effect = float(np.median(log_ratio[mine])) if np.count_nonzero(mine) >= _FEWEST else float(overall[g])
            remainder[mine] -= effect
            effects.append(effect)
        centre.append(float(np.mean(effects)))
        # A further device is as far from the centre as these are, and the centre itself is known from a few only.
        scale.append(float(np.std(effects, ddof=1) * np.sqrt(1.0 + 1.0 / len(names))))
    counts = np.bincount(group)
    return Spread(
        centre=tuple(centre),
        scale=tuple(scale),
        freedom=float(len(names) - 1),
        shape=_shape_by_regime(remainder, regime, 1.0 / counts[group]),
    )


def _shape_by_regime(values: Any, regime: Any, weight: Any) -> tuple[tuple[float, ...], ...]:
    found = []
    for r in range(len(REGIMES) + 1):
        mine = regime == r
        if np.count_nonzero(mine) < _FEWEST:
            mine = np.ones(len(values), dtype=bool)
        found.append(tuple(_weighted_quantiles(values[mine], weight[mine])))
    return tuple(found)


def _weighted_quantiles(values: Any, weight: Any) -> Sequence[float]:
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weight[order])
    position = (cumulative - 0.5 * weight[order]) / cumulative[-1]
    return [float(v) for v in np.interp(GRID, position, values[order])]


def common_draws(devices: Sequence[str], draws: int, seed: int, freedom: float) -> dict[str, tuple[Any, Any]]:
    """(z, shape probability) of each device, [draws] each: the numbers every operator of the device is drawn with.

    The shape's probability is common to all devices: a shape that is awkward on one is awkward on the next, which is why
    ratios of devices err less than times do.
    """
    generator = np.random.default_rng(seed)
    shape = generator.uniform(size=draws)
    return {d: (stdtrit(freedom, generator.uniform(size=draws)), shape) for d in sorted(devices)}
