"""Blocks, runs of equal blocks, and the stacks that they make."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

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

Part = (
    Norm
    | Linear
    | Embedding
    | Tensor
    | Residual
    | Convolution
    | Attention
    | LatentAttention
    | SelectiveScan
    | StateSpaceDuality
    | GatedDelta
    | Mlp
    | Experts
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A named sequence of parts, in the order in which they run."""

    name: str
    parts: tuple[Part, ...]
    positions: float = 1.0
    """Positions that the block works on for each token of the stack's output (a ConvNeXt's early stages: 64, 16, 4)."""

    @property
    def parameter_count(self) -> int:
        """Of all parts."""
        return sum(part.parameter_count for part in self.parts)

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """Attention and what stands in its place."""
        return tuple(part for part in self.parts if isinstance(part, Mixer))


@dataclass(frozen=True, kw_only=True)
class Run:
    """``count`` equal blocks one after another."""

    block: Block
    count: int


@dataclass(frozen=True, kw_only=True)
class Stack:
    """An encoder or a decoder: what comes before its blocks, the blocks, and what comes after."""

    name: Literal["encoder", "decoder"]
    width: int
    inputs: tuple[Part, ...]
    runs: tuple[Run, ...]
    outputs: tuple[Part, ...] = field(default=())

    @property
    def layer_count(self) -> int:
        """Number of blocks."""
        return sum(run.count for run in self.runs)

    @property
    def layers(self) -> tuple[Block, ...]:
        """Every block, in order."""
        return tuple(run.block for run in self.runs for _ in range(run.count))

    @property
    def distinct(self) -> tuple[tuple[Block, int], ...]:
        """Each different block with how often it occurs, in order of first appearance."""
        return self.distinct_between(0, self.layer_count)

    def distinct_between(self, first: int, end: int) -> tuple[tuple[Block, int], ...]:
        """As :attr:`distinct`, of the blocks from number ``first`` on and before number ``end``."""
        counts: dict[Block, int] = {}
        start = 0
        for run in self.runs:
            count = min(start + run.count, end) - max(start, first)
            if count > 0:
                counts[run.block] = counts.get(run.block, 0) + count
            start += run.count
        return tuple(counts.items())

    @property
    def parameter_count(self) -> int:
        """Of inputs, blocks and outputs."""
        ends = sum(part.parameter_count for part in (*self.inputs, *self.outputs))
        return ends + sum(run.count * run.block.parameter_count for run in self.runs)


def runs_of(blocks: list[Block]) -> tuple[Run, ...]:
    """Blocks in order, as runs of equal ones."""
    runs: list[Run] = []
    for block in blocks:
        if runs and runs[-1].block == block:
            runs[-1] = Run(block=block, count=runs[-1].count + 1)
        else:
            runs.append(Run(block=block, count=1))
    return tuple(runs)
