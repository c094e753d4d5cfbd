"""Memory of a model on one device: weights, cache and activations, and the largest batch that fits.

Rules. Weights are split as the layout says; of pipeline stages the fullest counts. The cache is held in pages, so each
sequence's length is rounded up to one; a windowed layer keeps at most its window; latents are held whole by every tp
device; a layer of fewer KV heads than devices keeps one head on each. Recurrent states are float32, the states of short
convolutions 16 bits. Activations are what is alive at the worst moment of one block: the residual stream, its
normalised copy, and the widest operator's inputs and outputs; scores of attention are never stored; logits are float32.
What an allocator, a driver or a graph keeps beside that is not counted: leave room for it with ``reserved_bytes``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.mixers import (
    Attention,
    GatedDelta,
    LatentAttention,
    Recurrent,
    SelectiveScan,
    StateSpaceDuality,
)
from ridgeline.analytical.architectures.parts import Embedding, Experts, Linear, Mlp
from ridgeline.analytical.architectures.stack import Block, Part, Stack
from ridgeline.analytical.architectures.tensors import Weights, weights_of
from ridgeline.analytical.device import Device
from ridgeline.analytical.layout import BFLOAT16, ONE_DEVICE, Layout, Precisions
from ridgeline.analytical.quantities import bits, bytes_of

STATE_PRECISION = "float32"
PAGE_TOKENS = 16
"""Tokens in a page of the cache: vLLM's default."""
MEMORY_SHARE = 0.9
"""Share of a device's memory that an engine takes for weights, cache and activations: vLLM's default."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on the fullest device; numbers or columns."""

    weights_bytes: Any
    kv_bytes: Any
    """Keys, values, latents and recurrent states of all sequences of a replica."""
    activations_bytes: Any

    @property
    def total_bytes(self) -> Any:
        """All three."""
        return self.weights_bytes + self.kv_bytes + self.activations_bytes


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Whether it fits, and by how much."""

    needs_bytes: float
    has_bytes: float
    device: str

    @property
    def fits(self) -> bool:
        """Whether the device has what it needs."""
        return self.needs_bytes <= self.has_bytes

    @property
    def reason(self) -> str:
        """Empty where it fits."""
        if self.fits:
            return ""
        return f"does not fit: needs {self.needs_bytes / 1e9:.1f} GB, {self.device} has {self.has_bytes / 1e9:.1f} GB"


def memory(
    architecture: Architecture,
    precisions: Precisions = BFLOAT16,
    layout: Layout = ONE_DEVICE,
    *,
    sequences: Any = 1,
    length: Any = 1,
    tokens: Any = None,
    page: int = PAGE_TOKENS,
    source_length: Any = 0,
) -> Memory:
    """Bytes that the fullest device holds.

    Args:
        sequences: of all replicas together.
        length: tokens of each sequence in the cache.
        tokens: tokens of a replica that one step works on, which sets the activations; default one for each sequence.
        page: tokens in a page of the cache.
        source_length: tokens of an encoder's output, whose keys and values every decoder block keeps.

    Raises:
        LayoutError: for a layout that the model cannot have.
    """
    layout.check(architecture)
    mine = np.ceil(np.asarray(sequences, dtype=np.float64) / layout.dp)[()]
    tokens = mine if tokens is None else tokens
    stages = list(_stages(architecture, layout.pp))
    weights = [_weights_bytes(parts, precisions, layout) for parts, _ in stages]
    caches = [
        sum(count * kv_bytes(block, precisions, layout, mine, length, page, source_length) for block, count in blocks)
        for _, blocks in stages
    ]
    # Every stage is full or not as a whole: the largest sum counts, not the sum of the largest.
    totals = [np.asarray(w + c, dtype=np.float64) for w, c in zip(weights, caches, strict=True)]
    fullest = np.argmax(np.stack(np.broadcast_arrays(*totals)), axis=0)
    live = _activations_bytes(architecture, precisions, layout, tokens, mine)
    return Memory(weights_bytes=_choose(weights, fullest), kv_bytes=_choose(caches, fullest), activations_bytes=live)


def weights_bytes(architecture: Architecture, precisions: Precisions, layout: Layout) -> float:
    """Bytes of weights on the fullest device."""
    return float(memory(architecture, precisions, layout).weights_bytes)


def kv_bytes(
    block: Block, precisions: Precisions, layout: Layout, sequences: Any, length: Any, page: int, source_length: Any = 0
) -> Any:
    """Bytes of cache and state that one block keeps on one device for ``sequences`` sequences of ``length`` tokens."""
    total: Any = 0.0
    for mixer in block.mixers:
        if isinstance(mixer, Recurrent):
            state = bytes_of(mixer.state_elements / layout.tp, STATE_PRECISION)
            total = total + sequences * (state + bytes_of(mixer.conv_state_elements / layout.tp, precisions.stream))
            continue
        held: Any = length
        elements = float(mixer.kv_elements_per_token)
        if isinstance(mixer, Attention):
            if mixer.cross:
                held = source_length
            elif mixer.window is not None:
                held = np.minimum(length, mixer.window)
            elements = max(mixer.kv_heads / layout.tp, 1.0) * (mixer.head_dim + mixer.value_dim)
        pages = np.ceil(np.asarray(held, dtype=np.float64) / page)
        total = total + bytes_of(sequences * pages * page * elements, precisions.kv)
    return total


def fit(needs: Memory, device: Device, *, reserved_bytes: float = 0.0, share: float = 1.0) -> Fit:
    """Whether ``needs`` fits into ``share`` of the device's main memory after ``reserved_bytes``."""
    has = device.main_memory.capacity_bytes * share - reserved_bytes
    return Fit(needs_bytes=float(np.max(np.asarray(needs.total_bytes))), has_bytes=has, device=device.id)


def largest_batch(
    architecture: Architecture,
    capacity_bytes: float,
    precisions: Precisions = BFLOAT16,
    layout: Layout = ONE_DEVICE,
    *,
    length: float,
    tokens: Any = None,
    page: int = PAGE_TOKENS,
    source_length: float = 0,
) -> int:
    """Most sequences of ``length`` tokens, of all replicas together, that fit ``capacity_bytes`` a device; 0 for none.

    Arguments as those of :func:`memory`.
    """

    def needs(replicas_share: float) -> float:
        held = memory(
            architecture,
            precisions,
            layout,
            sequences=replicas_share * layout.dp,
            length=length,
            tokens=tokens,
            page=page,
            source_length=source_length,
        )
        return float(np.max(np.asarray(held.total_bytes)))

    if needs(1) > capacity_bytes:
        return 0
    low, high = 1, 2
    while needs(high) <= capacity_bytes:
        low, high = high, 2 * high
        if high > 1 << 40:
            raise ValueError(f"{architecture.name} keeps nothing for a sequence: any number of them fits")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needs(middle) <= capacity_bytes else (low, middle)
    return low * layout.dp


def _stages(architecture: Architecture, pp: int) -> Iterable[tuple[list[tuple[Part, int]], list[tuple[Block, int]]]]:
    """Parts, and decoder blocks, of each pipeline stage with how often it has them: inputs are the first stage's, outputs
    the last one's, of encoder and decoder alike."""
    for stage in range(pp):
        parts: list[tuple[Part, int]] = []
        blocks: list[tuple[Block, int]] = []
        for stack in architecture.stacks:
            # The first stages get one block more where they do not divide.
            base, more = divmod(stack.layer_count, pp)
            first = stage * base + min(stage, more)
            own = stack.distinct_between(first, first + base + (stage < more))
            if stage == 0:
                parts += [(part, 1) for part in stack.inputs]
            parts += [(part, count) for block, count in own for part in block.parts]
            if stage == pp - 1:
                parts += [(part, 1) for part in stack.outputs]
                if pp > 1:
                    parts += [(part, 1) for part in _tied_copies(stack)]
            if stack.name == "decoder":
                blocks += own
        yield parts, blocks


def _tied_copies(stack: Stack) -> list[Part]:
    """A head tied to the embedding needs a copy of it where the two lie on different stages."""
    tied = any(isinstance(part, Linear) and part.tied for part in stack.outputs)
    return [part for part in stack.inputs if isinstance(part, Embedding) and part.name == "embedding"] if tied else []


def _weights_bytes(parts: Iterable[tuple[Part, int]], precisions: Precisions, layout: Layout) -> float:
    return sum(
        count * _stored_bytes(each, part, precisions, layout) for part, count in parts for each in weights_of(part)
    )


def _stored_bytes(each: Weights, part: Part, precisions: Precisions, layout: Layout) -> float:
    count = float(each.count)
    if each.split == "tp":
        count /= layout.tp
    elif each.split == "kv":
        heads = part.kv_heads if isinstance(part, Attention) else layout.tp
        count /= min(layout.tp, heads)
    elif each.split == "experts":
        count /= layout.ep * layout.expert_tp
    if not each.is_matrix:
        return float(bytes_of(count, precisions.stream))
    stored = precisions.weights_of(each.operator)
    total = float(bytes_of(count, stored))
    if precisions.group is not None and bits(stored) < bits(precisions.operands_of(each.operator)):
        total += float(bytes_of(count / precisions.group, precisions.stream))
    return total


def _activations_bytes(
    architecture: Architecture, precisions: Precisions, layout: Layout, tokens: Any, sequences: Any
) -> Any:
    stack = architecture.main
    widest: Any = 0.0
    for block, _ in stack.distinct:
        for part in block.parts:
            widest = np.maximum(widest, block.positions * tokens * _live_elements(part, layout))
    head = max((p.outputs for p in stack.outputs if isinstance(p, Linear) and p.rows == "sampled"), default=0)
    live = bytes_of(2.0 * tokens * stack.width + widest, precisions.stream)
    logits = bytes_of(sequences * head / layout.tp, "float32")
    # Logits come after the blocks: only the stream is still alive beside them.
    return np.maximum(live, bytes_of(1.0 * tokens * stack.width, precisions.stream) + logits)[()]


def _live_elements(part: Part, layout: Layout) -> float:
    """Elements for each token that an operator of the part reads and writes at once, beside the residual stream."""
    tp = layout.tp
    match part:
        case Mlp():
            return (3.0 if part.gated else 2.0) * part.intermediate / tp
        case Experts():
            # Every choice of a token is a row; at most as many as the device's own experts get in an even spread.
            rows = part.top_k / layout.ep * max(layout.ep // tp, 1)
            return rows * ((3.0 if part.gated else 2.0) * part.intermediate / layout.expert_tp + part.width)
        case Attention():
            kv = max(part.kv_heads / tp, 1.0) * (part.head_dim + part.value_dim)
            return (part.q_outputs + part.q_heads * part.value_dim) / tp + kv
        case LatentAttention():
            heads = part.heads / tp
            return heads * (2.0 * (part.nope_dim + part.rope_dim) + 2.0 * part.value_dim) + part.kv_rank + part.rope_dim
        case SelectiveScan():
            return 4.0 * part.inner / tp
        case StateSpaceDuality() | GatedDelta():
            return 2.0 * part.in_outputs / tp
        case _:
            return 0.0


def _choose(values: list[Any], index: Any) -> Any:
    columns = np.stack(np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in values), index)[:-1])
    return np.take_along_axis(columns, np.asarray(index)[None, ...], axis=0)[0][()]
