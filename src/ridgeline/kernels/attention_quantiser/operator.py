"""``attention_quantiser``: inputs, reference and tolerance of the pass that quantises Q, K or V for attention."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import AttentionQuantiser
from ridgeline.analytical.operators.quantised_attention import KEY_GROUPING, QUERY_GROUPING
from ridgeline.kernels.quantised_attention.operator import KEY_BIAS, VALUE_MEAN
from ridgeline.kernels.quantised_attention.quantise import (
    quantise_channels,
    quantise_tokens,
    smooth_blocks,
    smooth_tokens,
    storage,
)
from ridgeline.kernels.registry import Operator, Tensors, Tolerance, operator

BIAS = {"query": 0.0, "key": KEY_BIAS, "value": VALUE_MEAN}
"""Magnitude of the bias of each channel, by role."""


def quantise_as(problem: AttentionQuantiser, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``x`` [batch, heads, length, d] smoothed and quantised as ``problem`` says, and the scales, in the dtype of ``x``."""
    if problem.smooth:
        x, _ = smooth_blocks(x) if problem.role == "query" else smooth_tokens(x)
    if problem.role == "value":
        return quantise_channels(x, problem.to)
    grouping = QUERY_GROUPING if problem.role == "query" else KEY_GROUPING
    return quantise_tokens(x, grouping[problem.granularity], problem.to)


def _case(
    shape: tuple[int, int, int, int], role: str, to: str, granularity: str, smooth: bool, precision: str = "float32"
) -> AttentionQuantiser:
    batch, heads, length, head_dim = shape
    return AttentionQuantiser(
        batch=batch, heads=heads, length=length, head_dim=head_dim, role=role, to=to, granularity=granularity,
        smooth=smooth, precision=precision,
    )  # fmt: skip


@operator
class AttentionQuantiserOperator(Operator):
    """Integers (or FP8 numbers) [batch, heads, length, d] of ``x`` of that shape, normal with a bias of each channel.

    An implementation writes the scales too, to memory of its own: the integers show whether a scale is right, as they
    are what X is in units of it.
    """

    name = "attention_quantiser"
    baselines = {"cpu": "torch_eager", "cuda": "torch_eager"}
    # A value close to the middle of two integers may become either: one in 1e5 of them, off by one in about 40 (int8)
    # or 2.5 (int4). Seen: 2e-4 where one did.
    tolerances = {
        precision: Tolerance(1e-2, "float32 arithmetic: a value between two integers may become the other one")
        for precision in ("float32", "float16", "bfloat16")
    }
    test_problems = (
        _case((1, 1, 1, 16), "key", "int8", "thread", False),
        _case((2, 3, 131, 64), "key", "int8", "thread", True),
        _case((1, 2, 70, 40), "key", "int4", "block", True),
        _case((1, 2, 300, 64), "query", "int8", "thread", True),
        _case((1, 3, 33, 24), "query", "int4", "warp", False),
        _case((2, 2, 65, 128), "key", "int8", "token", True, "float16"),
        _case((1, 4, 130, 80), "query", "int8", "block", True, "bfloat16"),
        _case((1, 2, 67, 64), "value", "float8_e4m3fn", "channel", True),
        _case((1, 2, 34, 40), "value", "float8_e4m3fn", "channel", False, "float16"),
    )

    def make_inputs(self, problem: AttentionQuantiser, generator: torch.Generator) -> dict[str, torch.Tensor]:
        bias = torch.randn(problem.batch, problem.heads, 1, problem.head_dim, generator=generator)
        bias = BIAS[problem.role] * (bias if problem.role == "value" else bias.sign())
        shape = (problem.batch, problem.heads, problem.length, problem.head_dim)
        return {"x": (torch.randn(shape, generator=generator) + bias).to(getattr(torch, problem.precision))}

    def make_output(self, problem: AttentionQuantiser) -> torch.Tensor:
        shape = (problem.batch, problem.heads, problem.length, problem.head_dim)
        return torch.empty(shape, dtype=storage(problem.to))

    def reference(
        self, problem: AttentionQuantiser, constants: Tensors, inputs: Tensors, rows: torch.Tensor | None
    ) -> torch.Tensor:
        values, _ = quantise_as(problem, inputs["x"].double())
        values = values.double()
        return values if rows is None else values.reshape(-1, problem.head_dim)[rows.long()]
