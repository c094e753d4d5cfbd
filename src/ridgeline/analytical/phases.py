"""Phases: which tokens a step of a model works on, and what they look back at.

Every field is a number or a float64 column. A mixed batch is several groups in one step: its linear layers read their
weights once for all tokens, its attention works group by group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


class PhaseError(ValueError):
    """A phase that cannot be. One line."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """``sequences`` equal sequences, each with ``q_length`` new tokens at the end of ``kv_length`` tokens in all."""

    sequences: Any
    q_length: Any
    kv_length: Any
    """Tokens that the last query sees, itself included."""
    sampled: Any = 0
    """Tokens of each sequence whose logits are needed."""
    decoding: bool = False
    """Few new tokens on a long cache: latent attention runs absorbed."""
    source_length: Any = 0
    """Tokens of the encoder's output that cross attention reads."""
    new_source: bool = False
    """The source's keys and values are made in this step."""

    def __post_init__(self) -> None:
        for name, least in (("sequences", 1), ("q_length", 1), ("kv_length", 1), ("sampled", 0), ("source_length", 0)):
            value = np.asarray(getattr(self, name), dtype=np.float64)
            if not np.all(value >= least):
                raise PhaseError(f"{name}: must be at least {least}, not {float(np.min(value)):g}")
        if np.any(np.asarray(self.q_length, dtype=np.float64) > np.asarray(self.kv_length, dtype=np.float64)):
            raise PhaseError(
                "kv_length: counts all tokens, the new ones included, so it is at least the number of new ones "
                f"({np.max(self.q_length):g})"
            )


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One step of a model."""

    name: str
    groups: tuple[Group, ...]

    @classmethod
    def prefill(cls, sequences: Any, length: Any, *, cached: Any = 0, source_length: Any = 0) -> Phase:
        """Whole prompts of ``length`` tokens, of which the first ``cached`` are in the cache already.

        Only the last token of each sequence needs logits.
        """
        new = 1.0 * length - cached
        group = Group(
            sequences=sequences,
            q_length=new,
            kv_length=1.0 * length,
            sampled=1,
            source_length=source_length,
            new_source=bool(np.any(np.asarray(source_length) > 0)),
        )
        return cls(name="prefill", groups=(group,))

    @classmethod
    def decode(cls, sequences: Any, context: Any, *, source_length: Any = 0) -> Phase:
        """One token for each sequence, which sees ``context`` tokens, itself included."""
        group = Group(
            sequences=sequences,
            q_length=1.0,
            kv_length=1.0 * context,
            sampled=1,
            decoding=True,
            source_length=source_length,
        )
        return cls(name="decode", groups=(group,))

    @classmethod
    def chunked(cls, sequences: Any, chunk: Any, cached: Any, *, last: bool = False) -> Phase:
        """A chunk of each prompt after ``cached`` tokens. Only the last chunk of a prompt needs logits."""
        group = Group(
            sequences=sequences, q_length=1.0 * chunk, kv_length=1.0 * chunk + cached, sampled=1 if last else 0
        )
        return cls(name="chunked", groups=(group,))

    @classmethod
    def verify(cls, sequences: Any, drafted: Any, context: Any) -> Phase:
        """Speculative decoding: the last token and ``drafted`` guesses at once, logits for all of them.

        ``context`` counts the tokens that the last guess sees, itself included.
        """
        new = 1.0 * drafted + 1.0
        group = Group(sequences=sequences, q_length=new, kv_length=1.0 * context, sampled=new, decoding=True)
        return cls(name="verify", groups=(group,))

    @classmethod
    def encoder(cls, sequences: Any, length: Any) -> Phase:
        """One pass of an encoder: every token sees every token. A DiT's denoising step is one."""
        return cls(name="encoder", groups=(Group(sequences=sequences, q_length=1.0 * length, kv_length=1.0 * length),))

    @classmethod
    def mixed(cls, *phases: Phase) -> Phase:
        """Several phases in one step, such as decoding sequences beside a chunk of a prompt."""
        if not phases:
            raise PhaseError("a mixed batch needs at least one phase")
        if any(phase.name == "encoder" for phase in phases):
            raise PhaseError("an encoder's pass is a step of its own: it shares no weights with the decoder")
        return cls(name="mixed", groups=tuple(group for phase in phases for group in phase.groups))

    @property
    def sequences(self) -> Any:
        """Sequences of all groups."""
        return sum(1.0 * group.sequences for group in self.groups)

    @property
    def tokens(self) -> Any:
        """New tokens of all groups."""
        return sum(1.0 * group.sequences * group.q_length for group in self.groups)

    @property
    def sampled_tokens(self) -> Any:
        """Tokens whose logits are needed."""
        return sum(1.0 * group.sequences * group.sampled for group in self.groups)

    @property
    def q_length(self) -> Any:
        """New tokens of each sequence, where there is one group."""
        return self._only().q_length

    @property
    def kv_length(self) -> Any:
        """Tokens that the last query of each sequence sees, where there is one group."""
        return self._only().kv_length

    def _only(self) -> Group:
        if len(self.groups) != 1:
            raise PhaseError("a mixed batch has several lengths: ask its groups")
        return self.groups[0]
