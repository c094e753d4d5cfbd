"""Lowering a stack to its operators: what every operator's maker needs to know, and the makers they share."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ridgeline.analytical.architectures.parts import Rows
from ridgeline.analytical.architectures.stack import Stack
from ridgeline.analytical.collectives import Kind, Transfer
from ridgeline.analytical.kernel_shape import KernelShape
from ridgeline.analytical.layout import Layout, Precisions
from ridgeline.analytical.operators import all_reduce_work, gemm_work, weight_only_gemm_work
from ridgeline.analytical.phases import Phase, PhaseError
from ridgeline.analytical.quantities import bits, bytes_of
from ridgeline.analytical.work import Work

Family = Literal[
    "gemm", "moe_gemm", "attention", "scan", "convolution", "routing", "embedding", "norm", "elementwise", "collective"
]


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
    items: Any = 0.0
    """Attention's items of work in one run: KV heads of all sequences. 0 where none are counted."""
    kernel: KernelShape | None = None
    """``None`` where it is no single kernel of a listed family."""

    @property
    def fusible(self) -> bool:
        """Whether it can ride along with its neighbours, so that its bytes need not move: norms, rotations, activations,
        sums. A bound has to leave these bytes out."""
        return self.family in ("norm", "elementwise")


class Lowering:
    """One stack in one phase on one device; ``block``, ``count`` and ``positions`` are those of the block at hand."""

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

    @property
    def tokens(self) -> Any:
        """Rows that the block works on."""
        return self.positions * sum(1.0 * g.sequences * g.q_length for g in self.groups)

    def rows(self, rows: Rows) -> Any:
        """Rows that a part is applied to."""
        if rows == "token":
            return self.tokens
        if rows == "sequence":
            return sum(1.0 * g.sequences for g in self.groups)
        return sum(1.0 * g.sequences * g.sampled for g in self.groups)

    def one(self, name: str, family: Family, work: Work, **more: Any) -> Operation:
        """An operation of the block at hand; ``more`` as :class:`Operation` has it."""
        return Operation(name=name, block=self.block, family=family, work=work, count=self.count, **more)

    def attention(self, name: str, works: list[Work], kv_heads: int, kernel: KernelShape | None = None) -> Operation:
        """Attention of all groups in one run, from the work of each."""
        items = sum(1.0 * g.sequences * kv_heads for g in self.groups)
        return self.one(name, "attention", total_work(works), items=items, kernel=kernel)

    def gemm(self, name: str, m: Any, n: Any, k: Any) -> Operation:
        """Y[m, n] = X[m, k] W[n, k]^T in the precisions that hold for the operator."""
        weight, operands = self.precisions.weights_of(name), self.precisions.operands_of(name)
        group = self.precisions.group
        if group is not None and bits(weight) < bits(operands):
            work = weight_only_gemm_work(m, n, k, weight, group, operands, scale=self.stream, output=self.stream)
        else:
            work = gemm_work(m, n, k, operands, weight=weight, output=self.stream)
        sizes = {"m": m, "n": n, "k": k}
        plain = KernelShape(family="gemm", sizes=sizes, precision=operands if weight == operands else "")
        return self.one(name, "gemm", work, kernel=plain)

    def collective(self, name: str, kind: Kind, message: Any, work: Work, ranks: int) -> Operation:
        """A collective of ``ranks`` ranks."""
        return self.one(name, "collective", work, transfer=Transfer(kind=kind, message_bytes=message, ranks=ranks))

    def all_reduce(self, name: str, rows: Any, width: int) -> Operation:
        """The sum of ``rows`` x ``width`` over the devices of a replica."""
        message = bytes_of(rows * width, self.stream)
        return self.collective(name, "all_reduce", message, all_reduce_work(message, float(self.tp)), self.tp)


def _shared(sequences: Any, dp: int) -> Any:
    return sequences if dp == 1 else np.ceil(np.asarray(sequences, dtype=np.float64) / dp)[()]


def total_work(works: list[Work]) -> Work:
    """Of all groups of a phase together; weights that each of them reads are read once."""
    total = works[0]
    for work in works[1:]:
        weights = [each.read_bytes["weights"] for each in (total, work) if "weights" in each.read_bytes]
        total = total + work
        if weights:
            once = {**total.read_bytes, "weights": functools.reduce(np.maximum, weights)}
            total = dataclasses.replace(total, read_bytes=once)
    return total
