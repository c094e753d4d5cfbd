"""Smoothing and quantising Q, K and V in plain torch: the definition that every quantiser here is held against.

SageAttention2 (Zhang et al. 2024): smoothing of section 3.1, groups of section 3.2, FP8 values of section 3.3. Works in
the dtype of what it is given: float64 gives the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ridgeline.analytical.operators import QuantisedAttention
from ridgeline.analytical.operators.quantised_attention import (
    KEY_GROUPING,
    QUERY_BLOCK,
    QUERY_GROUPING,
    SCALED_VALUES,
    Grouping,
)

LARGEST: Mapping[str, float] = {"int8": 127.0, "int4": 7.0, "float8_e4m3fn": 448.0}
"""Value that the largest magnitude of a group becomes. int4 is held one value in a byte of int8."""
SCALE_FLOOR = 1e-7
"""Added to every scale, so that a group of zeros divides by no zero (quant_per_thread.py of thu-ml/SageAttention)."""


def storage(precision: str) -> torch.dtype:
    """dtype that a quantised tensor is held in: torch has no int4."""
    return torch.int8 if precision == "int4" else getattr(torch, precision)


def to_precision(scaled: torch.Tensor, precision: str) -> torch.Tensor:
    """Integers by rounding halves away from zero; FP8 by rounding to the nearest, halves to even."""
    if precision == "float8_e4m3fn":
        return scaled.to(torch.float8_e4m3fn)
    return (scaled + torch.copysign(torch.full_like(scaled, 0.5), scaled)).trunc().to(torch.int8)


def quantise_tokens(x: torch.Tensor, grouping: Grouping, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise ``x`` [batch, heads, length, d] with one scale a group of tokens.

    Returns the quantised tensor and its scales [batch, heads, groups]; a token is quantised value times the scale of
    ``grouping.group(token)``. A group that holds a NaN has the scale NaN, and whatever values.
    """
    group = grouping.group(torch.arange(x.shape[2], device=x.device))
    largest = torch.zeros(*x.shape[:2], int(grouping.groups(x.shape[2])), dtype=x.dtype, device=x.device)
    largest.scatter_reduce_(2, group.expand(x.shape[:3]), x.abs().amax(-1), "amax")
    scale = largest / LARGEST[precision] + SCALE_FLOOR
    return to_precision(x / scale[:, :, group, None], precision), scale


def quantise_channels(v: torch.Tensor, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise ``v`` [batch, heads, length, d] with one scale a channel: the tensor and its scales [batch, heads, d]."""
    scale = v.abs().amax(2) / LARGEST[precision] + SCALE_FLOOR
    return to_precision(v / scale[:, :, None], precision), scale


def smooth_tokens(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``x`` [batch, heads, length, d] less its mean over the tokens, and that mean [batch, heads, d]."""
    mean = x.mean(2)
    return x - mean[:, :, None], mean


def smooth_blocks(q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``q`` [batch, heads, length, d] less the mean of each block of 128 tokens, and the means [batch, heads, blocks, d]."""
    mean = torch.stack([block.mean(2) for block in q.split(QUERY_BLOCK, 2)], 2)
    return q - mean.repeat_interleave(QUERY_BLOCK, 2)[:, :, : q.shape[2]], mean


def correction_of(q_mean: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """q_mean K^T [batch, q_heads, blocks, S], which smoothing Q takes from the scores (Delta S, section 3.1).

    Args:
        q_mean: means of the blocks, [batch, q_heads, blocks, d].
        k: K as it was before it was quantised, after smoothing, [batch, kv_heads, S, d].
    """
    batch, q_heads, blocks, d = q_mean.shape
    grouped = q_mean.reshape(batch, k.shape[1], -1, d)
    return (grouped @ k.transpose(-1, -2)).reshape(batch, q_heads, blocks, k.shape[2])


@dataclass(frozen=True)
class Floats:
    """Q [batch, q_heads, T, d] and K, V [batch, kv_heads, S, d] before they are quantised; float32."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor


def quantise(problem: QuantisedAttention, floats: Floats) -> dict[str, torch.Tensor]:
    """What ``quantised_attention`` reads, by name as in its operator: smoothed and quantised as ``problem`` says."""
    q, k, v = floats.q, floats.k, floats.v
    inputs: dict[str, torch.Tensor] = {}
    if problem.smooth_k:
        k, _ = smooth_tokens(k)
    if problem.smooth_q:
        q, q_mean = smooth_blocks(q)
        inputs["correction"] = correction_of(q_mean, k)
    if problem.smooth_v:
        v, inputs["v_mean"] = smooth_tokens(v)
    inputs["q"], inputs["q_scale"] = quantise_tokens(q, QUERY_GROUPING[problem.granularity], problem.scores)
    inputs["k"], inputs["k_scale"] = quantise_tokens(k, KEY_GROUPING[problem.granularity], problem.scores)
    if problem.values in SCALED_VALUES:
        inputs["v"], inputs["v_scale"] = quantise_channels(v, problem.values)
    else:
        inputs["v"] = v.to(storage(problem.values))
    return inputs
