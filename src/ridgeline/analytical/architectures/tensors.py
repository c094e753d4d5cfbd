"""The weights of each part by operator, and how parallelism splits them: what memory and quantisation need to know."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, assert_never

from ridgeline.analytical.architectures.mixers import (
    Attention,
    GatedDelta,
    LatentAttention,
    SelectiveScan,
    StateSpaceDuality,
)
from ridgeline.analytical.architectures.parts import (
    Convolution,
    Embedding,
    Experts,
    Linear,
    Mlp,
    Norm,
    Residual,
    Tensor,
)
from ridgeline.analytical.architectures.stack import Part

Split = Literal["none", "tp", "kv", "experts"]
"""Whole on every device; sliced by tp; sliced by tp but at least one KV head each; spread over ep, the rest by tp."""


@dataclass(frozen=True)
class Weights:
    """``count`` weights of one operator."""

    operator: str
    """Name of the operator that reads them, as :func:`operations` names it."""
    count: int
    split: Split
    is_matrix: bool = True
    """Whether they are stored as ``Precisions.weights`` says; vectors and filters stay at 16 bits or more."""


def _vector(operator: str, count: int, split: Split = "none") -> list[Weights]:
    return [Weights(operator, count, split, is_matrix=False)] if count else []


def weights_of(part: Part) -> tuple[Weights, ...]:
    """Every weight of a part; their counts add up to its ``parameter_count``."""
    match part:
        case Norm():
            found = _vector("norm", part.parameter_count)
        case Residual():
            found = []
        case Tensor():
            found = _vector(part.name, part.parameter_count)
        case Embedding():
            found = [Weights(part.name, part.parameter_count, "tp" if part.name == "embedding" else "none")]
        case Linear():
            matrix = 0 if part.tied else part.inputs * part.outputs
            split: Split = "tp" if part.name == "lm_head" else "none"
            found = [Weights(part.name, matrix, split), *_vector(part.name, part.outputs * part.bias, split)]
        case Convolution():
            filters = part.outputs * (part.inputs // part.groups) * prod(part.kernel)
            found = _vector(part.name, filters + part.outputs * part.bias)
        case Attention():
            found = _attention(part)
        case LatentAttention():
            found = _latent(part)
        case SelectiveScan() | StateSpaceDuality() | GatedDelta():
            found = _recurrent(part)
        case Mlp():
            found = mlp_weights(part, "")
        case Experts():
            found = _experts(part)
        case _ as never:
            assert_never(never)
    return tuple(each for each in found if each.count)


def _attention(part: Attention) -> list[Weights]:
    prefix = "cross_" if part.cross else ""
    source = part.source_width or part.width
    k, v = part.kv_heads * part.head_dim, part.kv_heads * part.value_dim
    query, pair = (f"{prefix}q", f"{prefix}kv") if part.cross else ("qkv", "qkv")
    found = [
        Weights(query, part.width * part.q_outputs, "tp"),
        Weights(pair, source * (k + v), "kv"),
        Weights(f"{prefix}o", part.q_heads * part.value_dim * part.width, "tp"),
    ]
    found += _vector(query, part.q_outputs * part.q_bias, "tp")
    found += _vector(pair, k * part.k_bias + v * part.v_bias, "kv")
    found += _vector(f"{prefix}o", part.width * part.o_bias)
    found += _vector("norm", sum(norm.parameter_count for norm in (part.q_norm, part.k_norm) if norm is not None))
    found += _vector("attention", part.q_heads * part.sinks, "tp")
    if part.relative:
        heads = part.q_heads * part.head_dim
        found += [
            Weights("relative_positions", part.width * heads, "tp"),
            *_vector("relative_positions", 2 * heads, "tp"),
        ]
    return found


def _latent(part: LatentAttention) -> list[Weights]:
    query = part.heads * (part.nope_dim + part.rope_dim)
    down = part.kv_rank + part.rope_dim
    found = []
    if part.q_rank is None:
        found.append(Weights("q_b", part.width * query, "tp"))
    else:
        found += [Weights("qkv_a", part.width * part.q_rank, "none"), Weights("q_b", part.q_rank * query, "tp")]
        found += _vector("norm", part.q_rank) + _vector("qkv_a", part.q_rank * part.bias)
    found += [
        Weights("qkv_a", part.width * down, "none"),
        Weights("kv_b", part.kv_rank * part.heads * (part.nope_dim + part.value_dim), "tp"),
        Weights("o", part.heads * part.value_dim * part.width, "tp"),
    ]
    found += _vector("norm", part.kv_rank) + _vector("qkv_a", down * part.bias) + _vector("o", part.width * part.bias)
    if part.indexer is not None:
        keys = part.indexer.heads * part.indexer.head_dim
        matrices = (part.q_rank or part.width) * keys + part.width * (part.indexer.head_dim + part.indexer.heads)
        found += [Weights("indexer", matrices, "none"), *_vector("norm", 2 * part.indexer.head_dim)]
    return found


def _recurrent(part: SelectiveScan | StateSpaceDuality | GatedDelta) -> list[Weights]:
    if isinstance(part, SelectiveScan):
        found = [
            Weights("in_proj", part.width * 2 * part.inner, "tp"),
            Weights("x_proj", part.inner * (part.dt_rank + 2 * part.state), "tp"),
            Weights("dt_proj", part.dt_rank * part.inner, "tp"),
            Weights("out_proj", part.inner * part.width, "tp"),
        ]
        found += _vector("conv", part.inner * (part.conv + part.conv_bias), "tp")
        found += _vector("scan", part.inner * (part.state + 2), "tp")
        found += _vector("in_proj", 2 * part.inner * part.bias, "tp") + _vector("out_proj", part.width * part.bias)
        return found + _vector("norm", part.inner_norms * (part.dt_rank + 2 * part.state))
    value = part.inner if isinstance(part, StateSpaceDuality) else part.value_heads * part.value_dim
    found = [
        Weights("in_proj", part.width * part.in_outputs, "tp"),
        Weights("out_proj", value * part.width, "tp"),
    ]
    if isinstance(part, StateSpaceDuality):
        found += _vector("conv", part.conv_channels * (part.conv + part.conv_bias), "tp")
        found += _vector("scan", 3 * part.heads, "tp") + _vector("norm", part.inner * part.norm, "tp")
        found += _vector("in_proj", part.in_outputs * part.bias, "tp") + _vector("out_proj", part.width * part.bias)
    else:
        found += _vector("conv", part.conv_channels * part.conv, "tp")
        found += _vector("scan", 2 * part.value_heads, "tp") + _vector("norm", part.value_dim)
    return found


def mlp_weights(part: Mlp, prefix: str) -> list[Weights]:
    """Weights of an MLP whose operators' names begin with ``prefix``."""
    ups = 2 if part.gated else 1
    up = f"{prefix}gate_up" if part.gated else f"{prefix}up"
    found = [
        Weights(up, ups * part.width * part.intermediate, "tp"),
        Weights(f"{prefix}down", part.intermediate * part.width, "tp"),
    ]
    found += _vector(up, ups * part.intermediate * part.bias, "tp")
    return found + _vector(f"{prefix}down", part.width * part.bias)


def _experts(part: Experts) -> list[Weights]:
    ups, inner = (2 if part.gated else 1), part.latent or part.width
    found = _vector("router", part.width * part.count + part.count * part.router_bias + part.width * part.shared_gate)
    found += [
        Weights("experts_up", part.count * ups * inner * part.intermediate, "experts"),
        Weights("experts_down", part.count * part.intermediate * inner, "experts"),
    ]
    if part.bias:
        found += _vector("experts_up", part.count * ups * part.intermediate, "experts")
        found += _vector("experts_down", part.count * inner, "experts")
    if part.latent is not None:
        found.append(Weights("latent", 2 * part.width * part.latent, "none"))
    return found + (mlp_weights(part.shared, "shared_") if part.shared is not None else [])
