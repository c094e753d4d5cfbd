"""What precision this machine gives just now: a fixed loop, measured as a kernel is."""

from __future__ import annotations

import math
import os
import statistics
from collections import Counter
from dataclasses import dataclass

from ridgeline.bench.callables import Measured, measure

SECONDS = 1.5
CASE_S = 6.0
"""Budget of a case of the quick suite, for which the precision is foretold."""


@dataclass(frozen=True)
class Noise:
    """How steady a fixed loop of arithmetic was."""

    spread_relative: float
    """Distance from the 10th to the 90th percentile of the block medians, over their median."""
    precision_relative: float | None
    """Half-width of the interval that a case of :data:`CASE_S` seconds can expect; ``None`` where none was had."""
    left_out_share: float
    """Share of blocks that something else shaped."""
    causes: tuple[str, ...]
    """What shaped them, the most frequent first."""
    steal_s: float | None
    load: float
    """Load average of the last minute."""


def measure_noise(seconds: float = SECONDS) -> Noise:
    """Time a fixed loop on one processor for ``seconds``."""
    # No target is ever met, so that all the time is used.
    found = measure(_loop, budget_s=seconds, target_relative=1e-9, threads=1)
    return describe_noise(found, seconds, os.getloadavg()[0])


def _loop() -> None:
    math.fsum(range(20_000))


def describe_noise(found: Measured, seconds: float, load: float) -> Noise:
    """The figures of a measurement that spent ``seconds``."""
    medians = sorted(statistics.median(block) for block in found.samples_s)
    low, high = (medians[round(share * (len(medians) - 1))] for share in (0.1, 0.9))
    half = found.half_width_relative
    steals = [block.steal_s for block in found.conditions if block.steal_s is not None]
    causes = Counter(block.cause for block in found.left_out)
    return Noise(
        spread_relative=(high - low) / found.median_s,
        # The half-width shrinks with the root of the time.
        precision_relative=None if half is None else half * math.sqrt(seconds / CASE_S),
        left_out_share=len(found.left_out) / len(found.samples_s),
        causes=tuple(cause for cause, _ in causes.most_common()),
        steal_s=sum(steals) if steals else None,
        load=load,
    )
