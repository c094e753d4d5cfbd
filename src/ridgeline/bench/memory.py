"""What a case needs in memory, held against what is there, before anything of it is allocated.

A case that does not fit would be killed by the watchdog or by the system when its buffers are half made, after seconds
of swapping that disturb every other case, and its reason would not say how much is missing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch

from ridgeline.analytical.problem import Problem
from ridgeline.bench.checks import fully_checked
from ridgeline.bench.devices.unit import Session
from ridgeline.kernels.registry import Operator, Tensors

FAR = 16.0
"""Times a problem's own count of its bytes that is there, from which nothing is looked at closer: int8 operands take
eight times their size in float64, and one set of buffers is checked at a time."""


class TooLargeError(MemoryError):
    """A case that needs more memory than there is. One line: the bytes needed, the bytes there, what needs them."""


@dataclass(frozen=True)
class Size:
    """Of some tensors together."""

    bytes: float
    elements: int


@dataclass(frozen=True)
class Sizes:
    """Of the tensors of one launch."""

    constants: Size
    inputs: Size
    output: Size

    @property
    def bytes(self) -> float:
        """Of one set of buffers."""
        return self.constants.bytes + self.inputs.bytes + self.output.bytes


def sizes_of(operator: Operator, problem: Problem) -> Sizes | None:
    """Sizes of what ``operator`` makes for ``problem``, without making it: on torch's meta device, which has no memory.

    ``None`` for an operator that asks its tensors for values (a routing, a block mask): those have none.
    """
    generator = torch.Generator()
    try:
        with torch.device("meta"):
            return Sizes(
                _size(operator.make_constants(problem, generator)),
                _size(operator.make_inputs(problem, generator)),
                _size({"out": operator.make_output(problem)}),
            )
    except Exception:  # torch has an error class of its own for each way of asking
        return None


def _size(tensors: Tensors) -> Size:
    return Size(
        float(sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())),
        sum(tensor.numel() for tensor in tensors.values()),
    )


def refuse_beyond_memory(
    operator: Operator,
    problem: Problem,
    session: Session,
    *,
    slots: int,
    eviction_bytes: float,
    limit_bytes: float | None,
) -> None:
    """Compare what a case needs with what is there. What ``prepare`` packs is not known and not counted.

    Args:
        operator: as the case's rank sees it.
        problem: the case's.
        session: where it runs.
        slots: sets of constants, inputs and output that are made.
        eviction_bytes: what is written between blocks to empty the caches.
        limit_bytes: resident size at which this process is ended; ``None`` for no such limit.

    Raises:
        TooLargeError: where it does not fit.
    """
    # Before anything is asked of the operator: one that fills numpy arrays would allocate even for the meta device.
    each = problem.footprint_bytes()
    told = f"{slots} sets of buffers of {_gigabytes(each)}"
    _compare(session, slots * each + eviction_bytes, 0.0, limit_bytes, told)
    least = min(_host_bytes(limit_bytes), math.inf if (free := session.free_bytes()) is None else free)
    if FAR * (slots * each + eviction_bytes) <= least:
        return  # the meta device costs a process a second of imports
    sizes = sizes_of(operator, problem)
    if sizes is None:
        return
    # On the host, whatever the unit: constants as they were made, inputs as they were given, and the reference's
    # float64. Where outputs are compared in full that is everything; for sampled rows the constants, which all need.
    in_float64 = sizes.constants.elements
    if fully_checked(problem, sizes.output.elements):
        in_float64 += sizes.inputs.elements + sizes.output.elements
    checking = sizes.constants.bytes + sizes.inputs.bytes + 8.0 * in_float64
    told = f"{slots} sets of buffers of {_gigabytes(sizes.bytes)}, {_gigabytes(checking)} to check them"
    _compare(session, slots * sizes.bytes + eviction_bytes, checking, limit_bytes, told)


def affordable_slots(fit: Callable[[int, float], None], slots: int, eviction_bytes: float) -> int:
    """How many sets of buffers there may be, ``slots`` at most and two at least; fewer need room for ``eviction_bytes``.

    Args:
        fit: :func:`refuse_beyond_memory` for so many sets and so many bytes beside them.
        slots: as many as are wanted.
        eviction_bytes: what has to be written between blocks where fewer are made.

    Raises:
        TooLargeError: where not even two fit; it tells what two would need.
    """
    with contextlib.suppress(TooLargeError):
        fit(slots, 0.0)
        return slots
    fit(2, eviction_bytes)
    fits, too_many = 2, slots
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        try:
            fit(middle, eviction_bytes)
            fits = middle
        except TooLargeError:
            too_many = middle
    return fits


def _compare(session: Session, buffers: float, checking: float, limit_bytes: float | None, told: str) -> None:
    free = session.free_bytes()
    if free is None:
        _fits(buffers + checking, _host_bytes(limit_bytes), "", told)
    else:
        _fits(buffers, free, " on the card", told)
        _fits(checking, _host_bytes(limit_bytes), " on the host", told)


def _fits(need: float, there: float, where: str, told: str) -> None:
    if need > there:
        raise TooLargeError(f"needs {_gigabytes(need)}{where}, {_gigabytes(there)} are there ({told})")


def _host_bytes(limit_bytes: float | None) -> float:
    available = float(psutil.virtual_memory().available)
    if limit_bytes is None:
        return available
    return max(0.0, min(available, limit_bytes - psutil.Process().memory_info().rss))


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size < 1e12 else f"{size / 1e9:,.0f} GB"
