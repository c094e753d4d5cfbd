"""The sweep: bound, prediction, memory fit, throughput and cost of models over devices, layouts, batches and lengths.

Devices, models, phases, precisions and layouts are outer loops of a few hundred combinations; batches and lengths are
columns. Each combination is one :class:`~ridgeline.analytical.step_form.StepForm` evaluated chunk by chunk; no object
and no string is touched for each point. What cannot be (a layout that does not divide, a precision that the device
lacks) is a refusal with its reason, and no row.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.operations import operations
from ridgeline.analytical.architectures.parts import Embedding, Experts
from ridgeline.analytical.calibration.step_constants import step_constants
from ridgeline.analytical.calibration.surfaces import measured_kernels, with_surfaces
from ridgeline.analytical.calibration.three_parameters import ThreeParameters
from ridgeline.analytical.collectives import CollectiveError
from ridgeline.analytical.device import Device
from ridgeline.analytical.layout import Layout, LayoutError, Precisions
from ridgeline.analytical.limits import LimitError
from ridgeline.analytical.memory import MEMORY_SHARE, memory
from ridgeline.analytical.phases import Phase, PhaseError
from ridgeline.analytical.prediction import Tier
from ridgeline.analytical.step_form import Points, StepForm, decay, step_form
from ridgeline.analytical.step_table import DeviceStep, Engine, StepColumns, chosen_engine, on_device

PHASES = ("prefill", "decode")


Evidence = Tier | Literal["given"]
"""What the constants of a prediction rest on, as :data:`~ridgeline.analytical.prediction.Tier`; ``given`` with the grid."""


@dataclass(frozen=True, kw_only=True)
class HourlyPrice:
    """What one device costs an hour, and when that held."""

    usd_per_device_hour: float
    date: str


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is swept."""

    models: Mapping[str, Architecture]
    devices: tuple[Device, ...]
    phases: tuple[str, ...]
    precisions: tuple[Precisions, ...]
    layouts: tuple[Layout, ...]
    batches: Any
    """Sequences of all replicas together, float64 column."""
    lengths: Any
    """Tokens of a prompt (prefill) or that a decoded token sees, itself included (decode); float64 column."""
    prices: Mapping[str, tuple[HourlyPrice, ...]] = dataclasses.field(default_factory=dict)
    """By device id; a device without any has no cost."""
    parameters: Mapping[str, ThreeParameters] | None = None
    """By family of operations; the key ``""`` serves the others. ``None``: each device's own
    (:func:`~ridgeline.analytical.calibration.step_constants.step_constants`)."""
    software: str | None = None
    """Whose kernels predict where a device was measured; needs the extra ``data``."""
    memory_share: float = MEMORY_SHARE


@dataclass(frozen=True, kw_only=True)
class Combination:
    """One of everything but batch, length and price."""

    model: str
    device: str
    phase: str
    precisions: Precisions
    layout: Layout


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A combination that cannot be, and why."""

    combination: Combination
    reason: str


@dataclass(frozen=True, kw_only=True)
class Swept:
    """One combination at every batch and length; columns of one length."""

    combination: Combination
    evidence: Evidence
    batch: Any
    length: Any
    step: DeviceStep
    columns: StepColumns

    @property
    def tokens_per_s(self) -> Any:
        """Predicted throughput of all devices: new tokens, or in prefill tokens of prompts.

        A step is the way of one batch through all stages: a pipeline that is kept full does better.
        """
        tokens = self.batch * (self.length if self.combination.phase == "prefill" else 1.0)
        return tokens / self.columns.predicted_s

    def usd_per_million_tokens(self, price: HourlyPrice) -> Any:
        """Rent of all devices over the predicted throughput."""
        devices = self.combination.layout.devices
        return price.usd_per_device_hour * devices / 3600.0 / self.tokens_per_s * 1e6


def sweep(grid: Grid, engine: Engine = "auto") -> Iterator[Swept | Refused]:
    """Every combination of ``grid``, device by device within a model, phase, precision and layout."""
    batch, length = (column.reshape(-1) for column in np.meshgrid(grid.batches, grid.lengths, indexing="ij"))
    # Every batch and every length, with the smallest and the largest of the other: where the grid's extremes are.
    at_edge = [(c == np.min(c)) | (c == np.max(c)) for c in (batch, length)]
    edges = np.flatnonzero(at_edge[0] | at_edge[1])
    outer = (grid.models, grid.devices, grid.phases, grid.precisions, grid.layouts)
    engine = chosen_engine(engine, len(batch) * math.prod(map(len, outer)))
    for model, architecture in grid.models.items():
        for phase in grid.phases:
            for precisions in grid.precisions:
                for layout in grid.layouts:
                    own = Combination(model=model, device="", phase=phase, precisions=precisions, layout=layout)
                    points = step_points(phase, layout, batch, length)
                    try:
                        form = model_form(architecture, phase, precisions, layout, points.rows(edges))
                    except (LayoutError, PhaseError) as error:
                        for device in grid.devices:
                            yield Refused(combination=dataclasses.replace(own, device=device.id), reason=str(error))
                        continue
                    for device in grid.devices:
                        on = dataclasses.replace(own, device=device.id)
                        capacity = device.main_memory.capacity_bytes * grid.memory_share
                        parameters, evidence = _constants(grid, device, phase, precisions)
                        try:
                            step = on_device(form, device, parameters, capacity)
                            kernels = measured_kernels(device, grid.software) if grid.software else None
                            if kernels is not None:
                                step = with_surfaces(step, kernels)
                                if kernels.serve(form.operations_of(*points.rows(slice(1)).columns)):
                                    evidence = "surface"
                        except (LimitError, CollectiveError) as error:
                            yield Refused(combination=on, reason=str(error))
                            continue
                        columns = step.columns(points, engine)
                        yield Swept(
                            combination=on, evidence=evidence, batch=batch, length=length, step=step, columns=columns
                        )


def _constants(
    grid: Grid, device: Device, phase: str, precisions: Precisions
) -> tuple[Mapping[str, ThreeParameters], Evidence]:
    if grid.parameters is not None:
        return grid.parameters, "given"
    found = step_constants(device, "prefill" if phase == "prefill" else "decode", precisions.activations)
    return found.parameters, found.tier


def model_form(
    architecture: Architecture, phase: str, precisions: Precisions, layout: Layout, points: Points
) -> StepForm:
    """The step of a model and layout for ``points`` (sequences of one replica), with its memory.

    It holds for every point within the extremes of these, of sequences and lengths that these have.

    Raises:
        LayoutError, PhaseError: for a layout or phase that the model cannot have.
    """
    if phase not in PHASES:
        raise PhaseError(f"no sweep of phase {phase!r}: one of {', '.join(PHASES)}")

    def listed(sequences: Any, q_length: Any, kv_length: Any) -> Any:
        of_all = sequences * layout.dp
        step = Phase.prefill(of_all, q_length) if phase == "prefill" else Phase.decode(of_all, kv_length)
        return operations(architecture, step, precisions, layout)

    def held(sequences: Any, q_length: Any, kv_length: Any) -> Any:
        return memory(
            architecture,
            precisions,
            layout,
            sequences=sequences * layout.dp,
            length=kv_length,
            tokens=sequences * q_length,
        ).total_bytes

    return step_form(listed, held, points, _decays(architecture, layout))


def step_points(phase: str, layout: Layout, batch: Any, length: Any) -> Points:
    """The step's points: sequences of the fullest replica."""
    sequences = np.ceil(batch / layout.dp)
    return Points(sequences, length if phase == "prefill" else np.ones_like(length), length)


def pareto(objectives: Sequence[Any]) -> Any:
    """Rows that no other row beats: at most as much in every objective, and less in one. Less is better.

    Args:
        objectives: float64 columns of one length, without NaN.

    Returns:
        A column of booleans. Rows that are equal in all objectives are both on the front or both off it.
    """
    values = np.stack([np.asarray(column, dtype=np.float64) for column in objectives], axis=1)
    front = np.zeros(len(values), dtype=bool)
    order = np.lexsort(values.T[::-1])
    left = order
    while len(left):
        # The first in lexicographic order is beaten by none that is left.
        best = values[left[0]]
        equal = np.all(values[left] == best, axis=1)
        front[left[equal]] = True
        left = left[~np.all(values[left] >= best, axis=1)]
    return front


def sensitivity(step: DeviceStep, points: Points, change: float = 0.01) -> dict[str, Any]:
    """By how many percent the prediction falls for one percent more of a ceiling: elasticities, a column each.

    Keys: ``arithmetic`` (every rate), ``bandwidth`` (of main memory), ``links``, ``overhead`` (one percent less of it).
    They add up to about 1: what limits a point says what a better device must have more of. Latencies of links are left
    as they are. By the step's constants, also where measured kernels predict it: a surface says nothing of another device.
    """
    device, more = step.device, 1.0 + change
    links = (dataclasses.replace(k, per_direction_bytes_per_s=k.per_direction_bytes_per_s * more) for k in device.links)
    changed = {
        "arithmetic": dataclasses.replace(device, rates=tuple(_raised(r, more) for r in device.rates)),
        "bandwidth": dataclasses.replace(device, bandwidths=tuple(_raised(b, more) for b in device.bandwidths)),
        "links": dataclasses.replace(device, links=tuple(links)),
        "overhead": device,
    }
    less = {
        family: dataclasses.replace(own, overhead_s=own.overhead_s / more, item_s=own.item_s / more)
        for family, own in step.parameters.items()
    }

    def seconds(on: Device, parameters: Mapping[str, ThreeParameters]) -> Any:
        there = on_device(step.form, on, parameters, step.capacity_bytes, substitute=step.substitute)
        return there.columns(points, "numpy").predicted_s

    base = seconds(device, step.parameters)
    return {
        name: np.log(base / seconds(other, less if name == "overhead" else step.parameters)) / np.log(more)
        for name, other in changed.items()
    }


def _raised(ceiling: Any, factor: float) -> Any:
    names = ("low_per_s", "value_per_s", "high_per_s")
    return dataclasses.replace(ceiling, **{name: getattr(ceiling, name) * factor for name in names})


def _decays(architecture: Architecture, layout: Layout) -> tuple[float, ...]:
    """Of rows looked up in an embedding, and of the experts that tokens are routed to, as operations count them."""
    found = []
    for stack in architecture.stacks:
        for part in stack.inputs:
            if isinstance(part, Embedding):
                found.append(decay(part.entries / layout.tp) ** (1.0 / layout.tp))
                found.append(decay(part.entries))
        for block, _ in stack.distinct:
            for part in block.parts:
                if isinstance(part, Experts):
                    spans = layout.ep // layout.tp if layout.experts_span_replicas else 1
                    found.append(decay(part.count, part.top_k) ** spans)
    return tuple(dict.fromkeys(found))
