"""Predictions with the evidence they rest on: constants of this device where it was measured, else of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.calibration.constants import Constants, Transferred, shipped
from ridgeline.analytical.calibration.shapes import (
    ON_VECTOR_UNITS,
    kernel_kinds,
    kind_terms,
    limits_of,
    one_by_one,
    slower_on_vector_units,
)
from ridgeline.analytical.calibration.spread import Spread, common_draws
from ridgeline.analytical.calibration.three_parameters import ThreeParameters
from ridgeline.analytical.device import Device
from ridgeline.analytical.prediction import TIERS, Prediction, Tier


class PredictionError(ValueError):
    """A prediction that nothing supports. One line."""


@dataclass(frozen=True, kw_only=True)
class _Evidence:
    constants: ThreeParameters
    spread: Spread
    tier: Tier
    kind: str
    """Of kernels that they are constants of."""


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
            software: ``vllm``, ``sglang`` or ``trtllm``; without, constants of all of them together.
            confidence: of the interval.

        Raises:
            PredictionError: for a family without constants.
            LimitError: where the device lacks the precision.
        """
        known = sorted({t.family for t in self.constants.transferred})
        if family not in known:
            raise PredictionError(f"no constants for {family!r}: one of {', '.join(known)}")
        terms, _, working_set = limits_of(family, shapes, device, precision)
        shape = np.shape(np.asarray(working_set))
        compute, memory = (
            np.broadcast_to(np.asarray(terms.of(k), dtype=np.float64), shape) for k in ("unit", "memory")
        )
        items, group = np.zeros(shape), np.ones(shape)
        if family != "gemm":
            items = np.broadcast_to(
                shapes["batch"] * np.asarray(shapes["kv_heads"]) / float(device.unit_count or 1), shape
            )
            group = np.broadcast_to(np.asarray(shapes["q_heads"]) / np.asarray(shapes["kv_heads"]), shape)
        slower = slower_on_vector_units(device, precision)
        seconds, low, high = np.empty(shape), np.empty(shape), np.empty(shape)
        tiers: set[Tier] = set()
        for kind, own in self._kinds(family, shapes, shape, software):
            asked = "" if np.isnan(slower) and ON_VECTOR_UNITS in kind else kind
            evidence = self._evidence(family, device, precision, asked)
            terms_of = kind_terms(
                evidence.kind, compute[own], compute[own] * slower, memory[own], items[own], group[own]
            )
            seconds[own] = evidence.constants.seconds(*terms_of)
            low[own], high[own] = evidence.spread.log_interval(seconds[own], confidence)
            tiers.add(evidence.tier)
        bound = terms.overlapped_s if bound_s is None else bound_s
        # Nothing is faster than its bound: where the interval would reach below, it ends there.
        return Prediction(
            seconds=np.maximum(seconds, bound)[()], low_s=np.maximum(seconds * np.exp(low), bound)[()],
            high_s=np.maximum(seconds * np.exp(high), bound)[()], confidence=confidence,
            tier=max(tiers, key=TIERS.index), bound_s=bound,
        )  # fmt: skip

    def constants_of(self, family: str, device: Device, precision: str) -> tuple[ThreeParameters, Tier]:
        """The constants of a family on a device, of all software together, and the evidence they rest on.

        Raises:
            PredictionError: for a family without constants.
        """
        evidence = self._evidence(family, device, precision, "")
        return evidence.constants, evidence.tier

    def _kinds(self, family: str, shapes: Mapping[str, Any], shape: Any, software: str | None) -> list[tuple[str, Any]]:
        """(kind of kernel, rows of it); all rows under the empty name where no software is named."""
        if software is None and family != "gemm":
            return [("", np.ones(shape, dtype=bool))]
        count = int(np.prod(shape, dtype=np.int64))
        flat = {name: np.broadcast_to(values, shape).reshape(count) for name, values in shapes.items()}
        kinds = kernel_kinds(family, flat, np.full(count, software or "", dtype=object)).astype(str)
        return [(str(kind), (kinds == kind).reshape(shape)) for kind in np.unique(kinds)]

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
        kind = "gemm" if family == "gemm" else software or ""
        evidence = self._evidence(family, device, precision, kind)
        _, shape = common_draws([""], draws, seed, evidence.spread.freedom)[""]
        z, _ = common_draws([device.id], draws, _seed_of(device.id, seed), evidence.spread.freedom)[device.id]
        seconds = np.atleast_1d(np.asarray(prediction.seconds, dtype=np.float64))
        return np.maximum(seconds * evidence.spread.factors(seconds, z, shape), np.atleast_1d(prediction.bound_s))

    def _evidence(self, family: str, device: Device, precision: str, kind: str) -> _Evidence:
        own = {f.kind: f for f in self.constants.fitted if (f.device, f.family) == (device.id, family)}
        if own:
            chosen = own.get(kind) or (own.get(one_by_one(kind)) if kind else None) or own[""]
            return _Evidence(
                constants=chosen.constants, spread=chosen.spread,
                tier="fitted" if chosen.precision == precision else "transferred", kind=chosen.kind,
            )  # fmt: skip
        carried = self._carried(family, device, kind)
        (spread,) = (s.spread for s in self.constants.spreads if (s.vendor, s.family) == (carried.vendor, family))
        return _Evidence(constants=carried.constants, spread=spread, tier="transferred", kind=carried.kind)

    def _carried(self, family: str, device: Device, kind: str) -> Transferred:
        of_family = {(t.vendor, t.kind, t.memory): t for t in self.constants.transferred if t.family == family}
        vendor = device.vendor if any(t == device.vendor for t, _, _ in of_family) else ""
        memory = device.main_memory.name
        for own in (kind, ""):
            found = of_family.get((vendor, own, memory)) or of_family.get((vendor, own, ""))
            if found is not None:
                return found
        raise PredictionError(f"no constants for {family!r} on a device of {device.vendor}")


def _seed_of(device: str, seed: int) -> int:
    return seed * 1_000_003 + sum(ord(c) * pow(31, i, 1_000_003) for i, c in enumerate(device)) % 1_000_003
