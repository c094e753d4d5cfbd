"""Prediction on hardware that nobody measured: constants carried over from other devices, with the spread that they showed
on devices left out.

Three constants of each measured device are averaged in logarithms, first over the devices of an architecture, then over
architectures: near twins (H100 and H200) count once. For a family whose kernels depend on how full the device is (decode
attention: sequences x KV heads against multiprocessors), boosting on shapes in units of the device is added; it learns from
the other devices only, each architecture with the same weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.calibration.inside import one_thread
from ridgeline.analytical.calibration.shapes import Rows
from ridgeline.analytical.calibration.spread import Spread, fit_spread
from ridgeline.analytical.calibration.three_parameters import ThreeParameters, fit_three_parameters
from ridgeline.analytical.device import Device

BOOSTED = ("attention decode", "attention prefill")
"""Families where boosting wins on left-out architectures. For GEMM it does not (median over groups 11.1 % against 10.8 %)."""

SOFTWARE = ("vllm", "sglang", "trtllm")
BOOST_FROM_S = 15e-6
"""Predicted seconds below which nothing is boosted: a launch-bound call says nothing of tiles and occupancy, and two thirds
of the decode tables are such."""
FEWEST_ARCHITECTURES = 2
"""Architectures of a vendor below which those of every vendor are learned from."""


@dataclass(frozen=True, kw_only=True)
class AcrossModel:
    """What other devices say of one that was not measured."""

    family: str
    constants: ThreeParameters
    boosting: Any = None
    """A fitted regressor of log(measured / three constants), or ``None``."""

    def predict(self, rows: Rows) -> Any:
        """Seconds of every row."""
        base = self.constants.seconds(rows.compute_s, rows.memory_s, rows.items)
        if self.boosting is None:
            return base
        long = base > BOOST_FROM_S
        correction = np.zeros(len(rows))
        if np.any(long):
            with one_thread():
                correction[long] = self.boosting.predict(_features(rows.take(long), base[long]))
        return base * np.exp(correction)


def mean_constants(
    constants: Mapping[str, ThreeParameters], devices: Mapping[str, Device], vendor: str
) -> ThreeParameters:
    """The constants' mean in logarithms, over architectures of the mean over each one's devices.

    What a call and an item cost is taken from ``vendor``'s devices, where :data:`FEWEST_ARCHITECTURES` of its architectures
    are there: it belongs to the runtime (B60 29 us, the others 2 to 5 us for a GEMM). Shares of the peaks are taken from all.

    Raises:
        ValueError: where there are none.
    """
    if not constants:
        raise ValueError("no device's constants to carry over")
    logs = {
        d: np.log([c.overhead_s, c.compute_share, c.memory_share, max(c.item_s, 1e-12)]) for d, c in constants.items()
    }

    def mean(of: Iterable[str]) -> Any:
        by_group: dict[str, list[Any]] = {}
        for device in of:
            by_group.setdefault(devices[device].architecture, []).append(logs[device])
        return np.exp(np.mean([np.mean(group, axis=0) for group in by_group.values()], axis=0))

    _, compute, memory, _ = (float(v) for v in mean(logs))
    overhead, _, _, item = (float(v) for v in mean(teachers(vendor, logs, devices)))
    item_s = item if any(c.item_s > 0.0 for c in constants.values()) else 0.0
    return ThreeParameters(overhead_s=overhead, compute_share=compute, memory_share=memory, item_s=item_s)


def fit_constants(rows: Mapping[str, Rows]) -> dict[str, ThreeParameters]:
    """Three constants of each device, over all its software."""
    return {d: fit_three_parameters(r.compute_s, r.memory_s, r.seconds, r.items) for d, r in rows.items()}


def fit_across(
    rows: Mapping[str, Rows],
    devices: Mapping[str, Device],
    vendor: str,
    *,
    constants: Mapping[str, ThreeParameters] | None = None,
    boosted: bool | None = None,
    iterations: int = 100,
    seed: int = 0,
) -> AcrossModel:
    """Learn from the devices in ``rows``, for one that is not among them.

    Args:
        rows: of one family, by device.
        devices: the same devices, with their vendor and architecture.
        vendor: of the device to be predicted.
        constants: of each device, where they were fitted before.
        boosted: whether to boost; by default for the families of :data:`BOOSTED`.
        iterations: trees.
        seed: of the trees.
    """
    family = next(iter(rows.values())).family
    fitted = constants or fit_constants(rows)
    mean = mean_constants({d: fitted[d] for d in rows}, devices, vendor)
    if not (family in BOOSTED if boosted is None else boosted):
        return AcrossModel(family=family, constants=mean)
    from sklearn.ensemble import HistGradientBoostingRegressor

    features, residuals, weights = [], [], []
    for device, own in rows.items():
        base = mean.seconds(own.compute_s, own.memory_s, own.items)
        own, base = own.take(base > BOOST_FROM_S), base[base > BOOST_FROM_S]
        twins = sum(devices[other].architecture == devices[device].architecture for other in rows)
        features.append(_features(own, base))
        residuals.append(np.log(own.seconds / base))
        weights.append(np.full(len(own), 1.0 / (len(own) * twins)))
    weight = np.concatenate(weights)
    regressor = HistGradientBoostingRegressor(
        max_iter=iterations, learning_rate=0.1, max_leaf_nodes=23, min_samples_leaf=40, l2_regularization=1.0,
        max_features=0.5, early_stopping=False, random_state=seed,
    )  # fmt: skip
    with one_thread():
        regressor.fit(np.concatenate(features), np.concatenate(residuals), sample_weight=weight / weight.mean())
    return AcrossModel(family=family, constants=mean, boosting=regressor)


def _features(rows: Rows, base: Any) -> Any:
    software = np.stack([rows.software == name for name in SOFTWARE], axis=1)
    return np.column_stack([rows.site, rows.load, rows.features, np.log(rows.bound_s), np.log(base), software])


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A device predicted from others, with intervals that were calibrated without it."""

    device: str
    group: str
    """What was left out with it."""
    predicted_s: Any
    low_s: Any
    high_s: Any
    spread: Spread
    """From the other groups only, each predicted without itself."""


def teachers(vendor: str, known: Iterable[str], devices: Mapping[str, Device]) -> list[str]:
    """Which of the ``known`` devices tell how a further one of ``vendor`` differs from its prediction: those of the vendor,
    where at least :data:`FEWEST_ARCHITECTURES` of their architectures are there, else all."""
    known = sorted(known)
    same = [d for d in known if devices[d].vendor == vendor]
    return same if len({devices[d].architecture for d in same}) >= FEWEST_ARCHITECTURES else known


def leave_out(
    rows: Mapping[str, Rows],
    devices: Mapping[str, Device],
    *,
    by: Mapping[str, str],
    confidence: float = 0.9,
    boosted: bool | None = None,
    iterations: int = 100,
) -> list[LeftOut]:
    """Predict each group of devices from others; intervals come from predictions of *those*, each left out in turn.

    For a device of one group, every other group is predicted by a model that has seen neither: neither the prediction nor
    its interval has seen the device.

    Args:
        rows: of one family, by device.
        devices: the same devices, with their vendor and architecture.
        by: the group of each device (its architecture, or itself).
        confidence: of the intervals.
        boosted, iterations: as :func:`fit_across`.
    """
    constants = fit_constants(rows)
    models: dict[tuple[frozenset[str], str], AcrossModel] = {}

    def predicted(kept: frozenset[str], device: str) -> Any:
        key = (kept, devices[device].vendor)
        if key not in models:
            own = {d: rows[d] for d in sorted(kept)}
            models[key] = fit_across(
                own, devices, key[1], constants=constants, boosted=boosted, iterations=iterations
            )
        return models[key].predict(rows[device])

    found = []
    for device in sorted(rows):
        known = [d for d in rows if by[d] != by[device]]
        parts = []
        for other in teachers(devices[device].vendor, known, devices):
            seconds = predicted(frozenset(d for d in known if by[d] != by[other]), other)
            parts.append((by[other], np.log(rows[other].seconds / seconds), seconds))
        spread = _pooled(parts)
        seconds = predicted(frozenset(known), device)
        low, high = spread.log_interval(seconds, confidence)
        found.append(
            LeftOut(
                device=device, group=by[device], predicted_s=seconds, low_s=seconds * np.exp(low),
                high_s=seconds * np.exp(high), spread=spread,
            )
        )  # fmt: skip
    return found


def _pooled(parts: Sequence[tuple[str, Any, Any]]) -> Spread:
    """The spread over groups, from (group, log ratio, predicted seconds) of each device."""
    return fit_spread(
        np.concatenate([p[1] for p in parts]),
        np.concatenate([p[2] for p in parts]),
        np.concatenate([np.full(len(p[1]), p[0]) for p in parts]),
        device_effect=True,
    )
