"""``all_reduce``: every rank gets the sum of all ranks' messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.operators.collective import Collective, all_reduce_bus_factor, collective_work
from ridgeline.analytical.problem import problem
from ridgeline.analytical.work import Work


def all_reduce_work(message_bytes: Any, ranks: Any) -> Work:
    """Work of one of ``ranks`` ranks; ``link_bytes`` is what ``busbw`` counts, 2 (n - 1) / n of the message."""
    return collective_work(message_bytes, all_reduce_bus_factor(ranks))


@problem("all_reduce")
@dataclass(frozen=True, kw_only=True)
class AllReduce(Collective):
    """Sum over ``ranks`` ranks of ``elements`` elements each, left on every one of them."""

    def bus_factor(self) -> float:
        return float(all_reduce_bus_factor(float(self.ranks)))
