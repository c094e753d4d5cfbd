"""``all_to_all``: every rank sends a different part of its message to each rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.operators.collective import Collective, all_to_all_bus_factor, collective_work
from ridgeline.analytical.problem import ProblemError, problem
from ridgeline.analytical.work import Work


def all_to_all_work(message_bytes: Any, ranks: Any) -> Work:
    """Work of one of ``ranks`` ranks; ``link_bytes`` is what ``busbw`` counts, (n - 1) / n of the message."""
    return collective_work(message_bytes, all_to_all_bus_factor(ranks))


@problem("all_to_all")
@dataclass(frozen=True, kw_only=True)
class AllToAll(Collective):
    """``elements`` elements on each of ``ranks`` ranks; part q of rank r becomes part r of rank q."""

    def check(self) -> None:
        if self.elements % self.ranks:
            raise ProblemError("elements", f"{self.elements} elements have no {self.ranks} equal parts")

    def bus_factor(self) -> float:
        return float(all_to_all_bus_factor(float(self.ranks)))
