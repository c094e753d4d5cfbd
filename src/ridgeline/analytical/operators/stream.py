"""``stream``: read, copy or triad over float32 arrays, repeated ``passes`` times; its fastest results are bandwidths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.work import Work, fma_key

STREAM_ARRAYS: Mapping[str, tuple[int, int]] = {"read": (1, 0), "copy": (1, 1), "triad": (2, 1)}
"""Arrays read and arrays written by each operation: ``read`` sums a; ``copy`` c = a; ``triad`` c = a + s*b.

Counted as STREAM (McCalpin) and likwid-bench count: a store is its own bytes, without the read for ownership.
"""
ELEMENT_BYTES = 4


def stream_work(operation: str, elements: Any, passes: Any) -> Work:
    """Work of ``passes`` sweeps over arrays of ``elements`` float32 each. Triad's multiply-add counts as two."""
    reads, writes = STREAM_ARRAYS[operation]
    flop_per_element = {"read": 1.0, "copy": 0.0, "triad": 2.0}[operation]
    swept = float(ELEMENT_BYTES) * elements * passes
    operations = {fma_key("float32", "vector"): flop_per_element * elements * passes} if flop_per_element else {}
    return Work(
        operations=operations,
        read_bytes={"activations": reads * swept},
        written_bytes={"activations": writes * swept} if writes else {},
    )


@problem("stream")
@dataclass(frozen=True, kw_only=True)
class Stream(Problem):
    """``operation`` (read, copy, triad) over float32 arrays of ``elements`` each, ``passes`` times in one call.

    ``read`` returns 16 sums (element i goes to sum i mod 16) of the last pass; ``copy`` and ``triad`` (s = 0.5)
    return the written array.
    """

    operation: str
    elements: int
    passes: int = 1

    def check(self) -> None:
        if self.operation not in STREAM_ARRAYS:
            raise ProblemError("operation", f"must be one of {', '.join(STREAM_ARRAYS)}, not {self.operation!r}")

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return stream_work(self.operation, float(self.elements), float(self.passes))

    def footprint_bytes(self) -> float:
        return float(sum(STREAM_ARRAYS[self.operation]) * ELEMENT_BYTES * self.elements)

    @property
    def label(self) -> str:
        return f"{self.operation} {format_bytes(self.footprint_bytes())}"


def format_bytes(count: float) -> str:
    """A size with its binary unit (KiB, MiB, GiB), three significant figures."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} GiB"
