"""Work: what a computation has to do, counted exactly and independent of any device.

A count is a Python number or a float64 column; the formulas of :mod:`ridgeline.analytical.operators` serve both.
Counts are floats: a product such as ``2 * 70e9 * 1e6 * 1024`` overflows int64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNITS = ("matrix", "vector", "special", "integer")
"""Kinds of execution unit: matrix (tensor cores, AMX), vector (FMA lanes), special function, integer."""

STREAMS = ("weights", "activations", "kv", "index", "scales", "scratch")
"""What bytes are made of."""


@dataclass(frozen=True, order=True)
class RateKey:
    """Which arithmetic rate: the unit, the precisions of operands and accumulator, dense or structured sparse.

    Operations under ``2:4`` count the half that is skipped too, as data sheets state such rates.
    """

    unit: str
    a: str
    b: str
    accumulator: str
    sparsity: str = "dense"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unknown unit {self.unit!r}: one of {', '.join(UNITS)}")
        if self.sparsity not in ("dense", "2:4"):
            raise ValueError(f"unknown sparsity {self.sparsity!r}: dense or 2:4")

    @property
    def label(self) -> str:
        """Short name for tables, such as ``vector float32`` or ``matrix int8``."""
        operands = self.a if self.a == self.b else f"{self.a}x{self.b}"
        narrow = "" if self.accumulator == accumulator_of(self.a) else f" into {self.accumulator}"
        return f"{self.unit} {operands}{narrow}" + ("" if self.sparsity == "dense" else " 2:4")


def accumulator_of(precision: str) -> str:
    """The accumulator that the field uses: float64 and float32 add up in themselves, narrower floats in float32, integers
    in int32."""
    if precision in ("float64", "float32"):
        return precision
    return "int32" if precision.startswith(("int", "uint")) else "float32"


def fma_key(precision: str, unit: str = "matrix") -> RateKey:
    """The rate key of multiply-adds on ``precision`` operands with the accumulator the field uses for it."""
    return RateKey(unit, precision, precision, accumulator_of(precision))


SPECIAL = RateKey("special", "float32", "float32", "float32")
"""Exponentials, tanh, sigmoids, reciprocal square roots: one operation each, whatever the implementation makes of it."""


@dataclass(frozen=True)
class Work:
    """Operations by rate, bytes by stream, and launches of one computation.

    ``operations`` counts a multiply-add as two. ``read_bytes`` and ``written_bytes`` are compulsory: every input read
    once, every output written once. What an implementation really moves is stated by the implementation.
    """

    operations: Mapping[RateKey, Any] = field(default_factory=dict)
    read_bytes: Mapping[str, Any] = field(default_factory=dict)
    written_bytes: Mapping[str, Any] = field(default_factory=dict)
    launches: Any = 1
    link_bytes: Any = 0.0
    """Bytes that one rank has to pass over its link to the others; no part of :attr:`bytes`."""

    def __post_init__(self) -> None:
        for streams in (self.read_bytes, self.written_bytes):
            unknown = set(streams) - set(STREAMS)
            if unknown:
                raise ValueError(f"unknown stream {sorted(unknown)}: one of {', '.join(STREAMS)}")

    @property
    def flop(self) -> Any:
        """Operations of the multiply-add units (matrix, vector, integer), special functions left out."""
        return sum(count for key, count in self.operations.items() if key.unit != "special")

    @property
    def bytes(self) -> Any:
        """Compulsory bytes, read and written."""
        return sum(self.read_bytes.values()) + sum(self.written_bytes.values())

    @property
    def intensity_flop_per_byte(self) -> Any:
        """Arithmetic intensity against compulsory bytes; zero for pure movement."""
        return self.flop / self.bytes if self.bytes is not None and _positive(self.bytes) else float("inf")

    def in_tfloat32(self) -> Work:
        """This work with its float32 products on a matrix unit that rounds their operands to TF32."""
        tf32 = RateKey("matrix", "tfloat32", "tfloat32", "float32")
        operations: dict[RateKey, Any] = {}
        for key, count in self.operations.items():
            new = tf32 if (key.unit, key.a, key.b) == ("matrix", "float32", "float32") else key
            operations[new] = operations.get(new, 0.0) + count
        return dataclasses.replace(self, operations=operations)

    def total(self, launches: Any = 1) -> Work:
        """The rows of a work of columns added up, done in ``launches`` launches: ragged sequences of one batch.

        Every stream adds up, so give it works whose rows share no bytes (attention, not a product with weights).
        """
        import numpy as np

        def summed(counts: Mapping[Any, Any]) -> dict[Any, Any]:
            return {key: np.sum(n) for key, n in counts.items()}

        return Work(
            summed(self.operations),
            summed(self.read_bytes),
            summed(self.written_bytes),
            launches,
            np.sum(self.link_bytes),
        )

    def __mul__(self, count: Any) -> Work:
        """This work done ``count`` times: a number, or a column of the counts' length."""
        return Work(
            {key: n * count for key, n in self.operations.items()},
            {stream: n * count for stream, n in self.read_bytes.items()},
            {stream: n * count for stream, n in self.written_bytes.items()},
            self.launches * count,
            self.link_bytes * count,
        )

    def __add__(self, other: Work) -> Work:
        return Work(
            _merge(self.operations, other.operations),
            _merge(self.read_bytes, other.read_bytes),
            _merge(self.written_bytes, other.written_bytes),
            self.launches + other.launches,
            self.link_bytes + other.link_bytes,
        )


def _positive(value: Any) -> bool:
    import numpy as np

    return bool(np.all(np.asarray(value) > 0))


def _merge(left: Mapping[Any, Any], right: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: left.get(key, 0.0) + right.get(key, 0.0) for key in {**left, **right}}
