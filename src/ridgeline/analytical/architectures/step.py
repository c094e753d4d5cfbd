"""The time of a step: its operators one after the other, each at its own bound.

Operators of a step wait for each other, so their bounds add up: a sum of maxima, not the maximum of sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.operations import Operation, operations
from ridgeline.analytical.collectives import Algorithm, exposed_share, transfer_time
from ridgeline.analytical.device import Device
from ridgeline.analytical.layout import Layout, Precisions
from ridgeline.analytical.limits import limits
from ridgeline.analytical.phases import Phase
from ridgeline.analytical.work import Work


@dataclass(frozen=True, kw_only=True)
class OperationTime:
    """An operator and its bound on a device."""

    operation: Operation
    seconds: Any
    """Of one run."""
    bound_by: Any
    """The unit, memory level or link that decides: a name, or a column of names."""

    @property
    def total_s(self) -> Any:
        """Of all its runs."""
        return self.seconds * self.operation.count


def operation_times(
    listed: tuple[Operation, ...], device: Device, *, algorithm: Algorithm = "ring", overlap: Any = 0.0
) -> tuple[OperationTime, ...]:
    """The bound of each operation on ``device``.

    A collective takes the larger of its link's time and that of its bytes in memory.

    Raises:
        LimitError: where the device lacks a precision: nothing is substituted.
        CollectiveError: where it states no link that a collective could take.
    """
    exposed_share(overlap)
    return tuple(_time(operation, device, algorithm, overlap) for operation in listed)


def _time(operation: Operation, device: Device, algorithm: Algorithm, overlap: Any) -> OperationTime:
    if operation.transfer is None:
        found = limits(operation.work, device)
        return OperationTime(operation=operation, seconds=found.overlapped_s, bound_by=found.bound_by)
    work = operation.work
    local = limits(Work(read_bytes=work.read_bytes, written_bytes=work.written_bytes), device)
    linked = transfer_time(operation.transfer, device, algorithm=algorithm, overlap=overlap)
    over_link = np.asarray(linked) >= np.asarray(local.overlapped_s)
    by = np.where(over_link, "link", local.bound_by)
    return OperationTime(
        operation=operation,
        seconds=np.maximum(linked, local.overlapped_s * exposed_share(overlap)),
        bound_by=str(by) if by.ndim == 0 else by,
    )


def step_time(
    architecture: Architecture,
    phase: Phase,
    precisions: Precisions,
    layout: Layout,
    device: Device,
    *,
    fused: bool = True,
    launch_s: Any = 0.0,
    algorithm: Algorithm = "ring",
    overlap: Any = 0.0,
) -> Any:
    """Seconds of one step at least, for numbers or for columns of phases.

    Args:
        fused: norms, rotations, activations and sums ride along with their neighbours and cost nothing. False adds
            their own bounds, as if each were a kernel of its own: not a bound any more.
        launch_s: overhead of each launch, of the operators that are counted.
        algorithm: of the collectives.
        overlap: share of the collectives' time that hides behind other work.

    Raises:
        LayoutError, PhaseError, LimitError, CollectiveError: for what cannot be.
    """
    # A column stays one where nothing depends on it, as a recurrent model's step on its context.
    total: Any = sum(0.0 * g.sequences * g.q_length * g.kv_length for g in phase.groups)
    listed = tuple(o for o in operations(architecture, phase, precisions, layout) if not (fused and o.fusible))
    for timed in operation_times(listed, device, algorithm=algorithm, overlap=overlap):
        total = total + timed.total_s + launch_s * timed.operation.work.launches * timed.operation.count
    return total
