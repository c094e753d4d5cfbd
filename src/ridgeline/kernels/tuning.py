"""Tuning spaces: the configurations that an implementation declares, and which of them a GPU cannot run well.

A module with implementations may offer

- ``configurations(problem) -> Sequence[Mapping]``: what is worth trying on a problem, as ``Context.config`` takes it;
- ``compilation(problem, config) -> Compilation``: a Triton kernel as that configuration compiles it, from which the
  machine code tells without a GPU what does not fit or spills.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.multiprocessor import multiprocessors
from ridgeline.analytical.occupancy import occupancy
from ridgeline.analytical.problem import Problem
from ridgeline.kernels.compile_all import compile_here
from ridgeline.kernels.compiled import TARGETS, CompileError
from ridgeline.kernels.registry import Implementation

MOST_SPILLED_BYTES = 256
"""Spills of a thread up to which a configuration is worth measuring: before and after the main loop they cost little. On an
H200 the fastest tile of quantised attention at d = 128 spilled 208 bytes, and was 1.14 times as fast as the best without."""


@dataclass(frozen=True)
class Candidate:
    """One configuration of a tuning space."""

    config: Mapping[str, Any]
    refused: str = ""
    """Why it is not worth running: it spills much, does not fit or does not compile; empty where it may be good."""


def space(implementation: Implementation, problem: Problem) -> list[Mapping[str, Any]]:
    """The configurations that the implementation's module declares for ``problem``; none where it declares none."""
    declared = getattr(sys.modules[implementation.prepare.__module__], "configurations", None)
    return [] if declared is None else [dict(config) for config in declared(problem)]


def candidates(implementation: Implementation, problem: Problem, architecture: str = "") -> list[Candidate]:
    """The tuning space, judged from the compiled code where the implementation offers that.

    Args:
        implementation: whose module declares the space.
        problem: what it is tuned on.
        architecture: a target of :data:`ridgeline.kernels.compiled.TARGETS`; for any other nothing is compiled, and no
            candidate is refused.
    """
    configs = space(implementation, problem)
    compilation = getattr(sys.modules[implementation.prepare.__module__], "compilation", None)
    if compilation is None or architecture not in TARGETS:
        return [Candidate(config) for config in configs]
    return [Candidate(config, _refusal(compilation(problem, config), architecture)) for config in configs]


def _refusal(compilation: Any, architecture: str) -> str:
    try:
        code = compile_here(compilation, architecture)
    except CompileError as error:
        return str(error)
    fits = occupancy(
        multiprocessors()[architecture], registers=code.registers, shared_bytes=code.shared_bytes, warps=code.num_warps
    )
    if not fits.blocks:
        return f"does not fit on {architecture}: too much of {' and '.join(fits.limited_by)}"
    if code.spills_bytes > MOST_SPILLED_BYTES:
        return f"spills {code.spills_bytes} bytes per thread on {architecture}"
    return ""
