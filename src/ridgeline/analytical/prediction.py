"""The prediction: the time that a calibrated model expects, with its interval and the evidence it rests on.

A :class:`~ridgeline.analytical.roofline.Bound` says what no implementation can beat; a prediction says what a real one
will take. They are different types, and a prediction never lies under its bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Tier = Literal["measured", "surface", "fitted", "transferred", "bound"]
"""Evidence, strongest first: this very point was measured; between points measured on this device; constants fitted on
this device; constants carried over from other devices; nothing but the bound."""
TIERS: tuple[Tier, ...] = ("measured", "surface", "fitted", "transferred", "bound")
EVIDENCE: Mapping[Tier, str] = {
    "measured": "measured",
    "surface": "by kernels that were measured on this device",
    "fitted": "by constants fitted on this device",
    "transferred": "by constants carried over from other devices or precisions",
    "bound": "the bound alone",
}
"""For people."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Seconds that are expected; numbers, or float64 columns of one length."""

    seconds: Any
    """Median."""
    low_s: Any
    high_s: Any
    """Ends of the interval that holds the truth with ``confidence``."""
    confidence: float
    tier: Tier
    bound_s: Any
    """The bound of the same work on the same device."""
