"""Rotary position embedding (RoFormer, Su et al. 2021, equation 34): pairs of values turned by an angle."""

from __future__ import annotations

from typing import Any

from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import Work, fma_key

POSITION_PRECISION = "int64"
"""Precision of a position, as torch's."""


def rope_work(tokens: Any, heads: Any, head_dim: Any, precision: str, *, positions: Any = None) -> Work:
    """``heads`` vectors for each of ``tokens`` tokens, ``head_dim`` rotated values each: query and key heads together.

    A pair takes four products and two additions: 3 operations for each value. Cosines and sines come from a table of
    ``precision``: ``head_dim`` values for each of ``positions`` different positions (default: one a token). Where only
    part of a head is rotated, ``head_dim`` is that part: the rest need not move.
    """
    values = 1.0 * tokens * heads * head_dim
    positions = tokens if positions is None else positions
    return Work(
        operations={fma_key(precision, "vector"): 3.0 * values},
        read_bytes={
            "activations": bytes_of(values, precision),
            "weights": bytes_of(1.0 * positions * head_dim, precision),
            "index": bytes_of(1.0 * tokens, POSITION_PRECISION),
        },
        written_bytes={"activations": bytes_of(values, precision)},
    )
