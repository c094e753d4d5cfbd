"""Prediction on hardware that nobody measured: constants carried over from other devices, with the spread that they showed
on devices left out.

The constants of each measured device are averaged in logarithms, first over the devices of an architecture, then over
architectures: near twins (H100 and H200) count once. Boosting on shapes in units of the device was tried on top and did not
win on left-out architectures: GEMM 11.1 % instead of 10.8 % (median over groups), decode attention 21 to 26 % instead of 20 %.
Nor did shares of the peaks from the vendor's own devices alone: GEMM 13.4 % instead of 13.2 %. The kind of main memory did:
kernels reach 66 to 80 % of HBM's bandwidth and 86 to 107 % of GDDR's (GEMM). Half of the memory's share is believed to be of its
kind and half of all: GEMM 10.5 %, prefill attention 22.8 instead of 28.0 %, decode attention 21.4 instead of 18.8 %, its 90th
percentile 74.4 instead of 74.8 %. From a third to two thirds, and the kind alone, keep GEMM under 11.4 %.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.calibration.shapes import Rows
from ridgeline.analytical.calibration.spread import Spread, fit_spread
from ridgeline.analytical.calibration.three_parameters import ThreeParameters, fit_three_parameters
from ridgeline.analytical.device import Device

FEWEST_ARCHITECTURES = 2
"""Architectures of a vendor below which those of every vendor are learned from."""
FEWEST_ROWS = 60
FOREIGN = 2.0
"""How much wider the device effect is taken for a vendor without any measured device. Assumed: one vendor's devices cannot
tell how far another's lie, and the one device of another vendor that was measured lay about twice as far."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What tells how a device that nobody measured differs from those that were; empty where nothing does."""

    vendor: str = ""
    memory: str = ""
    """Kind of its main memory: ``HBM``, ``GDDR``."""

    @classmethod
    def of(cls, device: Device) -> Target:
        """What ``device`` says of itself."""
        return cls(vendor=device.vendor, memory=device.main_memory.name)


Kinds = Mapping[str, ThreeParameters]
"""Constants by kind of kernel; that of all rows together under the empty name."""


def fit_constants(rows: Mapping[str, Rows]) -> dict[str, Kinds]:
    """Constants of each device, for each kind of kernel with at least :data:`FEWEST_ROWS` rows, and for all together."""
    found: dict[str, Kinds] = {}
    for device, own in rows.items():
        kinds = {"": _fit(own, "")}
        for name in np.unique(own.kernels.astype(str)):
            chosen = own.kernels == name
            if np.count_nonzero(chosen) >= FEWEST_ROWS:
                kinds[str(name)] = _fit(own.take(chosen), str(name))
        found[device] = kinds
    return found


def _fit(rows: Rows, kind: str) -> ThreeParameters:
    arithmetic_s, memory_s, items = rows.terms(kind)
    return fit_three_parameters(arithmetic_s, memory_s, rows.seconds, items)


def taught_vendors(known: Iterable[str], devices: Mapping[str, Device]) -> list[str]:
    """Vendors of whose devices at least :data:`FEWEST_ARCHITECTURES` architectures are among the ``known``."""
    architectures: dict[str, set[str]] = {}
    for device in known:
        architectures.setdefault(devices[device].vendor, set()).add(devices[device].architecture)
    return sorted(v for v, own in architectures.items() if len(own) >= FEWEST_ARCHITECTURES)


def teachers(vendor: str, known: Iterable[str], devices: Mapping[str, Device]) -> list[str]:
    """Which of the ``known`` devices tell how a further one of ``vendor`` differs from its prediction: those of the vendor,
    where it is one of the :func:`taught_vendors`, else all."""
    known = sorted(known)
    return [d for d in known if devices[d].vendor == vendor] if vendor in taught_vendors(known, devices) else known


def mean_constants(
    constants: Mapping[str, ThreeParameters], devices: Mapping[str, Device], target: Target
) -> ThreeParameters:
    """The constants' mean in logarithms, over architectures of the mean over each one's devices.

    What a call costs is taken from the target's vendor where its :func:`teachers` are its own: it belongs to the runtime (B60
    29 us, the others 2 to 5 us for a GEMM), and one device does not tell those of a vendor's other lines. What an item costs
    and the share of the arithmetic's peak are taken from all, the share of the memory's half from all and half from the
    devices with the same kind of memory.

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

    _, compute, memory, item = (float(v) for v in mean(logs))
    alike = [d for d in logs if devices[d].main_memory.name == target.memory]
    if alike:
        memory = float(np.sqrt(memory * mean(alike)[2]))
    overhead = float(mean(teachers(target.vendor, logs, devices))[0])
    item_s = item if any(c.item_s > 0.0 for c in constants.values()) else 0.0
    return ThreeParameters(overhead_s=overhead, compute_share=compute, memory_share=memory, item_s=item_s)


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


def leave_out(
    rows: Mapping[str, Rows], devices: Mapping[str, Device], *, by: Mapping[str, str], confidence: float = 0.9
) -> list[LeftOut]:
    """Predict each group of devices from others; intervals come from predictions of *those*, each left out in turn.

    For a device of one group, every other group is predicted by a model that has seen neither: neither the prediction nor
    its interval has seen the device.

    Args:
        rows: of one family, by device.
        devices: the same devices, with their vendor and architecture.
        by: the group of each device (its architecture, or itself).
        confidence: of the intervals.
    """
    constants = fit_constants(rows)
    found = []
    for device in sorted(rows):
        known = {d: constants[d] for d in rows if by[d] != by[device]}
        seconds = _predicted(known, rows[device], devices, Target.of(devices[device]))
        spread = carried_spread(rows, known, devices, devices[device].vendor, by=by)
        low, high = spread.log_interval(seconds, confidence)
        found.append(
            LeftOut(
                device=device, group=by[device], predicted_s=seconds, low_s=seconds * np.exp(low),
                high_s=seconds * np.exp(high), spread=spread,
            )
        )  # fmt: skip
    return found


def carried_spread(
    rows: Mapping[str, Rows],
    known: Mapping[str, Kinds],
    devices: Mapping[str, Device],
    vendor: str,
    *,
    by: Mapping[str, str],
) -> Spread:
    """How far a further device of ``vendor`` may lie from its prediction: each group of its :func:`teachers` left out in turn.

    Args:
        rows: of one family, by device; of those in ``known`` at least.
        known: constants of the devices that may be learned from.
        devices: the same devices.
        vendor: of the further device.
        by: the group of each device.
    """
    parts: list[tuple[str, Any, Any]] = []
    for other in teachers(vendor, known, devices):
        kept = {d: c for d, c in known.items() if by[d] != by[other]}
        seconds = _predicted(kept, rows[other], devices, Target.of(devices[other]))
        parts.append((by[other], np.log(rows[other].seconds / seconds), seconds))
    spread = _pooled(parts)
    if any(devices[d].vendor == vendor for d in known):
        return spread
    return dataclasses.replace(spread, scale=tuple(FOREIGN * s for s in spread.scale))


def _predicted(constants: Mapping[str, Kinds], rows: Rows, devices: Mapping[str, Device], target: Target) -> Any:
    seconds = np.empty(len(rows))
    for kind in np.unique(rows.kernels.astype(str)):
        own = rows.kernels == kind
        known = str(kind) if any(kind in kinds for kinds in constants.values()) else ""
        mean = carried_constants(constants, devices, target, known)
        seconds[own] = mean.seconds(*rows.take(own).terms(known))
    return seconds


def carried_constants(
    constants: Mapping[str, Kinds], devices: Mapping[str, Device], target: Target, kind: str
) -> ThreeParameters:
    """:func:`mean_constants` of a kind of kernel, empty for all together.

    Raises:
        ValueError: where no device has it.
    """
    return mean_constants({d: kinds[kind] for d, kinds in constants.items() if kind in kinds}, devices, target)


def _pooled(parts: Sequence[tuple[str, Any, Any]]) -> Spread:
    """The spread over groups, from (group, log ratio, predicted seconds) of each device."""
    return fit_spread(
        np.concatenate([p[1] for p in parts]),
        np.concatenate([p[2] for p in parts]),
        np.concatenate([np.full(len(p[1]), p[0]) for p in parts]),
        device_effect=True,
    )
