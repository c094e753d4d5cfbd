"""Checks: an output against the float64 reference, in full where that is cheap, on sampled rows where it is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from ridgeline.analytical.problem import Problem
from ridgeline.kernels.registry import Operator, Tensors

FULL_FLOP = 2e8
FULL_ELEMENTS = 4_000_000
"""Up to these an output is compared in full: a float64 reference of this size takes well under 0.1 s on two cores."""
SAMPLED_ROWS = 16


class IncorrectError(Exception):
    """An output that is not the reference's, within tolerance. The text is the reason of the record."""


def poison(out: torch.Tensor) -> None:
    """Fill ``out`` with a value no kernel may leave behind: NaN, or the largest integer but one."""
    out.fill_(float("nan") if out.dtype.is_floating_point else torch.iinfo(out.dtype).max - 1)


def fully_checked(problem: Problem, output_elements: int) -> bool:
    """Whether outputs of this problem are compared in full; else on sampled rows."""
    return float(problem.expected_work().flop) <= FULL_FLOP and output_elements <= FULL_ELEMENTS


@dataclass
class Checker:
    """Compares outputs of one problem and keeps the worst error seen."""

    operator: Operator
    problem: Problem
    constants: Tensors
    generator: torch.Generator
    tolerance: float
    error_relative: float = 0.0
    error_worst: float = 0.0
    rows_checked: int = 0
    _full: bool = field(init=False)

    def __post_init__(self) -> None:
        self._full = fully_checked(self.problem, self.operator.make_output(self.problem).numel())

    def check(self, inputs: Tensors, out: torch.Tensor, when: str) -> None:
        """Compare ``out`` with the reference of ``inputs``.

        Raises:
            IncorrectError: above the tolerance, or not finite.
        """
        out = out.detach().cpu()
        flat = out.reshape(-1, self.operator.row_elements(self.problem, out))
        rows = None if self._full or flat.shape[0] <= SAMPLED_ROWS else self._sample(flat.shape[0])
        inputs = {name: tensor.cpu() for name, tensor in inputs.items()}
        expected = self.operator.reference(self.problem, self.constants, inputs, rows).double()
        found = (flat if rows is None else flat[rows]).double().reshape(expected.shape)
        self.rows_checked += flat.shape[0] if rows is None else len(rows)
        if not torch.isfinite(found).all():
            bad = int((~torch.isfinite(found)).sum())
            raise IncorrectError(f"{when}: {bad} of {found.numel()} checked elements are not finite or not written")
        difference = (found - expected).abs()
        norm = float(expected.norm())
        relative = float(difference.norm()) / norm if norm > 0.0 else float(difference.norm())
        scale = norm / expected.numel() ** 0.5
        worst = float(difference.max()) / scale if scale > 0.0 else float(difference.max())
        self.error_relative = max(self.error_relative, relative)
        self.error_worst = max(self.error_worst, worst)
        if relative > self.tolerance:
            raise IncorrectError(
                f"{when}: relative error {relative:.3g} is above the tolerance {self.tolerance:.3g} "
                f"(worst element off by {worst:.3g} of the typical magnitude)"
            )

    def _sample(self, count: int) -> torch.Tensor:
        """First, last, and random rows between; new ones at every check."""
        middle = torch.randint(0, count, (SAMPLED_ROWS - 2,), generator=self.generator)
        return torch.cat([torch.tensor([0, count - 1]), middle]).unique()

    def facts(self) -> dict[str, Any]:
        """The record's fields."""
        return {
            "error_relative": self.error_relative,
            "error_worst": self.error_worst,
            "error_tolerance": self.tolerance,
            "rows_checked": self.rows_checked,
        }
