"""Times of steps of a model on a device in a layout, and how sure they are.

The evidence is kept in three parts, because they cancel differently when options are compared:

* the *software efficiency*, kernels' time over the engine's: common to all candidates, so it moves costs, hardly rankings;
* the *device effect*: one draw for a device, whatever the layout, operator or phase;
* the *shape effect*: one draw for a device, model and layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ridgeline.analytical.device import Device
from ridgeline.analytical.purchase.chance import Chance, Lognormal
from ridgeline.analytical.work import fma_key

SOFTWARE_EFFICIENCY: Chance = Lognormal(0.5, 0.35)
"""Assumed. End to end, engines reach 0.12 to 0.46 of the ideal time per output token (medians by system, engine and model of
1,060 public rows; peers-analytical.md 3.2), kernels about 0.75 of it: the quotient runs from 0.2 to 0.6 and above."""
DEVICE_SIGMA = 0.2
"""Assumed. Ratios of two devices' times, predicted, err 5 to 19 % in the median of a pair (peers-analytical.md 3.3): 0.19 / 0.67
is the standard deviation of a pair's logarithm, over the root of 2 that of one device."""
SHAPE_SIGMA = 0.1
"""Assumed. Kernels of unseen shapes on a known device err 8 to 10 % in the median with three fitted parameters (3.3)."""


class FitError(ValueError):
    """A layout that a model cannot have on a device. One line."""


@dataclass(frozen=True, order=True)
class Layout:
    """How one replica is spread: tensor, pipeline and expert parallel."""

    tp: int = 1
    pp: int = 1
    ep: int = 1

    @property
    def devices(self) -> int:
        """Devices of one replica; experts are spread over those of the tensor parallel group."""
        return self.tp * self.pp

    @property
    def label(self) -> str:
        """Such as ``tp4`` or ``tp8 ep8``."""
        return (
            " ".join(f"{name}{n}" for name, n in (("tp", self.tp), ("pp", self.pp), ("ep", self.ep)) if n > 1) or "tp1"
        )


class StepModel(Protocol):
    """Step times in columns, and the memory that is left for keys and values."""

    kv_tokens: int
    """Tokens that fit beside the weights into one replica."""

    def step_times(self, prefill_tokens: Any, prefill_context: Any, sequences: Any, context_tokens: Any) -> Any:
        """Seconds, as :data:`~ridgeline.analytical.serving.averages.StepTimes`."""
        ...


@dataclass(frozen=True)
class ClosedForm:
    """Weights, keys and values, and 2 P operations per token, over a device's ceilings with kernels' efficiencies.

    Constants: medians of those fitted to public kernel tables (peers-analytical.md 3.3): GEMM reaches 0.76 of the rate and 0.78
    of the bandwidth, prefill attention 0.52 of the rate, decode attention 0.8 of the bandwidth; 3 us for a GEMM, 12 for an
    attention. An all-reduce takes 8 us and its bytes over 0.7 of the link (section 1.10).
    """

    parameters: float
    layers: int
    hidden: int
    q_width: int
    kv_bytes_per_token: float
    weight_bytes: float
    rate_per_s: float
    bandwidth_bytes_per_s: float
    link_bytes_per_s: float
    tp: int
    kv_tokens: int

    def step_times(self, prefill_tokens: Any, prefill_context: Any, sequences: Any, context_tokens: Any) -> Any:
        """Seconds."""
        tokens = np.asarray(prefill_tokens + sequences, dtype=np.float64)
        linear = np.maximum(
            2.0 * self.parameters * tokens / (self.tp * self.rate_per_s * 0.76),
            self.weight_bytes / (self.tp * self.bandwidth_bytes_per_s * 0.78),
        )
        pairs = prefill_tokens * prefill_context
        attention = 4.0 * self.q_width * self.layers * pairs / (self.tp * self.rate_per_s * 0.52)
        attention = attention + context_tokens * self.kv_bytes_per_token / (self.tp * self.bandwidth_bytes_per_s * 0.8)
        time = linear + attention + self.layers * 24e-6
        if self.tp > 1:
            moved = 2.0 * (self.tp - 1) / self.tp * tokens * self.hidden * 2.0
            time = time + 2 * self.layers * (8e-6 + moved / (0.7 * self.link_bytes_per_s))
        return np.where(tokens > 0.0, time, 0.0)


_BYTES = {"bfloat16": 2.0, "float16": 2.0, "float8_e4m3fn": 1.0, "int8": 1.0, "float4_e2m1fn": 0.5}
_MODELS = {
    "llama-3.1-8b": (8.03e9, 32, 4096, 4096, 1024),
    "llama-3.1-70b": (70.6e9, 80, 8192, 8192, 1024),
    "qwen3-32b": (32.8e9, 64, 5120, 8192, 1024),
}


def step_model(model: str, device: Device, layout: Layout, weights: str, activations: str, kv: str) -> StepModel:
    """The step times of ``model``.

    Raises:
        FitError: where the device lacks the precision or a link, or the weights leave no room.
        KeyError: for an unknown model.
    """
    parameters, layers, hidden, q_width, kv_width = _MODELS[model]
    rate = device.rate(fma_key(activations))
    bandwidth = device.bandwidth(device.main_memory.name)
    if rate is None or bandwidth is None:
        raise FitError(f"{device.id} states no {activations} rate or no bandwidth")
    if layout.tp > 1 and not device.links:
        raise FitError(f"{device.id} states no link: {layout.label} cannot be timed")
    weight_bytes = parameters * _BYTES[weights]
    kv_bytes = 2.0 * layers * kv_width * _BYTES[kv]
    room = 0.9 * device.main_memory.capacity_bytes * layout.tp - weight_bytes
    if room <= 0.0:
        raise FitError(
            f"{model} in {weights} needs {weight_bytes / 1e9:.0f} GB, {layout.label} of {device.id} has "
            f"{0.9 * device.main_memory.capacity_bytes * layout.tp / 1e9:.0f} GB"
        )
    link = max((link.per_direction_bytes_per_s for link in device.links), default=0.0)
    return ClosedForm(
        parameters, layers, hidden, q_width, kv_bytes, weight_bytes, rate.value_per_s, bandwidth.value_per_s, link,
        layout.tp, int(room / kv_bytes),
    )  # fmt: skip
