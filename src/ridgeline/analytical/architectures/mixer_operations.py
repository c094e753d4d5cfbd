"""Operators of the mixers: attention of several kinds, and recurrences."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import assert_never

import numpy as np

from ridgeline.analytical.architectures.lowering import Lowering, Operation, total_work
from ridgeline.analytical.architectures.mixers import (
    Attention,
    GatedDelta,
    LatentAttention,
    Mixer,
    SelectiveScan,
    StateSpaceDuality,
)
from ridgeline.analytical.kernel_shape import KernelShape
from ridgeline.analytical.operators import (
    attention_pairs,
    attention_work,
    elementwise_work,
    gemm_work,
    mla_projection_work,
    mla_work,
    norm_work,
    rope_work,
)
from ridgeline.analytical.operators.scan import chunked_scan_work, selective_scan_work
from ridgeline.analytical.phases import Group
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import Work, fma_key

SCAN_CHUNK = 64
"""Steps of a chunk of a Mamba-2 scan over more than one token; Mamba-2's own kernels take 64 to 256."""


def mixer_operations(step: Lowering, part: Mixer) -> Iterator[Operation]:
    """The operators of a mixer."""
    match part:
        case Attention():
            yield from _attention(step, part)
        case LatentAttention():
            yield from _latent_attention(step, part)
        case SelectiveScan():
            yield from _selective_scan(step, part)
        case StateSpaceDuality():
            yield from _state_space_duality(step, part)
        case GatedDelta():
            yield from _gated_delta(step, part)
        case _ as never:
            assert_never(never)


def _attention(step: Lowering, part: Attention) -> Iterator[Operation]:
    q_heads, kv_heads = part.q_heads // step.tp, max(part.kv_heads // step.tp, 1)
    q_columns, kv_columns = part.q_outputs / step.tp, float(kv_heads * (part.head_dim + part.value_dim))
    prefix = "cross_" if part.cross else ""
    if part.cross:
        yield step.gemm("cross_q", step.tokens, q_columns, part.width)
        new = sum(1.0 * g.sequences * g.source_length for g in step.groups if g.new_source)
        if np.any(np.asarray(new) > 0):
            yield step.gemm("cross_kv", new, kv_columns, part.source_width or part.width)
    else:
        yield step.gemm("qkv", step.tokens, q_columns + kv_columns, part.width)
    for norm, heads in ((part.q_norm, q_heads), (part.k_norm, kv_heads)):
        if norm is not None:
            shared = norm.groups == 1 and norm.width > part.head_dim
            width, groups = (norm.width / step.tp, 1) if shared else (norm.width, heads)
            yield step.one("qk_norm", "norm", norm_work(step.tokens * groups, width, step.stream, norm.kind))
    if part.rope_dim and not part.cross:
        work = rope_work(step.tokens, q_heads + kv_heads, part.rope_dim, step.stream)
        yield step.one("rope", "elementwise", work)
    if part.relative:
        yield from _relative(step, part, q_heads)
    works = [
        attention_work(
            g.sequences,
            q_heads,
            kv_heads,
            g.q_length,
            g.source_length if part.cross else g.kv_length,
            part.head_dim,
            part.causal and step.causal and not part.cross,
            step.stream,
            kv_precision=step.precisions.kv if step.causal else step.stream,
            value_dim=part.value_dim,
            window=part.window,
        )
        for g in step.groups
    ]
    yield step.attention(f"{prefix}attention", works, kv_heads, _listed_kernel(step, part, q_heads, kv_heads))
    if part.output_gate:
        yield step.one(
            "output_gate", "elementwise",
            elementwise_work(step.tokens * q_heads * part.value_dim, 2, step.stream, 2.0),
        )  # fmt: skip
    yield step.gemm(f"{prefix}o", step.tokens, part.width, q_heads * part.value_dim)


def _listed_kernel(step: Lowering, part: Attention, q_heads: int, kv_heads: int) -> KernelShape | None:
    """Causal attention of equal sequences, as the public tables list it."""
    causal = part.causal and step.causal and not part.cross
    if len(step.groups) != 1 or not causal or part.value_dim != part.head_dim:
        return None
    (group,) = step.groups
    sizes = {
        "batch": group.sequences, "q_heads": q_heads, "kv_heads": kv_heads, "q_length": group.q_length,
        "kv_length": group.kv_length, "head_dim": part.head_dim, "window": part.window or 0,
    }  # fmt: skip
    return KernelShape(
        family="attention decode" if group.decoding else "attention prefill", sizes=sizes,
        precision=step.stream if step.precisions.kv == step.stream else "",
    )  # fmt: skip


def _relative(step: Lowering, part: Attention, heads: int) -> Iterator[Operation]:
    """Positions of both signs are projected once; each pair takes one more product of a query with them."""
    distances = sum(2.0 * g.q_length - 1.0 for g in step.groups)
    yield step.gemm("relative_positions", distances, heads * part.head_dim, part.width)
    pairs = sum(1.0 * g.sequences * heads * attention_pairs(g.q_length, g.kv_length, False) for g in step.groups)
    columns = bytes_of(distances * heads * part.head_dim, step.stream)
    work = Work(operations={fma_key(step.stream): 2.0 * pairs * part.head_dim}, read_bytes={"activations": columns})
    yield step.one("relative_scores", "attention", work)


def _latent_attention(step: Lowering, part: LatentAttention) -> Iterator[Operation]:
    heads = part.heads // step.tp
    down = part.kv_rank + part.rope_dim + (part.q_rank or 0)
    yield step.gemm("qkv_a", step.tokens, down, part.width)
    for rank in (part.q_rank, part.kv_rank):
        if rank is not None:
            yield step.one("qk_norm", "norm", norm_work(step.tokens, rank, step.stream))
    yield step.gemm("q_b", step.tokens, heads * (part.nope_dim + part.rope_dim), part.q_rank or part.width)
    yield step.one("rope", "elementwise", rope_work(step.tokens, heads + 1, part.rope_dim, step.stream))
    if part.indexer is not None:
        yield from _indexer(step, part)
    weight = step.precisions.weights_of("kv_b")
    projections, attention = [], []
    for g in step.groups:
        # Plain: keys and values of every token before are made anew from the latents.
        projections.append(
            mla_projection_work(
                g.sequences, heads, g.q_length, g.kv_length, part.kv_rank, part.nope_dim, part.value_dim, step.stream,
                weight=weight, kv_precision=step.precisions.kv if g.decoding else step.stream, absorbed=g.decoding,
            )
        )  # fmt: skip
        attention.append(_latent_scores(step, part, g, heads))
    yield step.one("kv_b", "gemm", total_work(projections))
    yield step.attention("attention", attention, 1)  # All heads share the latents.
    yield step.gemm("o", step.tokens, part.width, heads * part.value_dim)


def _latent_scores(step: Lowering, part: LatentAttention, group: Group, heads: int) -> Work:
    work = mla_work(
        group.sequences, heads, group.q_length, group.kv_length, part.kv_rank, part.rope_dim, part.nope_dim,
        part.value_dim, step.causal and part.causal, step.stream,
        kv_precision=step.precisions.kv if group.decoding else step.stream, absorbed=group.decoding,
    )  # fmt: skip
    if part.indexer is None:
        return work
    # Each query sees the top_k keys that the indexer kept; queries may all keep the same ones.
    kept = attention_pairs(group.q_length, group.kv_length, True, part.indexer.top_k)
    share = kept / attention_pairs(group.q_length, group.kv_length, True)
    seen = np.minimum(1.0, part.indexer.top_k / (1.0 * group.kv_length))
    return dataclasses.replace(
        work,
        operations={key: n * share for key, n in work.operations.items()},
        read_bytes={s: n * (seen if s == "kv" else 1.0) for s, n in work.read_bytes.items()},
    )


def _indexer(step: Lowering, part: LatentAttention) -> Iterator[Operation]:
    """DeepSeek-V3.2, section 2.1: scores of every pair in few narrow heads, in the activations' precision."""
    indexer = part.indexer
    assert indexer is not None
    columns = indexer.heads * indexer.head_dim
    operands = step.precisions.operands_of("indexer")
    weight = step.precisions.weights_of("indexer")
    rows = step.tokens
    project = gemm_work(rows, columns, part.q_rank or part.width, operands, weight=weight, output=operands)
    project = project + gemm_work(
        rows, indexer.head_dim + indexer.heads, part.width, operands, weight=weight, output=operands
    )
    yield step.one("indexer", "gemm", project)
    scores = []
    for g in step.groups:
        pairs = 1.0 * g.sequences * indexer.heads * attention_pairs(g.q_length, g.kv_length, True)
        read = {
            "activations": bytes_of(1.0 * g.sequences * g.q_length * columns, operands),
            "kv": bytes_of(1.0 * g.sequences * g.kv_length * indexer.head_dim, step.precisions.kv),
        }
        scores.append(Work(operations={fma_key(operands): 2.0 * pairs * indexer.head_dim}, read_bytes=read))
    yield step.one("index_scores", "attention", total_work(scores))


def _causal_conv(step: Lowering, channels: float, kernel: int) -> Operation:
    work = Work(
        operations={fma_key(step.stream, "vector"): 2.0 * step.tokens * channels * kernel},
        read_bytes={
            "activations": bytes_of(step.tokens * channels, step.stream),
            "weights": bytes_of(1.0 * channels * kernel, step.stream),
        },
        written_bytes={"activations": bytes_of(step.tokens * channels, step.stream)},
    )
    return step.one("conv", "elementwise", work)


def _selective_scan(step: Lowering, part: SelectiveScan) -> Iterator[Operation]:
    inner = part.inner / step.tp
    yield step.gemm("in_proj", step.tokens, 2 * inner, part.width)
    yield _causal_conv(step, inner, part.conv)
    yield step.gemm("x_proj", step.tokens, part.dt_rank + 2 * part.state, inner)
    yield step.gemm("dt_proj", step.tokens, inner, part.dt_rank)
    works = [
        selective_scan_work(g.sequences, g.q_length, inner, part.state, step.stream, gated=True, softplus=True)
        for g in step.groups
    ]
    yield step.one("scan", "scan", total_work(works))
    yield step.gemm("out_proj", step.tokens, part.width, inner)


def _state_space_duality(step: Lowering, part: StateSpaceDuality) -> Iterator[Operation]:
    heads, groups = part.heads / step.tp, max(part.groups / step.tp, 1.0)
    inner = heads * part.head_dim
    channels = inner + 2 * groups * part.state
    yield step.gemm("in_proj", step.tokens, inner + channels + heads, part.width)
    yield _causal_conv(step, channels, part.conv)
    works = [
        chunked_scan_work(
            g.sequences, g.q_length, heads, part.head_dim, part.state, step.stream, groups=groups,
            chunk=1 if g.decoding else SCAN_CHUNK,
        )
        for g in step.groups
    ]  # fmt: skip
    yield step.one("scan", "scan", total_work(works))
    if part.norm:
        yield step.one("gated_norm", "norm", norm_work(step.tokens, inner, step.stream))
    yield step.gemm("out_proj", step.tokens, part.width, inner)


def _gated_delta(step: Lowering, part: GatedDelta) -> Iterator[Operation]:
    key_heads, value_heads = part.key_heads / step.tp, part.value_heads / step.tp
    value = value_heads * part.value_dim
    channels = 2 * key_heads * part.key_dim + value
    yield step.gemm("in_proj", step.tokens, channels + value + 2 * value_heads, part.width)
    yield _causal_conv(step, channels, part.conv)
    works = []
    for g in step.groups:
        steps = 1.0 * g.sequences * g.q_length
        state = value_heads * part.key_dim * part.value_dim
        held = bytes_of(1.0 * g.sequences * state, "float32")
        # S = a S + b k (v - S^T k)^T, o = S^T q: decay 1, S^T k 2, outer product 2, read-out 2 for each element.
        works.append(
            Work(
                operations={
                    fma_key(step.stream): 6.0 * steps * state,
                    fma_key("float32", "vector"): steps * (state + 3.0 * value),
                },
                read_bytes={"activations": bytes_of(steps * (channels + 2 * value_heads), step.stream), "kv": held},
                written_bytes={"activations": bytes_of(steps * value, step.stream), "kv": held},
            )
        )
    yield step.one("scan", "scan", total_work(works))
    yield step.one("gated_norm", "norm", norm_work(step.tokens * value_heads, part.value_dim, step.stream))
    yield step.gemm("out_proj", step.tokens, part.width, value)
