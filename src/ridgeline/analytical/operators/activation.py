"""Activation functions, element by element, with or without a gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, Work, fma_key


@dataclass(frozen=True)
class Activation:
    """Counts of one element of the result."""

    operations: float
    """Additions, products, comparisons."""
    special: float
    """Exponentials, tanh, sigmoids, erf: one each."""
    inputs: int = 1
    """Values read: two with a gate."""


ACTIVATIONS: Mapping[str, Activation] = {
    "relu": Activation(1, 0),  # max(x, 0)
    "relu_squared": Activation(2, 0),  # max(x, 0)^2
    "gelu": Activation(4, 1),  # (0.5 x) (1 + erf(c x))
    "gelu_tanh": Activation(7, 1),  # (0.5 x) (1 + tanh(x (a + b (x x))))
    "quick_gelu": Activation(2, 1),  # x sigmoid(1.702 x)
    "silu": Activation(1, 1),  # x sigmoid(x)
    "sigmoid": Activation(0, 1),
    "tanh": Activation(0, 1),
    "relu_and_mul": Activation(2, 0, 2),
    "gelu_and_mul": Activation(5, 1, 2),
    "gelu_tanh_and_mul": Activation(8, 1, 2),
    "silu_and_mul": Activation(2, 1, 2),
}
"""By name; ``..._and_mul`` multiplies the activated half of its input with the other half (GLU, Shazeer 2020)."""


def activation_work(rows: Any, width: Any, precision: str, kind: str, *, output: str | None = None) -> Work:
    """``rows`` x ``width`` results of ``kind``; a gated one reads twice as many values.

    ``output`` is the precision of the result, for one that quantises; default ``precision``.

    Raises:
        ValueError: for a ``kind`` that is not in :data:`ACTIVATIONS`.
    """
    if kind not in ACTIVATIONS:
        raise ValueError(f"unknown activation {kind!r}: one of {', '.join(ACTIVATIONS)}")
    counts, elements = ACTIVATIONS[kind], 1.0 * rows * width
    operations = {}
    if counts.operations:
        operations[fma_key(precision, "vector")] = counts.operations * elements
    if counts.special:
        operations[SPECIAL] = counts.special * elements
    return Work(
        operations=operations,
        read_bytes={"activations": bytes_of(counts.inputs * elements, precision)},
        written_bytes={"activations": bytes_of(elements, output or precision)},
    )
