"""Llama-3-8B by hand, every operation: what the step's engine is tested with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.operators import (
    activation_work,
    attention_work,
    elementwise_work,
    embedding_work,
    gemm_work,
    norm_work,
    rope_work,
)
from ridgeline.analytical.work import Work

LAYERS, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 32.0, 4096.0, 14336.0, 32.0, 8.0, 128.0, 128256.0
WEIGHT_BYTES = 2.0 * 8030261248.0
KV_BYTES_PER_TOKEN = 2.0 * 2.0 * LAYERS * KV_HEADS * HEAD_DIM


@dataclass(frozen=True)
class Operation:
    name: str
    work: Work
    count: Any = 1.0
    transfer: None = None
    items: Any = 0.0
    kernel: None = None

    @property
    def fusible(self) -> bool:
        return self.name in ("norm", "rope", "add", "activation")

    @property
    def family(self) -> str:
        return self.name if self.name in ("attention", "embedding") else "gemm"


def operations_of(sequences: Any, q_length: Any, kv_length: Any, precision: str = "bfloat16") -> Sequence[Operation]:
    """One step; the head sees the last token of each sequence."""
    tokens = sequences * q_length

    def product(n: float, k: float) -> Work:
        return gemm_work(tokens, n, k, precision)

    heads = (HEADS, KV_HEADS)
    return (
        Operation("embedding", embedding_work(tokens, VOCABULARY, HIDDEN, precision)),
        Operation("norm", norm_work(tokens, HIDDEN, precision), 2.0 * LAYERS + 1.0),
        Operation("qkv", product((HEADS + 2.0 * KV_HEADS) * HEAD_DIM, HIDDEN), LAYERS),
        Operation("rope", rope_work(tokens, HEADS + KV_HEADS, HEAD_DIM, precision), LAYERS),
        Operation(
            "attention",
            attention_work(sequences, *heads, q_length, kv_length, HEAD_DIM, True, precision),
            LAYERS,
            items=sequences * KV_HEADS,
        ),
        Operation("o", product(HIDDEN, HEADS * HEAD_DIM), LAYERS),
        Operation("add", elementwise_work(tokens * HIDDEN, 2.0, precision, 1.0), 2.0 * LAYERS),
        Operation("gate_up", product(2.0 * INTERMEDIATE, HIDDEN), LAYERS),
        Operation("activation", activation_work(tokens, INTERMEDIATE, precision, "silu_and_mul"), LAYERS),
        Operation("down", product(HIDDEN, INTERMEDIATE), LAYERS),
        Operation("head", gemm_work(sequences, VOCABULARY, HIDDEN, precision)),
    )


def memory_bytes_of(sequences: Any, q_length: Any, kv_length: Any) -> Any:
    """Weights, KV cache, and the widest activations."""
    return WEIGHT_BYTES + KV_BYTES_PER_TOKEN * sequences * kv_length + 2.0 * 2.0 * INTERMEDIATE * sequences * q_length
