"""The true ideal beside an idealized runtime: the bound of the same request on the same devices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.step import step_time
from ridgeline.analytical.device import Device
from ridgeline.analytical.layout import Layout, Precisions
from ridgeline.analytical.phases import Phase


@dataclass(frozen=True, kw_only=True)
class Ideal:
    """A model on devices, of which the roofline knows the shortest possible time."""

    architecture: Architecture
    precisions: Precisions
    layout: Layout
    device: Device

    def seconds(self, p: int, o: int, b: int = 1) -> float:
        """The prefill's bound and those of the o - 1 steps after it, each with its own context.

        Raises:
            LayoutError, PhaseError, LimitError, CollectiveError: for what cannot be.
        """

        def step_s(phase: Phase) -> float:
            return float(np.sum(step_time(self.architecture, phase, self.precisions, self.layout, self.device)))

        prefill_s = step_s(Phase.prefill(b, p))
        if o == 1:
            return prefill_s
        return prefill_s + step_s(Phase.decode(b, np.arange(p + 1.0, p + o)))
