"""What collectives have in common: a message on each of several ranks, and the factor from ``algbw`` to ``busbw``.

Definitions and factors: nccl-tests, doc/PERFORMANCE.md. The message S of all_reduce is one rank's buffer; that of
all_to_all is what one rank sends in all, the part for itself included. ``algbw`` = S / t; ``busbw`` = algbw times a
factor, which is the share of S that every rank has to pass over its link: the bandwidth to compare with the hardware's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.operators.stream import format_bytes
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, Structure
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import Work


def all_reduce_bus_factor(ranks: Any) -> Any:
    """2 (n - 1) / n: n - 1 additions and n - 1 further copies of each element, over n links."""
    return 2.0 * (ranks - 1.0) / ranks


def all_to_all_bus_factor(ranks: Any) -> Any:
    """(n - 1) / n: all of a message but the part that stays on its rank."""
    return (ranks - 1.0) / ranks


def collective_work(message_bytes: Any, bus_factor: Any) -> Work:
    """Work of one rank: its message read and as much written in its memory; ``bus_factor`` of it over its link."""
    message_bytes = 1.0 * message_bytes
    return Work(
        read_bytes={"activations": message_bytes},
        written_bytes={"activations": message_bytes},
        link_bytes=message_bytes * bus_factor,
    )


@dataclass(frozen=True, kw_only=True)
class Collective(Problem):
    """A collective of ``ranks`` ranks on a message of ``elements`` elements of ``precision`` on each."""

    elements: int
    precision: str
    ranks: int = 1

    @property
    def message_bytes(self) -> float:
        """S of nccl-tests."""
        return float(bytes_of(float(self.elements), self.precision))

    def bus_factor(self) -> float:
        """``busbw`` over ``algbw``."""
        raise TypeError(f"{type(self).__name__} states no bus factor")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return collective_work(self.message_bytes, self.bus_factor())

    @property
    def label(self) -> str:
        return f"{format_bytes(self.message_bytes)} {self.precision} x {self.ranks}"
