"""What runs requests, and how long its steps take: the inputs of a simulation beside the traffic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

StepTime = Callable[[float, float, float, float], float]
"""``step_time_s(prefill_tokens, prefill_context, decode_sequences, decode_context_tokens) -> seconds``.

``prefill_context`` is the mean number of tokens that a prompt token of this step attends to, itself included: a whole prompt
of p tokens has (p + 1) / 2. ``decode_context_tokens`` is the sum, over the decoding sequences, of what each attends to.
"""


class Lines(Protocol):
    """A step time that is piecewise linear in the context."""

    def line(self, sequences: int, context_tokens: float) -> tuple[float, float, float]:
        """Start, slope and end of the line on which steps that only decode lie: ``start + slope * context`` up to ``end``."""
        ...


class SimulationError(ValueError):
    """A simulation that cannot be made. One line."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """What runs the requests."""

    kv_tokens: int | None = None
    """Tokens whose keys and values fit into one replica's memory; ``None``: all that ever come."""
    page_tokens: int = 16
    max_sequences: int = 256
    """Most sequences in one replica's batch."""
    token_budget: int = 8192
    """Most tokens of one step."""
    mixing: Literal["decode_first", "prefill_first"] = "decode_first"
    watermark: float = 0.01
    """Share of the pages that admission leaves free for those that decode."""
    replicas: int = 1
    router: Literal["round_robin", "least_outstanding", "random"] = "round_robin"

    def __post_init__(self) -> None:
        if min(self.page_tokens, self.max_sequences, self.token_budget, self.replicas) < 1:
            raise SimulationError("page_tokens, max_sequences, token_budget and replicas must be at least 1")
        if self.mixing not in ("decode_first", "prefill_first"):
            raise SimulationError(f"unknown mixing {self.mixing!r}: decode_first or prefill_first")
        if self.router not in ("round_robin", "least_outstanding", "random"):
            raise SimulationError(f"unknown router {self.router!r}: round_robin, least_outstanding or random")
        if self.mixing == "decode_first" and self.token_budget < self.max_sequences:
            raise SimulationError(
                f"a token budget of {self.token_budget} cannot serve {self.max_sequences} sequences that decode: "
                f"raise token_budget or lower max_sequences"
            )

    @property
    def pages(self) -> int | None:
        """Pages of one replica."""
        return None if self.kv_tokens is None else self.kv_tokens // self.page_tokens
