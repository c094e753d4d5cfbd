"""Every kernel of a card on its operator's test problems, held against float64: a part of ``make gpu-check``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ridgeline.bench.paper_checks.lab import Lab

COMPILED_BY_TORCH = ("torch_compile", "torch_flex")
PROBLEMS_OF_A_CHECK = 4
"""Test problems of one check of what torch compiles, which takes it ten seconds for each; of other kernels all are one."""


@dataclass(frozen=True)
class KernelCheck:
    """Some test problems of one implementation: every ``parts``-th, from number ``part`` on (from 0)."""

    operator: str
    implementation: str
    part: int
    parts: int

    @property
    def name(self) -> str:
        """``operator/implementation part+1/parts``."""
        return f"{self.operator}/{self.implementation} {self.part + 1}/{self.parts}"

    @classmethod
    def named(cls, name: str) -> KernelCheck:
        """The inverse of :attr:`name`."""
        kernel, _, parts = name.partition(" ")
        operator, implementation = kernel.split("/")
        part, count = map(int, parts.split("/"))
        return cls(operator, implementation, part - 1, count)


def kernel_checks(device: str) -> list[KernelCheck]:
    """Everything that runs on one device of this torch type, what torch has to compile first: it takes longest."""
    from ridgeline.kernels.collective import CollectiveOperator
    from ridgeline.kernels.registry import get_operator, implementations, load

    load()
    found: list[KernelCheck] = []
    for implementation in implementations():
        operator = get_operator(implementation.operator)
        if device in implementation.devices and not isinstance(operator, CollectiveOperator):
            slow = implementation.name in COMPILED_BY_TORCH
            parts = max(1, math.ceil(len(operator.test_problems) / PROBLEMS_OF_A_CHECK)) if slow else 1
            found += [KernelCheck(operator.name, implementation.name, part, parts) for part in range(parts)]
    return sorted(found, key=lambda check: check.implementation not in COMPILED_BY_TORCH)


def kernel_errors(lab: Lab, check: KernelCheck) -> dict[str, Any]:
    """Worst relative error of one implementation against its operator's reference, over the problems that it takes.

    Raises:
        AssertionError: naming the problems where it is above its tolerance.
        Unsupported: where it takes none of them here.
    """
    from ridgeline.bench.checks import IncorrectError
    from ridgeline.bench.launches import tolerance_of
    from ridgeline.kernels.registry import Unsupported, get_implementation, get_operator

    operator = get_operator(check.operator)
    implementation = get_implementation(check.operator, check.implementation)
    errors: dict[str, float] = {}
    wrong: list[str] = []
    refused = "it has no test problem"
    for problem in operator.test_problems[check.part :: check.parts]:
        accepted = tolerance_of(operator, implementation, problem)
        try:
            error = lab.worst_error(operator.name, problem, implementation.name)
        except Unsupported as reason:
            refused = str(reason)
            continue
        except IncorrectError as reason:
            wrong.append(f"{problem.label}: {reason}")
            continue
        errors[problem.label] = error
        if error > accepted:
            wrong.append(f"{problem.label}: {error:.2g} is above {accepted:.2g}")
    assert not wrong, f"{len(wrong)} of {len(wrong) + len(errors)}: " + "; ".join(wrong)
    if not errors:
        raise Unsupported(refused)
    worst = max(errors, key=errors.__getitem__)
    return {"problems": len(errors), "worst_error": errors[worst], "at": worst}
