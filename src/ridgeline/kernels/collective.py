"""What the operators of several ranks have in common: a message of each rank, and one message that a kernel sees."""

from __future__ import annotations

import copy
from typing import Any

import torch

from ridgeline.analytical.operators import Collective
from ridgeline.kernels.registry import Operator, Tensors, Tolerance


class CollectiveOperator(Operator):
    """Inputs ``rank_0``, ``rank_1``, ...: the messages of all ranks, standard normal.

    Every rank makes all of them from the same seed, because its reference needs them; a kernel sees its own alone.
    """

    rank: int = 0
    """Whose output the reference is."""

    def of_rank(self, rank: int) -> Operator:
        own = copy.copy(self)
        own.rank = rank
        return own

    def hidden_inputs(self, problem: Collective) -> frozenset[str]:
        return frozenset(f"rank_{rank}" for rank in range(problem.ranks) if rank != self.rank)

    def make_inputs(self, problem: Collective, generator: torch.Generator) -> Tensors:
        dtype = getattr(torch, problem.precision)
        return {
            f"rank_{rank}": torch.randn(problem.elements, generator=generator).to(dtype)
            for rank in range(problem.ranks)
        }

    def make_output(self, problem: Collective) -> torch.Tensor:
        return torch.empty(problem.elements, dtype=getattr(torch, problem.precision))

    def reference(self, problem: Any, constants: Tensors, inputs: Tensors, rows: torch.Tensor | None) -> torch.Tensor:
        result = self.outcome([inputs[f"rank_{rank}"].double() for rank in range(problem.ranks)])
        return result if rows is None else result[None][rows]

    def outcome(self, messages: list[torch.Tensor]) -> torch.Tensor:
        """This rank's output, from the float64 messages of all ranks."""
        raise NotImplementedError


EXACT = Tolerance(0.0, "a copy is exact")
