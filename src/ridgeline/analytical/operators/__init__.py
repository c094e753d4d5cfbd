"""Problems of every operator and the closed forms of their work. Importing this package registers them all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ridgeline.analytical.operators.all_reduce import AllReduce, all_reduce_work
from ridgeline.analytical.operators.all_to_all import AllToAll, all_to_all_work
from ridgeline.analytical.operators.attention import Attention, attention_pairs, attention_work
from ridgeline.analytical.operators.collective import Collective
from ridgeline.analytical.operators.fma import Fma, fma_work
from ridgeline.analytical.operators.gemm import Gemm, gemm_work
from ridgeline.analytical.operators.stream import STREAM_ARRAYS, Stream, stream_work
from ridgeline.analytical.operators.weight_only_gemm import WeightOnlyGemm, weight_only_gemm_work
from ridgeline.analytical.problem import Problem, ProblemError, problem_classes

__all__ = [
    "STREAM_ARRAYS",
    "AllReduce",
    "AllToAll",
    "Attention",
    "Collective",
    "Fma",
    "Gemm",
    "Stream",
    "WeightOnlyGemm",
    "all_reduce_work",
    "all_to_all_work",
    "attention_pairs",
    "attention_work",
    "fma_work",
    "gemm_work",
    "make_problem",
    "stream_work",
    "weight_only_gemm_work",
]


def make_problem(operator: str, parameters: Mapping[str, Any]) -> Problem:
    """Build the problem of ``operator`` from named parameters.

    Raises:
        ProblemError: for an unknown operator (key ``operator``), an unknown or a missing parameter, or a shape that
            cannot be.
    """
    classes = problem_classes()
    if operator not in classes:
        raise ProblemError("operator", f"unknown operator {operator!r}: one of {', '.join(sorted(classes))}")
    cls = classes[operator]
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in parameters:
        if key not in known:
            raise ProblemError(key, f"{operator} has no such parameter; it takes {', '.join(known)}")
    for name, f in known.items():
        missing = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if missing and name not in parameters:
            raise ProblemError(name, f"{operator} needs it")
    return cls(**parameters)
