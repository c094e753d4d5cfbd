"""Problems of every operator and the closed forms of their work. Importing this package registers them all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ridgeline.analytical.operators.activation import ACTIVATIONS, Activation, activation_work
from ridgeline.analytical.operators.all_reduce import AllReduce, all_reduce_work
from ridgeline.analytical.operators.all_to_all import AllToAll, all_to_all_work
from ridgeline.analytical.operators.attention import (
    Attention,
    attended_keys,
    attention_pairs,
    attention_work,
    pages,
)
from ridgeline.analytical.operators.collective import Collective, all_gather_work, reduce_scatter_work, send_work
from ridgeline.analytical.operators.elementwise import elementwise_work
from ridgeline.analytical.operators.embedding import embedding_work
from ridgeline.analytical.operators.fma import Fma, fma_work
from ridgeline.analytical.operators.gemm import Gemm, gemm_work
from ridgeline.analytical.operators.mla import mla_projection_work, mla_work
from ridgeline.analytical.operators.moe import distinct_experts, moe_gemm_work, moe_routing_work
from ridgeline.analytical.operators.norm import NORMS, norm_work
from ridgeline.analytical.operators.rope import rope_work
from ridgeline.analytical.operators.softmax import softmax_work
from ridgeline.analytical.operators.stream import STREAM_ARRAYS, Stream, stream_work
from ridgeline.analytical.operators.weight_only_gemm import WeightOnlyGemm, weight_only_gemm_work
from ridgeline.analytical.problem import Problem, ProblemError, problem_classes

__all__ = [
    "ACTIVATIONS",
    "NORMS",
    "STREAM_ARRAYS",
    "Activation",
    "AllReduce",
    "AllToAll",
    "Attention",
    "Collective",
    "Fma",
    "Gemm",
    "Stream",
    "WeightOnlyGemm",
    "activation_work",
    "all_gather_work",
    "all_reduce_work",
    "all_to_all_work",
    "attended_keys",
    "attention_pairs",
    "attention_work",
    "distinct_experts",
    "elementwise_work",
    "embedding_work",
    "fma_work",
    "gemm_work",
    "make_problem",
    "mla_projection_work",
    "mla_work",
    "moe_gemm_work",
    "moe_routing_work",
    "norm_work",
    "pages",
    "reduce_scatter_work",
    "rope_work",
    "send_work",
    "softmax_work",
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
