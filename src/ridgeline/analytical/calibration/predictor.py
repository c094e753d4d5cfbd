"""Predictions with the evidence they rest on: constants of this device where it was measured, else of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.calibration.constants import Constants, Fitted, Transferred, shipped
from ridgeline.analytical.calibration.shapes import limits_of
from ridgeline.analytical.calibration.spread import Spread, common_draws
from ridgeline.analytical.calibration.three_parameters import ThreeParameters
from ridgeline.analytical.device import Device
from ridgeline.analytical.prediction import Prediction, Tier


class PredictionError(ValueError):
    """A prediction that nothing supports. One line."""


@dataclass(frozen=True, kw_only=True)
class _Evidence:
    constants: ThreeParameters
    spread: Spread
    tier: Tier


@dataclass(frozen=True)
class Predictor:
    """Predicts kernels of the calibrated families; needs no public table.

    Args:
        constants: by default those that ship.
    """

    constants: Constants

    @classmethod
    def from_shipped(cls) -> Predictor:
        """With the constants of this version."""
        return cls(shipped())

    def predict(
        self,
        family: str,
        device: Device,
        shapes: Mapping[str, Any],
        precision: str = "bfloat16",
        bound_s: Any = None,
        *,
        software: str | None = None,
        confidence: float = 0.9,
    ) -> Prediction:
        """Seconds of one call for every row of ``shapes``.

        Args:
            family: ``gemm``, ``attention prefill`` or ``attention decode``.
            device: with its ceilings.
            shapes: sizes as numbers or float64 columns: ``m, n, k``; or ``batch, q_heads, kv_heads, q_length, kv_length,
                head_dim, window`` (0: none).
            precision: constants are of bfloat16; in another one the shares of its own peak are taken to be the same, and
                the prediction counts as transferred.
            bound_s: the bound, where the caller has one of the same work; computed without.
            software: ``vllm``, ``sglang`` or ``trtllm``; without, the geometric mean of those measured.
            confidence: of the interval.

        Raises:
            PredictionError: for a family without constants.
            LimitError: where the device lacks the precision.
        """
        evidence = self._evidence(family, device, precision, software)
        terms, _, _ = limits_of(family, shapes, device, precision)
        items = 0.0
        if family != "gemm":
            items = np.asarray(shapes["batch"], dtype=np.float64) * shapes["kv_heads"] / float(device.unit_count or 1)
        seconds = evidence.constants.seconds(terms.of("unit"), terms.of("memory"), items)
        bound = terms.overlapped_s if bound_s is None else bound_s
        low, high = evidence.spread.log_interval(seconds, confidence)
        # Nothing is faster than its bound: where the interval would reach below, it ends there.
        return Prediction(
            seconds=np.maximum(seconds, bound)[()], low_s=np.maximum(seconds * np.exp(low), bound)[()],
            high_s=np.maximum(seconds * np.exp(high), bound)[()], confidence=confidence, tier=evidence.tier, bound_s=bound,
        )  # fmt: skip

    def draws(
        self,
        family: str,
        device: Device,
        prediction: Prediction,
        draws: int,
        seed: int,
        *,
        precision: str = "bfloat16",
        software: str | None = None,
    ) -> Any:
        """Seconds in each of ``draws`` worlds, float64 [draws, rows]. With one seed, a world gives a device the same effect in
        every family, and shapes the same luck on every device: ratios of candidates keep their small error."""
        evidence = self._evidence(family, device, precision, software)
        z, shape = common_draws([device.id], draws, _seed_of(device.id, seed), evidence.spread.freedom)[device.id]
        shape = np.random.default_rng(seed).uniform(size=draws)
        seconds = np.atleast_1d(np.asarray(prediction.seconds, dtype=np.float64))
        return np.maximum(seconds * evidence.spread.factors(seconds, z, shape), np.atleast_1d(prediction.bound_s))

    def _evidence(self, family: str, device: Device, precision: str, software: str | None) -> _Evidence:
        own = [f for f in self.constants.fitted if (f.device, f.family) == (device.id, family)]
        own = [f for f in own if software in (None, f.software)]
        if own:
            exact = all(f.precision == precision for f in own)
            return _Evidence(
                constants=_mean(own), spread=max((f.spread for f in own), key=_width),
                tier="fitted" if exact else "transferred",
            )  # fmt: skip
        carried = self._carried(family, device)
        return _Evidence(constants=carried.constants, spread=carried.spread, tier="transferred")

    def _carried(self, family: str, device: Device) -> Transferred:
        of_family = [t for t in self.constants.transferred if t.family == family]
        for vendor in (device.vendor, ""):
            for each in of_family:
                if each.vendor == vendor:
                    return each
        known = sorted({t.family for t in self.constants.transferred})
        raise PredictionError(f"no constants for {family!r}: one of {', '.join(known)}")


def _mean(fitted: list[Fitted]) -> ThreeParameters:
    logs = [
        np.log([c.overhead_s, c.compute_share, c.memory_share, max(c.item_s, 1e-12)]) for c in (f.constants for f in fitted)
    ]
    o, e_c, e_m, item = (float(v) for v in np.exp(np.mean(logs, axis=0)))
    has_items = any(f.constants.item_s > 0.0 for f in fitted)
    return ThreeParameters(overhead_s=o, compute_share=e_c, memory_share=e_m, item_s=item if has_items else 0.0)


def _width(spread: Spread) -> float:
    low, high = spread.log_interval(np.array([1e-4]), 0.9)
    return float(high[0] - low[0])


def _seed_of(device: str, seed: int) -> int:
    return seed * 1_000_003 + sum(ord(c) * 31**i for i, c in enumerate(device)) % 1_000_003
