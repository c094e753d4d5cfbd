"""Times of steps of a model on a device in a layout, and how sure they are.

A step's time is that of its operators one after the other, each from its bound: operations over the rate that kernels of its
family reach, bytes over the bandwidth they reach, whichever is longer, and a launch. The constants are those fitted on the
device's public measurements, or carried over from others (:mod:`ridgeline.analytical.calibration.step_constants`): what a device
does better or worse than they say is its device effect. The evidence is kept in three parts, because they cancel differently
when options are compared:

* the *software efficiency*, kernels' time over the engine's, and what an engine adds to the *first token*: common to all
  candidates, so they move costs, hardly rankings;
* the *device effect*: one draw for a device, whatever the layout, operator or phase;
* the *shape effect*: one draw for a device, model and layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.operations import Operation, operations
from ridgeline.analytical.calibration.step_constants import Attending, StepConstants, step_constants
from ridgeline.analytical.calibration.three_parameters import ThreeParameters
from ridgeline.analytical.collectives import CollectiveError, link_for, transfer_time
from ridgeline.analytical.device import Device
from ridgeline.analytical.layout import Layout, LayoutError, Precisions
from ridgeline.analytical.limits import LimitError, limits
from ridgeline.analytical.memory import MEMORY_SHARE, PAGE_TOKENS, memory
from ridgeline.analytical.phases import Group, Phase, PhaseError
from ridgeline.analytical.purchase.chance import Chance, Lognormal
from ridgeline.analytical.work import Work

SOFTWARE_EFFICIENCY: Chance = Lognormal(0.86, 0.15)
"""Simulated over measured time per output token: the median of 559 public runs of dense models is 1 / 1.16, the medians of the
engines differ by about 15 % (benchmarks/serving_e2e.py on aiconfigurator-core 0.12.0, H100, H200 and B200, 2026-11)."""
FIRST_TOKEN: Chance = Lognormal(1.42, 0.6)
"""Measured over simulated time to first token, beyond that of the time per output token: 1.65 in the median of the same runs,
which is what tokenizers, the network and the bunching of requests may add; runs differ by a factor of 2.2."""
DEVICE_SIGMA = 0.2
"""Assumed. The medians of the three systems of those runs differ by 0.09 only, but all are NVIDIA's and near in age; ratios of two
devices' kernel times, predicted, err 5 to 19 % in the median of a pair (peers-analytical.md 3.3): 0.19 / 0.67 is the standard
deviation of a pair's logarithm, over the root of 2 that of one device."""
SHAPE_SIGMA = 0.2
"""Runs of one system differ by 0.17 to 0.31 from their median, engines included (benchmarks/serving_e2e.py)."""

LATENCY_S = 8e-6
"""Of a collective over a link that states none (3.3; kipply's figure, 1.10)."""


LINK_REACH = 0.7
"""Of a link's bandwidth. Not sourced."""


class UnservableError(ValueError):
    """A layout that a model cannot have on a device. One line."""


class StepModel(Protocol):
    """Step times in columns, and the memory that is left for keys and values."""

    @property
    def kv_tokens(self) -> int:
        """Tokens that fit beside the weights into one replica."""
        ...

    def step_times(self, prefill_tokens: Any, prefill_context: Any, sequences: Any, context_tokens: Any) -> Any:
        """Seconds, as :data:`~ridgeline.analytical.serving.averages.StepTimes`."""
        ...


@dataclass(frozen=True)
class OperatorSteps:
    """Step times from the operators of an architecture."""

    architecture: Architecture
    device: Device
    layout: Layout
    precisions: Precisions
    kv_tokens: int
    constants: Mapping[Attending, StepConstants]

    def step_times(self, prefill_tokens: Any, prefill_context: Any, sequences: Any, context_tokens: Any) -> Any:
        """Seconds of columns of one length; 0 for steps without a token.

        Raises:
            UnservableError: where the device lacks the precision or a link.
        """
        try:
            return self._step_times(prefill_tokens, prefill_context, sequences, context_tokens)
        except (PhaseError, LimitError, CollectiveError) as error:
            who = f"{self.architecture.name} in {self.precisions.label} as {self.layout.label} of {self.device.id}"
            raise UnservableError(f"{who}: {error}") from None

    def _step_times(self, prefill_tokens: Any, prefill_context: Any, sequences: Any, context_tokens: Any) -> Any:
        tokens, mean, n, context = np.broadcast_arrays(
            *(np.atleast_1d(np.asarray(a, dtype=np.float64))
              for a in (prefill_tokens, prefill_context, sequences, context_tokens))
        )  # fmt: skip
        found = np.zeros(len(tokens))
        prefills, decodes = tokens > 0.0, n > 0.0
        for with_prefill, with_decode in ((True, False), (False, True), (True, True)):
            rows = (prefills == with_prefill) & (decodes == with_decode)
            if rows.any():
                groups = []
                if with_prefill:
                    groups.append(_prompts(tokens[rows], mean[rows]))
                if with_decode:
                    # A table's edge asks for a part of a sequence; one is the least there is.
                    each = np.maximum(context[rows] / n[rows], 1.0)
                    groups.append(
                        Group(
                            sequences=np.maximum(n[rows], 1.0), q_length=1.0, kv_length=each, sampled=1, decoding=True
                        )
                    )
                phase = Phase(name="mixed", groups=tuple(groups))
                listed = operations(self.architecture, phase, self.precisions, self.layout)
                attending: Attending = "both" if len(groups) == 2 else "prefill" if with_prefill else "decode"
                by_family = self.constants[attending].parameters
                found[rows] = sum(
                    operator_time(each, self.device, by_family.get(each.family, by_family[""])) * each.count
                    for each in listed
                    if not each.fusible
                )
        return found


def _prompts(tokens: Any, mean: Any) -> Group:
    """Chunks of prompts with ``tokens`` tokens, which attend to ``mean`` tokens each on average.

    One chunk at the end of a cache long enough; where the mean is shorter than that of one prompt of so many tokens, several
    whole prompts.
    """
    tokens = np.maximum(tokens, 1.0)
    whole = np.maximum(2.0 * mean - 1.0, 1.0)
    prompts = np.maximum(tokens / whole, 1.0)
    length = tokens / prompts
    return Group(
        sequences=prompts, q_length=length, kv_length=np.maximum(mean + (length - 1.0) / 2.0, length), sampled=1
    )


def operator_time(operation: Operation, device: Device, own: ThreeParameters) -> Any:
    """Seconds of one run of an operator by kernels with the constants ``own``.

    Raises:
        LimitError: where the device lacks the precision.
        CollectiveError: where it states no link.
    """
    work = operation.work
    if operation.transfer is not None:
        local = limits(Work(read_bytes=work.read_bytes, written_bytes=work.written_bytes), device)
        latency = 0.0 if link_for(device, operation.transfer.ranks).latency_s else LATENCY_S
        return np.maximum(
            transfer_time(operation.transfer, device) / LINK_REACH + latency, local.of("memory") / own.memory_share
        )
    found = limits(work, device)
    items = operation.items / float(device.unit_count or 1)
    return np.maximum(own.seconds(found.product_s, found.of("memory"), items), found.overlapped_s)


def step_model(
    architecture: Architecture,
    device: Device,
    layout: Layout,
    precisions: Precisions,
    length: float,
    budget: int,
    longest: int = 0,
) -> StepModel:
    """The step times of a model.

    Args:
        architecture: the model.
        device: one of the replica's devices.
        layout: of the replica.
        precisions: of weights, activations and cache.
        length: tokens of a typical sequence: what a windowed or recurrent layer keeps for each token depends on it.
        budget: most tokens of a step, which set the activations' memory.
        longest: tokens of the longest sequence, which has to fit alone.

    Raises:
        UnservableError: where the model cannot be laid out so, or the weights leave no room; what the device lacks is
            found when times are asked for.
    """
    capacity = MEMORY_SHARE * device.main_memory.capacity_bytes
    who = f"{architecture.name} in {precisions.label} as {layout.label} of {device.id}"
    try:
        pages = max(int(length), 1)
        held = memory(architecture, precisions, layout, sequences=1, length=pages, tokens=budget, page=1)
        if not float(held.kv_bytes) > 0.0:
            raise UnservableError(
                f"{who}: {architecture.name} keeps no keys, values or states: it does not answer token by token"
            )
        fixed = float(held.weights_bytes + held.activations_bytes)
        room = capacity - fixed
        kv_tokens = int(room / (float(held.kv_bytes) / pages)) if room > 0.0 else 0
        # A page that is begun is a page that is taken.
        least = max(pages, longest) + PAGE_TOKENS
        if kv_tokens < least:
            raise UnservableError(
                f"{who} does not fit: weights, activations and one sequence of {least} tokens need "
                f"{(fixed + float(held.kv_bytes) * least / pages) / 1e9:.1f} GB a device, which may use {capacity / 1e9:.1f} GB"
            )
    except LayoutError as error:
        raise UnservableError(f"{who}: {error}") from None
    attending: tuple[Attending, ...] = ("prefill", "decode", "both")
    constants = {each: step_constants(device, each, precisions.activations) for each in attending}
    return OperatorSteps(architecture, device, layout, precisions, kv_tokens, constants)
