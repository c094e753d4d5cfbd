"""Issue bound: the fewest cycles in which a multiprocessor can issue one turn of a compiled kernel's main loop.

Every instruction occupies its pipe for as long as the pipe's published rate says, and nothing else is counted: no
latency, no bank conflict, no cache miss, no barrier. Where pipes overlap perfectly, a turn takes as long as the busiest
one (``overlapped``); where they never do, as long as all of them together (``serial``). Time spent in the matrix unit
over either is an upper bound on the share of the matrix roof: of any schedule the first, of one without overlap the
second. A real kernel with some overlap lies below the first; below the second it also waits for something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ridgeline.analytical.multiprocessor import Multiprocessor


@dataclass(frozen=True)
class IssueBound:
    """Cycles of one multiprocessor for one turn of the main loop of one program."""

    cycles: Mapping[str, float]
    """By pipe."""
    overlapped_cycles: float
    """The busiest pipe's."""
    serial_cycles: float
    """Of all pipes together; the schedulers' issue slots are no pipe of their own here, since each issue is one of those."""
    bound_by: str
    """The busiest pipe."""
    overlapped_share: float | None
    """Upper bound on the share of the matrix roof with perfect overlap; ``None`` without matrix instructions."""
    serial_share: float | None
    """The same without any overlap."""
    not_counted: Mapping[str, float]
    """Results by kind of instruction that has no published rate: the bound leaves them out."""


def issue_bound(
    unit: Multiprocessor, results: Mapping[str, float], matrix_flop: Mapping[str, float]
) -> IssueBound | None:
    """The bound of one turn of the main loop; ``None`` where it uses no pipe at all.

    Args:
        unit: the multiprocessor.
        results: by kind of instruction (keys of ``unit.rates``), over all lanes and warps of a program; for loads and
            stores 4-byte words.
        matrix_flop: operations of the matrix unit by precision of the operands, over all warps of a program.

    Raises:
        ValueError: for a precision that the unit's matrix instructions do not take.
    """
    cycles = dict.fromkeys(unit.pipes, 0.0)
    not_counted: dict[str, float] = {}
    for kind, amount in results.items():
        rate = unit.rates.get(kind)
        if rate is None:
            not_counted[kind] = amount
        else:
            cycles[rate.pipe] += amount / rate.lanes_per_cycle
    for precision, flop in matrix_flop.items():
        per_cycle = unit.matrix_flop_per_cycle(precision)
        if per_cycle is None:
            raise ValueError(f"{unit.target}: no rate of the matrix unit on {precision}")
        cycles["matrix"] += flop / per_cycle
    busiest = max(cycles, key=lambda pipe: cycles[pipe])
    if not cycles[busiest] > 0.0:
        return None
    # Each issue slot is taken by an instruction that is counted in its pipe: in sum they would count twice.
    serial = max(sum(value for pipe, value in cycles.items() if pipe != "issue"), cycles[busiest])
    matrix = cycles["matrix"]
    return IssueBound(
        cycles,
        cycles[busiest],
        serial,
        busiest,
        matrix / cycles[busiest] if matrix else None,
        matrix / serial if matrix else None,
        not_counted,
    )
