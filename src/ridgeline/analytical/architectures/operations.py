"""The operators of one step of a model: what each has to do on one device, and how often it runs.

Rules. A device of a replica works on that replica's sequences (``dp`` shares them out, the fullest replica counts) and
on its slice of every matrix (``tp``). Norms, residual sums and the router work on whole rows on every device. With
pipeline stages every block is still listed: a step is the way of one batch through all stages, one after the other.
The router spreads tokens evenly over experts; a real one does not, and the fullest device then takes longer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from math import prod
from typing import Any, assert_never

import numpy as np

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.lowering import Family, Lowering, Operation
from ridgeline.analytical.architectures.mixer_operations import mixer_operations
from ridgeline.analytical.architectures.mixers import (
    Attention,
    GatedDelta,
    LatentAttention,
    Mixer,
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
from ridgeline.analytical.layout import BFLOAT16, ONE_DEVICE, Layout, Precisions
from ridgeline.analytical.operators import (
    ACTIVATIONS,
    activation_work,
    all_gather_work,
    all_to_all_work,
    elementwise_work,
    embedding_work,
    moe_gemm_work,
    moe_routing_work,
    norm_work,
    send_work,
)
from ridgeline.analytical.phases import Phase, PhaseError
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import Work, fma_key

__all__ = ["Family", "Operation", "operations"]


def operations(
    architecture: Architecture,
    phase: Phase,
    precisions: Precisions = BFLOAT16,
    layout: Layout = ONE_DEVICE,
) -> tuple[Operation, ...]:
    """Every operator of a step, block by block; equal blocks are one entry with their number as count.

    Args:
        phase: its columns become columns of every work.

    Raises:
        LayoutError: for a layout that the model cannot have.
        PhaseError: for an encoder's pass of a model without one, or decoding with a model that cannot.
    """
    layout.check(architecture)
    stack = architecture.encoder if phase.name == "encoder" else architecture.decoder
    if stack is None:
        has = "a decoder" if phase.name == "encoder" else "an encoder"
        raise PhaseError(f"{architecture.name} has only {has}: {phase.name} is no phase of it")
    step = Lowering(stack, phase, precisions, layout, cross=architecture.encoder is not None)
    return tuple(_walk(step))


def _walk(step: Lowering) -> Iterator[Operation]:
    yield from _parts(step, "inputs", 1, 1.0, step.stack.inputs)
    for block, count in step.stack.distinct:
        yield from _parts(step, block.name, count, block.positions, block.parts)
    if step.layout.pp > 1:
        step.block, step.count = "between_stages", step.layout.pp - 1
        message = bytes_of(step.tokens * step.stack.width, step.stream)
        yield step.collective("send", "send", message, send_work(message), 2)
    yield from _parts(step, "outputs", 1, 1.0, step.stack.outputs)


def _parts(step: Lowering, name: str, count: int, positions: float, parts: Iterable[Part]) -> Iterator[Operation]:
    step.block, step.count, step.positions = name, count, positions
    unsummed = 0
    for part in parts:
        # Slices are summed before anything needs the whole row: attention and MLP side by side share one sum.
        if unsummed and isinstance(part, Norm | Residual):
            yield step.all_reduce("all_reduce", step.tokens, unsummed)
            unsummed = 0
        yield from _part(step, part)
        if step.tp > 1 and isinstance(part, Mlp | Experts | Mixer):
            unsummed = part.width
    if unsummed:
        yield step.all_reduce("all_reduce", step.tokens, unsummed)


def _part(step: Lowering, part: Part) -> Iterator[Operation]:
    match part:
        case Norm():
            rows = step.rows(part.rows) * part.groups
            kind = "rms" if part.kind == "rms" else "layer"
            yield step.one("norm", "norm", norm_work(rows, part.width, step.stream, kind))
        case Residual():
            work = elementwise_work(step.tokens * part.width, 2, step.stream)
            yield step.one("residual", "elementwise", work)
        case Linear():
            yield from _linear(step, part)
        case Embedding():
            yield from _embedding(step, part)
        case Convolution():
            yield step.one(part.name, "convolution", _convolution(step, part))
        case Attention() | LatentAttention() | SelectiveScan() | StateSpaceDuality() | GatedDelta():
            yield from mixer_operations(step, part)
        case Mlp():
            yield from _mlp(step, part, "", step.rows(part.rows))
        case Experts():
            yield from _experts(step, part)
        case Tensor():
            pass
        case _ as never:
            assert_never(never)


def _linear(step: Lowering, part: Linear) -> Iterator[Operation]:
    rows, tp = step.rows(part.rows), step.tp if part.name == "lm_head" else 1
    if part.rows == "sampled" and not np.any(np.asarray(rows) > 0):
        return
    yield step.gemm(part.name, rows, part.outputs / tp, part.inputs)
    if tp > 1:
        message = bytes_of(rows * part.outputs, step.stream)
        yield step.collective("gather_logits", "all_gather", message, all_gather_work(message, float(tp)), tp)


def _embedding(step: Lowering, part: Embedding) -> Iterator[Operation]:
    rows, split = step.rows(part.rows), part.name == "embedding" and step.tp > 1
    weight = step.precisions.weights_of(part.name)
    entries = part.entries / step.tp if split else part.entries
    looked_up = rows / step.tp if split else rows
    if part.name == "position_embedding":
        # Sequences of a group share their positions.
        distinct = np.minimum(sum(1.0 * g.q_length for g in step.groups), float(part.entries))
        work = embedding_work(rows, part.entries, part.width, weight, output=step.stream, distinct=distinct)
    else:
        work = embedding_work(looked_up, entries, part.width, weight, output=step.stream)
    yield step.one(part.name, "embedding", work)
    if split:
        yield step.all_reduce("all_reduce", rows, part.width)


def _convolution(step: Lowering, part: Convolution) -> Work:
    sequences = sum(1.0 * g.sequences for g in step.groups)
    positions = step.tokens - part.skipped_tokens * sequences
    taps = (part.inputs // part.groups) * prod(part.kernel)
    outputs = positions * part.output_positions * part.outputs
    return Work(
        operations={fma_key(step.stream): 2.0 * outputs * taps},
        read_bytes={
            "activations": bytes_of(positions * part.input_positions * part.inputs, step.stream),
            "weights": bytes_of(1.0 * part.parameter_count, step.stream),
        },
        written_bytes={"activations": bytes_of(outputs, step.stream)},
    )


def _activation(step: Lowering, name: str, rows: Any, width: Any, kind: str, gated: bool) -> Iterator[Operation]:
    if not gated or f"{kind}_and_mul" in ACTIVATIONS:
        work = activation_work(rows, width, step.stream, f"{kind}_and_mul" if gated else kind)
    else:
        # The gate is one more operand and one more product.
        gate = elementwise_work(rows * width, 1, step.stream)
        work = activation_work(rows, width, step.stream, kind) + dataclasses.replace(gate, written_bytes={}, launches=0)
    yield step.one(name, "elementwise", work)


def _mlp(step: Lowering, part: Mlp, prefix: str, rows: Any) -> Iterator[Operation]:
    inner = part.intermediate / step.tp
    up = f"{prefix}gate_up" if part.gated else f"{prefix}up"
    yield step.gemm(up, rows, (2 if part.gated else 1) * inner, part.width)
    yield from _activation(step, f"{prefix}activation", rows, inner, part.activation, part.gated)
    yield step.gemm(f"{prefix}down", rows, part.width, inner)


def _experts(step: Lowering, part: Experts) -> Iterator[Operation]:
    layout, width = step.layout, part.latent or part.width
    yield step.one("router", "routing", moe_routing_work(step.tokens, part.count, part.top_k, part.width, step.stream))
    if part.latent is not None:
        yield step.gemm("latent", step.tokens, part.latent, part.width)
    # Tokens that the experts of this device's group can get, and the device's even share of them.
    spans = layout.ep // layout.tp if layout.experts_span_replicas else 1
    tokens, share, inner = step.tokens * spans, 1.0 / layout.ep, part.intermediate / layout.expert_tp
    if spans > 1:
        yield _exchange(step, "dispatch", part, width)
    ups = 2 if part.gated else 1
    for name, n, k, flags in (
        ("experts_up", ups * inner, width, {"gathered": True}),
        ("experts_down", width, inner, {"combined": layout.ep == 1}),
    ):
        weight, operands = step.precisions.weights_of(name), step.precisions.operands_of(name)
        work = moe_gemm_work(tokens, part.count, part.top_k, n, k, operands, weight=weight, output=step.stream, **flags)
        yield step.one(name, "moe_gemm", dataclasses.replace(work * share, launches=1))
        if name == "experts_up":
            rows = tokens * part.top_k * share
            yield from _activation(step, "experts_activation", rows, inner, part.activation, part.gated)
    if spans > 1:
        yield _exchange(step, "combine", part, width)
        if step.tp > 1:
            message = bytes_of(step.tokens * width, step.stream)
            work = all_gather_work(message, float(step.tp))
            yield step.collective("gather_tokens", "all_gather", message, work, step.tp)
    if part.latent is not None:
        yield step.gemm("latent", step.tokens, part.width, part.latent)
    if part.shared is not None:
        yield from _mlp(step, part.shared, "shared_", step.tokens)


def _exchange(step: Lowering, name: str, part: Experts, width: int) -> Operation:
    """Each device of a replica sends its part of the tokens to their experts, or gets it back."""
    precision = step.precisions.operands_of("experts_up") if name == "dispatch" else step.stream
    message = bytes_of(step.tokens * part.top_k / step.tp * width, precision)
    work = all_to_all_work(message, float(step.layout.ep))
    return step.collective(name, "all_to_all", message, work, step.layout.ep)
