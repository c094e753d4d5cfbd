"""The architecture of a model: its encoder and decoder, what it has to hold, and what was taken for granted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.architectures.mixers import Attention, LatentAttention, Recurrent
from ridgeline.analytical.architectures.parts import Experts, Mlp
from ridgeline.analytical.architectures.stack import Stack
from ridgeline.analytical.quantities import bytes_of


class ArchitectureError(ValueError):
    """A config.json that describes no architecture known to us. One line: file, key, what to do."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model by its dimensions. Weights are no part of it."""

    name: str
    family: str
    """``model_type`` of the config, which decides how its keys are read."""
    decoder: Stack | None = None
    encoder: Stack | None = None
    max_length: int | None = None
    """Longest sequence that the config allows; ``None`` where it does not say."""
    encoder_length: int | None = None
    """Tokens of the encoder at the input size that the config states, such as 1 + 14 x 14 patches."""
    notes: tuple[str, ...] = ()
    """What is not counted, and which keys the config left to the defaults of its format."""

    def __post_init__(self) -> None:
        if self.decoder is None and self.encoder is None:
            raise ValueError("an architecture needs an encoder or a decoder")

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """Encoder, then decoder."""
        return tuple(stack for stack in (self.encoder, self.decoder) if stack is not None)

    @property
    def main(self) -> Stack:
        """The decoder, or the encoder of a model that has no decoder."""
        return self.stacks[-1]

    @property
    def parameter_count(self) -> int:
        """Parameters, tied ones once."""
        return sum(stack.parameter_count for stack in self.stacks)

    @property
    def active_parameter_count(self) -> int:
        """Parameters that one token visits: without the experts that it is not routed to."""
        idle = 0
        for stack in self.stacks:
            for block, count in stack.distinct:
                for part in block.parts:
                    if isinstance(part, Experts):
                        idle += count * (part.parameter_count - part.active_parameter_count)
        return self.parameter_count - idle

    @property
    def attention_kind(self) -> str:
        """MHA, GQA, MQA, MLA, linear, SSM; ``hybrid`` for attention beside a recurrent mixer, ``none`` without both."""
        kinds = {m.kind for block, _ in self.main.distinct for m in block.mixers if not getattr(m, "cross", False)}
        if not kinds:
            return "none"
        if kinds & {"SSM", "linear"} and len(kinds) > 1:
            return "hybrid"
        return "/".join(sorted(kinds))

    @property
    def is_moe(self) -> bool:
        """Whether any block routes tokens to experts."""
        return any(isinstance(p, Experts) for s in self.stacks for block, _ in s.distinct for p in block.parts)

    def kv_bytes_per_token(self, precision: str) -> float:
        """Bytes that one token of the decoder leaves in the cache while it is inside every window.

        A windowed layer keeps at most its window, and a recurrent layer keeps a state that does not grow:
        see :func:`ridgeline.analytical.memory.kv_bytes`.
        """
        if self.decoder is None:
            return 0.0
        elements = 0
        for block, count in self.decoder.distinct:
            for mixer in block.mixers:
                if isinstance(mixer, LatentAttention) or (isinstance(mixer, Attention) and not mixer.cross):
                    elements += count * mixer.kv_elements_per_token
        return float(bytes_of(float(elements), precision))

    def state_bytes_per_sequence(self, precision: str) -> float:
        """Bytes of recurrent and convolution state that one sequence keeps, whatever its length."""
        if self.decoder is None:
            return 0.0
        elements = 0
        for block, count in self.decoder.distinct:
            for mixer in block.mixers:
                if isinstance(mixer, Recurrent):
                    elements += count * (mixer.state_elements + mixer.conv_state_elements)
        return float(bytes_of(float(elements), precision))

    def summary(self) -> dict[str, Any]:
        """The dimensions that tell models apart, as plain values; ``None`` where the first block has no such part."""
        block = self.main.runs[0].block
        attention = next((p for b, _ in self.main.distinct for p in b.parts if isinstance(p, Attention)), None)
        feed_forward = next((p for p in block.parts if isinstance(p, Mlp)), None)
        experts = next((p for b, _ in self.main.distinct for p in b.parts if isinstance(p, Experts)), None)
        return {
            "model": self.name,
            "family": self.family,
            "parameters": self.parameter_count,
            "active_parameters": self.active_parameter_count,
            "attention": self.attention_kind,
            "layers": self.main.layer_count,
            "width": self.main.width,
            "q_heads": attention.q_heads if attention else None,
            "kv_heads": attention.kv_heads if attention else None,
            "head_dim": attention.head_dim if attention else None,
            "intermediate": feed_forward.intermediate if feed_forward else None,
            "experts": experts.count if experts else None,
            "top_k": experts.top_k if experts else None,
        }
