"""Precisions and their sizes, block formats, and canonical JSON with its digest.

Precision names are torch's (``float32``, ``bfloat16``, ``float8_e4m3fn``, ``int8``); GB is 1e9 bytes.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BITS: Mapping[str, int] = {
    "float64": 64,
    "float32": 32,
    "tfloat32": 32,
    "float16": 16,
    "bfloat16": 16,
    "float8_e4m3fn": 8,
    "float8_e5m2": 8,
    "float8_e4m3fnuz": 8,
    "float8_e5m2fnuz": 8,
    "float8_e8m0fnu": 8,
    "float4_e2m1fn": 4,
    "int64": 64,
    "int32": 32,
    "int16": 16,
    "int8": 8,
    "uint8": 8,
    "int4": 4,
    "uint4": 4,
    "int3": 3,
    "uint3": 3,
    "int2": 2,
    "uint2": 2,
    "int1": 1,
    "uint1": 1,
    "bool": 8,
}
"""Storage bits of one element (``bool`` as torch stores it, one byte; tfloat32 is stored as float32)."""

# (significand bits with the hidden one, exponent bits) of the binary floating-point formats; IEEE 754-2019, the
# bfloat16 and tfloat32 definitions of their vendors, OCP 8-bit and microscaling specifications.
_FLOAT_SHAPE: Mapping[str, tuple[int, int]] = {
    "float64": (53, 11),
    "float32": (24, 8),
    "tfloat32": (11, 8),
    "float16": (11, 5),
    "bfloat16": (8, 8),
    "float8_e4m3fn": (4, 4),
    "float8_e5m2": (3, 5),
    "float8_e4m3fnuz": (4, 4),
    "float8_e5m2fnuz": (3, 5),
    "float8_e8m0fnu": (1, 8),
    "float4_e2m1fn": (2, 2),
}
_NOT_HELD = {
    ("float8_e4m3fnuz", "float8_e4m3fn"),  # 448
    ("float8_e4m3fn", "float8_e4m3fnuz"),  # 2 ** -10
    ("float8_e5m2", "float8_e5m2fnuz"),  # 2 ** -17
}
"""Pairs of one shape whose exponents are biased by one more in the fnuz format (wide, narrow), and a value that is lost."""
_INTEGER_BITS: Mapping[str, int] = {
    "int64": 64,
    "int32": 32,
    "int16": 16,
    "int8": 8,
    "uint8": 9,
    "int4": 4,
    "uint4": 5,
    "int3": 3,
    "uint3": 4,
    "int2": 2,
    "uint2": 3,
    "int1": 1,
    "uint1": 2,
}
"""Two's-complement bits that hold every value of the integer format."""


class UnknownPrecisionError(ValueError):
    """A precision name that this product does not know."""


def bits(precision: str) -> int:
    """Storage bits of one element of ``precision``.

    Raises:
        UnknownPrecisionError: for a name that is not in :data:`BITS`; an unknown precision is never given a default
            size, because a wrong size is a wrong roof.
    """
    try:
        return BITS[precision]
    except KeyError:
        raise UnknownPrecisionError(f"unknown precision {precision!r}: one of {', '.join(BITS)}") from None


def bytes_of(count: Any, precision: str) -> Any:
    """Bytes of ``count`` elements (a number or a float64 column) stored in ``precision``."""
    return count * (bits(precision) / 8.0)


@functools.cache
def holds_exactly(wide: str, narrow: str) -> bool:
    """Whether every value of ``narrow`` is exactly a value of ``wide``.

    A unit that computes in ``wide`` can therefore do arithmetic on ``narrow`` operands without loss: this is what
    lets a float32 FMA unit bound a bfloat16 product on a machine without bfloat16 arithmetic.
    """
    bits(wide), bits(narrow)
    if wide == narrow:
        return True
    if narrow in _FLOAT_SHAPE:
        if wide not in _FLOAT_SHAPE:
            return False
        if (wide, narrow) in _NOT_HELD:
            return False
        return all(w >= n for w, n in zip(_FLOAT_SHAPE[wide], _FLOAT_SHAPE[narrow], strict=True))
    if narrow in _INTEGER_BITS:
        if wide in _INTEGER_BITS:
            return _INTEGER_BITS[wide] >= _INTEGER_BITS[narrow] and not (
                wide.startswith("u") and not narrow.startswith("u")
            )
        return wide in _FLOAT_SHAPE and _FLOAT_SHAPE[wide][0] >= _INTEGER_BITS[narrow] - 1
    return False


@dataclass(frozen=True)
class Format:
    """A block-scaled number format: ``element`` values that share one ``scale`` in every ``group`` of them."""

    element: str
    """Precision of the stored element, such as ``int4``."""
    group: int
    """Elements along the reduction dimension that share a scale."""
    scale: str
    """Precision of the scale, such as ``bfloat16``."""

    @property
    def bits_per_element(self) -> float:
        """Storage bits per element, the share of the scale included."""
        return bits(self.element) + bits(self.scale) / self.group


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text, so that its digest is an identity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any, length: int = 16) -> str:
    """First ``length`` hexadecimal digits of the SHA-256 of ``value``'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]
