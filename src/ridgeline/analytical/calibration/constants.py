"""The constants that ship: fitted by ``ridgeline model scorecard --constants`` on the public tables, so that a prediction does
not need them. Our own summary of the measurements, not a copy."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.analytical.calibration.across import (
    Kinds,
    Target,
    carried_constants,
    carried_spread,
    fit_constants,
    taught_vendors,
)
from ridgeline.analytical.calibration.public_tables import DISTRIBUTION, FILES, LICENCE, source_version
from ridgeline.analytical.calibration.shapes import Rows
from ridgeline.analytical.calibration.splits import group_ids
from ridgeline.analytical.calibration.spread import Spread, fit_spread
from ridgeline.analytical.calibration.three_parameters import ThreeParameters
from ridgeline.analytical.device import Device

FILE = "constants.json"
MEMORIES = ("HBM", "GDDR", "")
"""Kinds of main memory whose transferred constants are kept; the others are predicted from all (empty)."""


class ConstantsError(ValueError):
    """Constants that cannot be read. One line."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Constants of one device, family, precision and kind of kernel, and how far single shapes lie from them."""

    device: str
    family: str
    precision: str
    kind: str
    """As :func:`~ridgeline.analytical.calibration.shapes.kernel_kinds` names it; empty for all together."""
    rows: int
    constants: ThreeParameters
    spread: Spread


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """Constants for a device with ``memory`` that nobody measured, of a vendor whose own devices tell (empty: any other)."""

    vendor: str
    memory: str
    family: str
    precision: str
    kind: str
    constants: ThreeParameters


@dataclass(frozen=True, kw_only=True)
class TransferredSpread:
    """How far left-out devices lay from what constants :class:`Transferred` to ``vendor`` say, in all kinds and memories."""

    vendor: str
    family: str
    spread: Spread


@dataclass(frozen=True, kw_only=True)
class Constants:
    """All that ships."""

    source: str
    licence: str
    fitted: tuple[Fitted, ...]
    transferred: tuple[Transferred, ...]
    spreads: tuple[TransferredSpread, ...]


def fit_shipped(root: Path, devices: Mapping[str, Device]) -> Constants:
    """Fit everything anew on the public tables, in bfloat16.

    Args:
        root: from :func:`~ridgeline.analytical.calibration.public_tables.require_data_root`.
        devices: the catalogue.
    """
    from ridgeline.analytical.calibration.scorecard import load_hardware

    fitted: list[Fitted] = []
    transferred: list[Transferred] = []
    spreads: list[TransferredSpread] = []
    for family in FILES:
        rows = load_hardware(root, devices, family)
        each = fit_constants(rows)
        by = {d: devices[d].architecture for d in rows}
        for device, kinds in each.items():
            fitted += _fitted(device, family, rows[device], kinds)
        for vendor in ("", *taught_vendors(rows, devices)):
            spread = carried_spread(rows, each, devices, vendor, by=by)
            spreads.append(TransferredSpread(vendor=vendor, family=family, spread=spread))
            kept = sorted({k for kinds in each.values() for k in kinds})
            for memory, kind in itertools.product(MEMORIES, kept):
                constants = carried_constants(each, devices, Target(vendor=vendor, memory=memory), kind)
                transferred.append(
                    Transferred(
                        vendor=vendor, memory=memory, family=family, precision="bfloat16", kind=kind,
                        constants=constants,
                    )
                )  # fmt: skip
    source = f"{DISTRIBUTION} {source_version(root)}".strip()
    return Constants(
        source=source, licence=LICENCE, fitted=tuple(fitted), transferred=tuple(transferred), spreads=tuple(spreads)
    )


def _fitted(device: str, family: str, rows: Rows, kinds: Kinds) -> list[Fitted]:
    found = []
    for kind, constants in kinds.items():
        part = rows if kind == "" else rows.take(rows.kernels == kind)
        predicted = constants.seconds(*part.terms(kind))
        ratio, sites = np.log(part.seconds / predicted), group_ids(*part.site.T)
        if len(np.unique(sites)) < 2:
            continue
        spread = fit_spread(ratio, predicted, sites, device_effect=False)
        found.append(
            Fitted(
                device=device, family=family, precision="bfloat16", kind=kind, rows=len(part), constants=constants,
                spread=spread,
            )
        )  # fmt: skip
    return found


def to_json(constants: Constants) -> str:
    """The constants as the file that ships, rounded to five digits."""
    return (
        json.dumps(_rounded(asdict(constants)), indent=None, separators=(",", ":")).replace('{"device"', '\n{"device"')
        + "\n"
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list | tuple) else value


def from_json(text: str, origin: str) -> Constants:
    """Read constants.

    Raises:
        ConstantsError: one line naming ``origin`` and what is wrong.
    """
    try:
        values = json.loads(text)
        return Constants(
            source=values["source"],
            licence=values["licence"],
            fitted=tuple(Fitted(**{**f, "constants": _parameters(f), "spread": _spread(f)}) for f in values["fitted"]),
            transferred=tuple(Transferred(**{**t, "constants": _parameters(t)}) for t in values["transferred"]),
            spreads=tuple(TransferredSpread(**{**s, "spread": _spread(s)}) for s in values["spreads"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConstantsError(f"{origin}: {error}") from None


def _parameters(values: Mapping[str, Any]) -> ThreeParameters:
    return ThreeParameters(**values["constants"])


def _spread(values: Mapping[str, Any]) -> Spread:
    spread = values["spread"]
    return Spread(
        centre=tuple(spread["centre"]),
        scale=tuple(spread["scale"]),
        freedom=spread["freedom"],
        shape=tuple(tuple(quantiles) for quantiles in spread["shape"]),
    )


@cache
def shipped() -> Constants:
    """The constants of this version of Ridgeline.

    Raises:
        ConstantsError: where the file does not validate.
    """
    file = resources.files("ridgeline.analytical.calibration") / FILE
    return from_json(file.read_text(encoding="utf-8"), FILE)
