"""Three constants that turn a bound into a prediction: two efficiencies and an overhead.

t = overhead + max(compute / e_c, memory / e_m), per launch. Fitted per device and family of operators; on an unseen
(n, k) site it errs by 8 to 10 % where the plain bound errs by 30 to 50 % (a study on public tables, see docs/scorecard.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.limits import Limits


@dataclass(frozen=True, kw_only=True)
class ThreeParameters:
    """Constants of one device and family of operators. No efficiency exceeds 1: a prediction is never under its bound."""

    compute_efficiency: float
    memory_efficiency: float
    overhead_s: float
    """Seconds for each launch."""
    link_efficiency: float = 1.0

    def __post_init__(self) -> None:
        for name in ("compute_efficiency", "memory_efficiency", "link_efficiency"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in (0, 1], not {getattr(self, name):g}")
        if not self.overhead_s >= 0.0:
            raise ValueError(f"overhead_s must not be negative, not {self.overhead_s:g}")

    def seconds(self, terms: Limits, launches: Any = 1) -> Any:
        """The time that these constants predict, in seconds; numbers or columns, as the limits are."""
        slowest = np.maximum(
            np.maximum(terms.of("unit") / self.compute_efficiency, terms.of("memory") / self.memory_efficiency),
            terms.of("link") / self.link_efficiency,
        )
        return launches * self.overhead_s + slowest


IDEAL = ThreeParameters(compute_efficiency=1.0, memory_efficiency=1.0, overhead_s=0.0)
"""The bound itself."""
