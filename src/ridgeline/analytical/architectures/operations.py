"""The operators of one step of a model: what each has to do on one device, and how often it runs.

Rules. A device of a replica works on that replica's sequences (``dp`` shares them out, the fullest replica counts) and
on its slice of every matrix (``tp``). Norms, residual sums and the router work on whole rows on every device. With
pipeline stages every block is still listed: a step is the way of one batch through all stages, one after the other.
The router spreads tokens evenly over experts; a real one does not, and the fullest device then takes longer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, assert_never

import numpy as np

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.parts import (
    Attention,
    Block,
    Convolution,
    Embedding,
    Experts,
    GatedDelta,
    LatentAttention,
    Linear,
    Mlp,
    Norm,
    Part,
    Residual,
    Rows,
    SelectiveScan,
    Stack,
    StateSpaceDuality,
    Tensor,
)
from ridgeline.analytical.collectives import Transfer
from ridgeline.analytical.layout import BFLOAT16, ONE_DEVICE, Layout, Precisions
from ridgeline.analytical.operators import (
    ACTIVATIONS,
    activation_work,
    all_gather_work,
    all_reduce_work,
    all_to_all_work,
    attention_pairs,
    attention_work,
    elementwise_work,
    embedding_work,
    gemm_work,
    mla_projection_work,
    mla_work,
    moe_gemm_work,
    moe_routing_work,
    norm_work,
    rope_work,
    send_work,
    weight_only_gemm_work,
)
from ridgeline.analytical.operators.scan import chunked_scan_work, selective_scan_work
from ridgeline.analytical.phases import Group, Phase, PhaseError
from ridgeline.analytical.quantities import bits, bytes_of
from ridgeline.analytical.work import Work, fma_key

Family = Literal[
    "gemm", "moe_gemm", "attention", "scan", "convolution", "routing", "embedding", "norm", "elementwise", "collective"
]

SCAN_CHUNK = 64
"""Steps of a chunk of a Mamba-2 scan over more than one token; Mamba-2's own kernels take 64 to 256."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operator of a step on one device."""

    name: str
    block: str
    """Name of the block it runs in, or ``inputs`` and ``outputs`` of the stack."""
    family: Family
    work: Work
    """Of one run of it."""
    count: int
    """How often it runs in the step."""
    transfer: Transfer | None = None
    """What it sends, where it is a collective."""

    @property
    def fusible(self) -> bool:
        """Whether it can ride along with its neighbours, so that its bytes need not move: norms, rotations, activations,
        sums. A bound has to leave these bytes out."""
        return self.family in ("norm", "elementwise")


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
    step = _Step(stack, phase, precisions, layout, cross=architecture.encoder is not None)
    return tuple(step.operations())


class _Step:
    """One stack in one phase; every method yields the operations of one kind of part."""

    def __init__(self, stack: Stack, phase: Phase, precisions: Precisions, layout: Layout, *, cross: bool) -> None:
        self.stack, self.precisions, self.layout = stack, precisions, layout
        self.stream = precisions.stream
        self.tp = layout.tp
        # The fullest replica.
        self.groups = [dataclasses.replace(g, sequences=_shared(g.sequences, layout.dp)) for g in phase.groups]
        self.causal = phase.name != "encoder"
        if cross and self.causal and any(np.any(np.asarray(g.source_length) == 0) for g in self.groups):
            raise PhaseError("source_length: the decoder attends to an encoder's output: say how many tokens it has")
        self.block, self.count, self.positions = "", 1, 1.0

    # -- rows ---------------------------------------------------------------------------------------------------------

    @property
    def tokens(self) -> Any:
        """Rows that the block works on."""
        return self.positions * sum(1.0 * g.sequences * g.q_length for g in self.groups)

    def rows(self, rows: Rows) -> Any:
        if rows == "token":
            return self.tokens
        if rows == "sequence":
            return sum(1.0 * g.sequences for g in self.groups)
        return sum(1.0 * g.sequences * g.sampled for g in self.groups)

    # -- the walk -----------------------------------------------------------------------------------------------------

    def operations(self) -> Iterator[Operation]:
        yield from self._parts("inputs", 1, 1.0, self.stack.inputs)
        for block, count in self.stack.distinct:
            yield from self._block(block, count)
        if self.layout.pp > 1:
            self.block, self.count = "between_stages", self.layout.pp - 1
            message = bytes_of(self.tokens * self.stack.width, self.stream)
            yield self._collective("send", "send", message, send_work(message), 2)
        yield from self._parts("outputs", 1, 1.0, self.stack.outputs)

    def _block(self, block: Block, count: int) -> Iterator[Operation]:
        yield from self._parts(block.name, count, block.positions, block.parts)

    def _parts(self, name: str, count: int, positions: float, parts: Iterable[Part]) -> Iterator[Operation]:
        self.block, self.count, self.positions = name, count, positions
        unsummed = False
        for part in parts:
            # Slices are summed before anything needs the whole row: attention and MLP side by side share one sum.
            if unsummed and isinstance(part, Norm | Residual):
                yield self._all_reduce("all_reduce", self.tokens, self.stack.width)
                unsummed = False
            yield from self._part(part)
            unsummed = unsummed or (self.tp > 1 and _is_sliced(part))
        if unsummed:
            yield self._all_reduce("all_reduce", self.tokens, self.stack.width)

    def _part(self, part: Part) -> Iterator[Operation]:
        match part:
            case Norm():
                rows = self.rows(part.rows) * part.groups
                kind = "rms" if part.kind == "rms" else "layer"
                yield self._one("norm", "norm", norm_work(rows, part.width, self.stream, kind))
            case Residual():
                work = elementwise_work(self.tokens * part.width, 2, self.stream)
                yield self._one("residual", "elementwise", work)
            case Linear():
                yield from self._linear(part)
            case Embedding():
                yield from self._embedding(part)
            case Convolution():
                yield self._one(part.name, "convolution", self._convolution(part))
            case Attention():
                yield from self._attention(part)
            case LatentAttention():
                yield from self._latent_attention(part)
            case SelectiveScan():
                yield from self._selective_scan(part)
            case StateSpaceDuality():
                yield from self._state_space_duality(part)
            case GatedDelta():
                yield from self._gated_delta(part)
            case Mlp():
                yield from self._mlp(part, "", self.rows(part.rows))
            case Experts():
                yield from self._experts(part)
            case Tensor():
                pass
            case _ as never:
                assert_never(never)

    # -- makers -------------------------------------------------------------------------------------------------------

    def _one(self, name: str, family: Family, work: Work, transfer: Transfer | None = None) -> Operation:
        return Operation(name=name, block=self.block, family=family, work=work, count=self.count, transfer=transfer)

    def _gemm(self, name: str, m: Any, n: Any, k: Any) -> Operation:
        weight, operands = self.precisions.weights_of(name), self.precisions.operands_of(name)
        group = self.precisions.group
        if group is not None and bits(weight) < bits(operands):
            work = weight_only_gemm_work(m, n, k, weight, group, operands)
        else:
            work = gemm_work(m, n, k, operands, weight=weight, output=self.stream)
        return self._one(name, "gemm", work)

    def _collective(self, name: str, kind: Any, message: Any, work: Work, ranks: int) -> Operation:
        return self._one(name, "collective", work, Transfer(kind=kind, message_bytes=message, ranks=ranks))

    def _all_reduce(self, name: str, rows: Any, width: int) -> Operation:
        message = bytes_of(rows * width, self.stream)
        return self._collective(name, "all_reduce", message, all_reduce_work(message, float(self.tp)), self.tp)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _linear(self, part: Linear) -> Iterator[Operation]:
        rows, tp = self.rows(part.rows), self.tp if part.name == "lm_head" else 1
        if part.rows == "sampled" and not np.any(np.asarray(rows) > 0):
            return
        yield self._gemm(part.name, rows, part.outputs / tp, part.inputs)
        if tp > 1:
            message = bytes_of(rows * part.outputs, self.stream)
            yield self._collective("gather_logits", "all_gather", message, all_gather_work(message, float(tp)), tp)

    def _embedding(self, part: Embedding) -> Iterator[Operation]:
        rows, split = self.rows(part.rows), part.name == "embedding" and self.tp > 1
        weight = self.precisions.weights_of(part.name)
        entries = part.entries / self.tp if split else part.entries
        looked_up = rows / self.tp if split else rows
        if part.name == "position_embedding":
            # Sequences of a group share their positions.
            distinct = np.minimum(sum(1.0 * g.q_length for g in self.groups), float(part.entries))
            work = embedding_work(rows, part.entries, part.width, weight, output=self.stream, distinct=distinct)
        else:
            work = embedding_work(looked_up, entries, part.width, weight, output=self.stream)
        yield self._one(part.name, "embedding", work)
        if split:
            yield self._all_reduce("all_reduce", rows, part.width)

    def _convolution(self, part: Convolution) -> Work:
        sequences = sum(1.0 * g.sequences for g in self.groups)
        positions = self.tokens - part.skipped_tokens * sequences
        taps = (part.inputs // part.groups) * prod(part.kernel)
        outputs = positions * part.output_positions * part.outputs
        return Work(
            operations={fma_key(self.stream): 2.0 * outputs * taps},
            read_bytes={
                "activations": bytes_of(positions * part.input_positions * part.inputs, self.stream),
                "weights": bytes_of(1.0 * part.parameter_count, self.stream),
            },
            written_bytes={"activations": bytes_of(outputs, self.stream)},
        )

    def _attention(self, part: Attention) -> Iterator[Operation]:
        q_heads, kv_heads = part.q_heads // self.tp, max(part.kv_heads // self.tp, 1)
        q_columns, kv_columns = part.q_outputs / self.tp, float(kv_heads * (part.head_dim + part.value_dim))
        prefix = "cross_" if part.cross else ""
        if part.cross:
            yield self._gemm("cross_q", self.tokens, q_columns, part.width)
            new = sum(1.0 * g.sequences * g.source_length for g in self.groups if g.new_source)
            if np.any(np.asarray(new) > 0):
                yield self._gemm("cross_kv", new, kv_columns, part.source_width or part.width)
        else:
            yield self._gemm("qkv", self.tokens, q_columns + kv_columns, part.width)
        for norm, heads in ((part.q_norm, q_heads), (part.k_norm, kv_heads)):
            if norm is not None:
                shared = norm.groups == 1 and norm.width > part.head_dim
                width, groups = (norm.width / self.tp, 1) if shared else (norm.width, heads)
                yield self._one("qk_norm", "norm", norm_work(self.tokens * groups, width, self.stream, norm.kind))
        if part.rope_dim and not part.cross:
            work = rope_work(self.tokens, q_heads + kv_heads, part.rope_dim, self.stream)
            yield self._one("rope", "elementwise", work)
        if part.relative:
            yield from self._relative(part, q_heads)
        works = [
            attention_work(
                g.sequences,
                q_heads,
                kv_heads,
                g.q_length,
                g.source_length if part.cross else g.kv_length,
                part.head_dim,
                part.causal and self.causal and not part.cross,
                self.stream,
                kv_precision=self.precisions.kv if self.causal else self.stream,
                value_dim=part.value_dim,
                window=part.window,
            )
            for g in self.groups
        ]
        yield self._one(f"{prefix}attention", "attention", _total(works))
        if part.output_gate:
            yield self._one(
                "output_gate", "elementwise",
                elementwise_work(self.tokens * q_heads * part.value_dim, 2, self.stream, 2.0),
            )  # fmt: skip
        yield self._gemm(f"{prefix}o", self.tokens, part.width, q_heads * part.value_dim)

    def _relative(self, part: Attention, heads: int) -> Iterator[Operation]:
        """Positions of both signs are projected once; each pair takes one more product of a query with them."""
        distances = sum(2.0 * g.q_length - 1.0 for g in self.groups)
        yield self._gemm("relative_positions", distances, heads * part.head_dim, part.width)
        pairs = sum(1.0 * g.sequences * heads * attention_pairs(g.q_length, g.kv_length, False) for g in self.groups)
        columns = bytes_of(distances * heads * part.head_dim, self.stream)
        work = Work(operations={fma_key(self.stream): 2.0 * pairs * part.head_dim}, read_bytes={"activations": columns})
        yield self._one("relative_scores", "attention", work)

    def _latent_attention(self, part: LatentAttention) -> Iterator[Operation]:
        heads = part.heads // self.tp
        down = part.kv_rank + part.rope_dim + (part.q_rank or 0)
        yield self._gemm("qkv_a", self.tokens, down, part.width)
        for rank in (part.q_rank, part.kv_rank):
            if rank is not None:
                yield self._one("qk_norm", "norm", norm_work(self.tokens, rank, self.stream))
        yield self._gemm("q_b", self.tokens, heads * (part.nope_dim + part.rope_dim), part.q_rank or part.width)
        yield self._one("rope", "elementwise", rope_work(self.tokens, heads + 1, part.rope_dim, self.stream))
        if part.indexer is not None:
            yield from self._indexer(part)
        weight = self.precisions.weights_of("kv_b")
        projections, attention = [], []
        for g in self.groups:
            # Plain: keys and values of every token before are made anew from the latents.
            projections.append(
                mla_projection_work(
                    g.sequences, heads, g.q_length, g.kv_length, part.kv_rank, part.nope_dim, part.value_dim, self.stream,
                    weight=weight, kv_precision=self.precisions.kv if g.decoding else self.stream, absorbed=g.decoding,
                )
            )  # fmt: skip
            attention.append(self._latent_scores(part, g, heads))
        yield self._one("kv_b", "gemm", _total(projections))
        yield self._one("attention", "attention", _total(attention))
        yield self._gemm("o", self.tokens, part.width, heads * part.value_dim)

    def _latent_scores(self, part: LatentAttention, group: Group, heads: int) -> Work:
        work = mla_work(
            group.sequences, heads, group.q_length, group.kv_length, part.kv_rank, part.rope_dim, part.nope_dim,
            part.value_dim, self.causal and part.causal, self.stream,
            kv_precision=self.precisions.kv if group.decoding else self.stream, absorbed=group.decoding,
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

    def _indexer(self, part: LatentAttention) -> Iterator[Operation]:
        """DeepSeek-V3.2, section 2.1: scores of every pair in few narrow heads, in the activations' precision."""
        indexer = part.indexer
        assert indexer is not None
        columns = indexer.heads * indexer.head_dim
        operands = self.precisions.operands_of("indexer")
        weight = self.precisions.weights_of("indexer")
        rows = self.tokens
        project = gemm_work(rows, columns, part.q_rank or part.width, operands, weight=weight, output=operands)
        project = project + gemm_work(
            rows, indexer.head_dim + indexer.heads, part.width, operands, weight=weight, output=operands
        )
        yield self._one("indexer", "gemm", project)
        scores = []
        for g in self.groups:
            pairs = 1.0 * g.sequences * indexer.heads * attention_pairs(g.q_length, g.kv_length, True)
            read = {
                "activations": bytes_of(1.0 * g.sequences * g.q_length * columns, operands),
                "kv": bytes_of(1.0 * g.sequences * g.kv_length * indexer.head_dim, self.precisions.kv),
            }
            scores.append(Work(operations={fma_key(operands): 2.0 * pairs * indexer.head_dim}, read_bytes=read))
        yield self._one("index_scores", "attention", _total(scores))

    def _causal_conv(self, channels: float, kernel: int) -> Operation:
        work = Work(
            operations={fma_key(self.stream, "vector"): 2.0 * self.tokens * channels * kernel},
            read_bytes={
                "activations": bytes_of(self.tokens * channels, self.stream),
                "weights": bytes_of(1.0 * channels * kernel, self.stream),
            },
            written_bytes={"activations": bytes_of(self.tokens * channels, self.stream)},
        )
        return self._one("conv", "elementwise", work)

    def _selective_scan(self, part: SelectiveScan) -> Iterator[Operation]:
        inner = part.inner / self.tp
        yield self._gemm("in_proj", self.tokens, 2 * inner, part.width)
        yield self._causal_conv(inner, part.conv)
        yield self._gemm("x_proj", self.tokens, part.dt_rank + 2 * part.state, inner)
        yield self._gemm("dt_proj", self.tokens, inner, part.dt_rank)
        works = [
            selective_scan_work(g.sequences, g.q_length, inner, part.state, self.stream, gated=True, softplus=True)
            for g in self.groups
        ]
        yield self._one("scan", "scan", _total(works))
        yield self._gemm("out_proj", self.tokens, part.width, inner)

    def _state_space_duality(self, part: StateSpaceDuality) -> Iterator[Operation]:
        heads, groups = part.heads / self.tp, max(part.groups / self.tp, 1.0)
        inner = heads * part.head_dim
        channels = inner + 2 * groups * part.state
        yield self._gemm("in_proj", self.tokens, inner + channels + heads, part.width)
        yield self._causal_conv(channels, part.conv)
        works = [
            chunked_scan_work(
                g.sequences, g.q_length, heads, part.head_dim, part.state, self.stream, groups=groups,
                chunk=1 if g.decoding else SCAN_CHUNK,
            )
            for g in self.groups
        ]  # fmt: skip
        yield self._one("scan", "scan", _total(works))
        if part.norm:
            yield self._one("gated_norm", "norm", norm_work(self.tokens, inner, self.stream))
        yield self._gemm("out_proj", self.tokens, part.width, inner)

    def _gated_delta(self, part: GatedDelta) -> Iterator[Operation]:
        key_heads, value_heads = part.key_heads / self.tp, part.value_heads / self.tp
        value = value_heads * part.value_dim
        channels = 2 * key_heads * part.key_dim + value
        yield self._gemm("in_proj", self.tokens, channels + value + 2 * value_heads, part.width)
        yield self._causal_conv(channels, part.conv)
        works = []
        for g in self.groups:
            steps = 1.0 * g.sequences * g.q_length
            state = value_heads * part.key_dim * part.value_dim
            held = bytes_of(1.0 * g.sequences * state, "float32")
            # S = a S + b k (v - S^T k)^T, o = S^T q: decay 1, S^T k 2, outer product 2, read-out 2 for each element.
            works.append(
                Work(
                    operations={
                        fma_key(self.stream): 6.0 * steps * state,
                        fma_key("float32", "vector"): steps * (state + 3.0 * value),
                    },
                    read_bytes={"activations": bytes_of(steps * (channels + 2 * value_heads), self.stream), "kv": held},
                    written_bytes={"activations": bytes_of(steps * value, self.stream), "kv": held},
                )
            )
        yield self._one("scan", "scan", _total(works))
        yield self._one("gated_norm", "norm", norm_work(self.tokens * value_heads, part.value_dim, self.stream))
        yield self._gemm("out_proj", self.tokens, part.width, value)

    def _activation(self, name: str, rows: Any, width: Any, kind: str, gated: bool) -> Iterator[Operation]:
        if not gated or f"{kind}_and_mul" in ACTIVATIONS:
            work = activation_work(rows, width, self.stream, f"{kind}_and_mul" if gated else kind)
        else:
            # The gate is one more operand and one more product.
            gate = elementwise_work(rows * width, 1, self.stream)
            work = activation_work(rows, width, self.stream, kind) + dataclasses.replace(
                gate, written_bytes={}, launches=0
            )
        yield self._one(name, "elementwise", work)

    def _mlp(self, part: Mlp, prefix: str, rows: Any) -> Iterator[Operation]:
        inner = part.intermediate / self.tp
        up = f"{prefix}gate_up" if part.gated else f"{prefix}up"
        yield self._gemm(up, rows, (2 if part.gated else 1) * inner, part.width)
        yield from self._activation(f"{prefix}activation", rows, inner, part.activation, part.gated)
        yield self._gemm(f"{prefix}down", rows, part.width, inner)

    def _experts(self, part: Experts) -> Iterator[Operation]:
        layout, width = self.layout, part.latent or part.width
        yield self._one(
            "router", "routing", moe_routing_work(self.tokens, part.count, part.top_k, part.width, self.stream)
        )
        if part.latent is not None:
            yield self._gemm("latent", self.tokens, part.latent, part.width)
        # Tokens that the experts of this device's group can get, and the device's even share of them.
        spans = layout.ep // layout.tp if layout.experts_span_replicas else 1
        tokens, share, inner = self.tokens * spans, 1.0 / layout.ep, part.intermediate / layout.expert_tp
        if spans > 1:
            yield self._exchange("dispatch", part, width)
        ups = 2 if part.gated else 1
        for name, n, k, flags in (
            ("experts_up", ups * inner, width, {"gathered": True}),
            ("experts_down", width, inner, {"combined": layout.ep == 1}),
        ):
            weight, operands = self.precisions.weights_of(name), self.precisions.operands_of(name)
            work = moe_gemm_work(
                tokens, part.count, part.top_k, n, k, operands, weight=weight, output=self.stream, **flags
            )
            yield self._one(name, "moe_gemm", dataclasses.replace(work * share, launches=1))
            if name == "experts_up":
                rows = tokens * part.top_k * share
                yield from self._activation("experts_activation", rows, inner, part.activation, part.gated)
        if spans > 1:
            yield self._exchange("combine", part, width)
            if self.tp > 1:
                message = bytes_of(self.tokens * width, self.stream)
                work = all_gather_work(message, float(self.tp))
                yield self._collective("gather_tokens", "all_gather", message, work, self.tp)
        if part.latent is not None:
            yield self._gemm("latent", self.tokens, part.width, part.latent)
        if part.shared is not None:
            yield from self._mlp(part.shared, "shared_", self.tokens)

    def _exchange(self, name: str, part: Experts, width: int) -> Operation:
        """Each device of a replica sends its part of the tokens to their experts, or gets it back."""
        precision = self.precisions.operands_of("experts_up") if name == "dispatch" else self.stream
        message = bytes_of(self.tokens * part.top_k / self.tp * width, precision)
        work = all_to_all_work(message, float(self.layout.ep))
        return self._collective(name, "all_to_all", message, work, self.layout.ep)


def _is_sliced(part: Part) -> bool:
    """Whether tp devices each hold a part of the sum that this part makes."""
    return isinstance(
        part, Attention | LatentAttention | SelectiveScan | StateSpaceDuality | GatedDelta | Mlp | Experts
    )


def _shared(sequences: Any, dp: int) -> Any:
    return sequences if dp == 1 else np.ceil(np.asarray(sequences, dtype=np.float64) / dp)[()]


def _total(works: list[Work]) -> Work:
    total = works[0]
    for work in works[1:]:
        total = total + work
    return total
