"""What collectives have in common: a message on each of several ranks, and the factor from ``algbw`` to ``busbw``.

Definitions and factors: nccl-tests, doc/PERFORMANCE.md. The message S of all_reduce is one rank's buffer; that of
all_to_all is what one rank sends in all, the part for itself included; that of all_gather and reduce_scatter is the
whole, of which a rank gives or gets the n-th part. ``algbw`` = S / t; ``busbw`` = algbw times a factor, which is the
share of S that every rank has to pass over its link: the bandwidth to compare with the hardware's. (A switch that adds
up in the network can pass less: the factor is that of ranks which do all the work.)
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
    """(n - 1) / n: all of a message but the part that stays on its rank. All-gather and reduce-scatter have it too."""
    return (ranks - 1.0) / ranks


def collective_work(message_bytes: Any, bus_factor: Any, *, read_share: Any = 1.0, written_share: Any = 1.0) -> Work:
    """Work of one rank: shares of the message read and written in its memory, ``bus_factor`` of it over its link."""
    message_bytes = 1.0 * message_bytes
    return Work(
        read_bytes={"activations": message_bytes * read_share},
        written_bytes={"activations": message_bytes * written_share},
        link_bytes=message_bytes * bus_factor,
    )


def all_gather_work(message_bytes: Any, ranks: Any) -> Work:
    """Work of one of ``ranks`` ranks: its n-th part of the message becomes the whole on every rank."""
    return collective_work(message_bytes, all_to_all_bus_factor(ranks), read_share=1.0 / ranks)


def reduce_scatter_work(message_bytes: Any, ranks: Any) -> Work:
    """Work of one of ``ranks`` ranks: of the sum of all ranks' messages, it gets the n-th part."""
    return collective_work(message_bytes, all_to_all_bus_factor(ranks), written_share=1.0 / ranks)


def send_work(message_bytes: Any) -> Work:
    """Work of the rank that sends a message to another, which writes it."""
    return collective_work(message_bytes, 1.0, written_share=0.0)


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
