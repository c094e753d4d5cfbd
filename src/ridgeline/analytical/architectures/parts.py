"""Parts: what the blocks of a network are made of, each with its dimensions and the parameters it holds.

A part is a frozen dataclass of whole numbers and flags, so that equal blocks compare equal. What a part *does* in a
phase is counted in :mod:`ridgeline.analytical.architectures.operations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

Rows = Literal["token", "sequence", "sampled"]
"""What a part is applied to: every token, once per sequence, or only the tokens whose logits are needed."""


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A normalisation over ``width`` elements; RMS norms have no bias, layer norms have one unless said otherwise."""

    width: int
    kind: Literal["rms", "layer", "batch"] = "rms"
    weight: bool = True
    bias: bool = False
    groups: int = 1
    """Vectors of ``width`` that are normalised for each token, such as one for each head."""
    rows: Rows = "token"

    @property
    def parameter_count(self) -> int:
        """Weight and bias; the groups share them."""
        return self.width * (int(self.weight) + int(self.bias))


@dataclass(frozen=True, kw_only=True)
class Linear:
    """y = W x + b with W [outputs, inputs]."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False
    rows: Rows = "token"
    tied: bool = False
    """W is the token embedding: it is read, but it is no further parameter."""

    @property
    def parameter_count(self) -> int:
        """W, unless tied, and b."""
        return (0 if self.tied else self.inputs * self.outputs) + (self.outputs if self.bias else 0)


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """A table of ``entries`` rows of ``width``, of which one is looked up for each token or sequence."""

    name: str
    entries: int
    width: int
    rows: Rows = "token"

    @property
    def parameter_count(self) -> int:
        """The whole table."""
        return self.entries * self.width


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Parameters that take part in no product worth a line of their own, such as a class token or a layer scale."""

    name: str
    parameter_count: int


@dataclass(frozen=True, kw_only=True)
class Residual:
    """x + f(x) over ``width`` elements of every token."""

    width: int
    parameter_count: int = 0


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolution over positions; ``groups`` equal to both channel counts is depthwise."""

    name: str
    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    groups: int = 1
    bias: bool = True
    input_positions: float = 1.0
    """Positions read for each token of the stack's output."""
    output_positions: float = 1.0
    """Positions written for each token of the stack's output."""
    skipped_tokens: int = 0
    """Tokens of a sequence that no position makes, such as the class token."""

    @property
    def parameter_count(self) -> int:
        """Filters and bias."""
        return self.outputs * (self.inputs // self.groups) * prod(self.kernel) + (self.outputs if self.bias else 0)


@dataclass(frozen=True, kw_only=True)
class Mlp:
    """Two linear layers around an activation; ``gated`` has a third that gates (GLU)."""

    width: int
    intermediate: int
    gated: bool = True
    activation: str = "silu"
    bias: bool = False
    rows: Rows = "token"

    @property
    def parameter_count(self) -> int:
        """Weights and biases."""
        ups = 2 if self.gated else 1
        biases = (ups * self.intermediate + self.width) * self.bias
        return (ups + 1) * self.width * self.intermediate + biases


@dataclass(frozen=True, kw_only=True)
class Experts:
    """A mixture of ``count`` experts of which each token visits ``top_k``, and experts that all tokens visit."""

    width: int
    count: int
    top_k: int
    intermediate: int
    gated: bool = True
    activation: str = "silu"
    bias: bool = False
    router_bias: bool = False
    """A bias on the router's logits, or the correction of auxiliary-loss-free balancing."""
    shared: Mlp | None = None
    latent: int | None = None
    """Width that the routed experts work in, between a projection down and one up (Nemotron 3)."""
    shared_gate: bool = False
    """The shared expert's output is scaled by a sigmoid of one dot product (Qwen2-MoE)."""

    @property
    def expert_parameter_count(self) -> int:
        """Of one routed expert."""
        return Mlp(
            width=self.latent or self.width, intermediate=self.intermediate, gated=self.gated, bias=self.bias
        ).parameter_count

    @property
    def parameter_count(self) -> int:
        """Router, all experts, shared experts."""
        count = self.width * self.count + self.count * self.router_bias + self.count * self.expert_parameter_count
        count += 2 * self.width * (self.latent or 0)
        return count + (self.shared.parameter_count if self.shared else 0) + self.width * self.shared_gate

    @property
    def active_parameter_count(self) -> int:
        """What one token visits."""
        return self.parameter_count - (self.count - self.top_k) * self.expert_parameter_count
