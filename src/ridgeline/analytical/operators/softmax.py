"""Softmax over the last axis."""

from __future__ import annotations

from typing import Any

from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, Work, fma_key


def softmax_work(rows: Any, width: Any, precision: str) -> Work:
    """``rows`` vectors of ``width``, each read once and written once.

    For each row: w - 1 comparisons for the maximum, w differences, w exponentials, w - 1 additions, one reciprocal and
    w products: 4 w - 2 operations and w + 1 special functions. An online softmax rescales more often: that is work of
    the implementation.
    """
    rows, width = 1.0 * rows, 1.0 * width
    values = bytes_of(rows * width, precision)
    return Work(
        operations={fma_key(precision, "vector"): rows * (4.0 * width - 2.0), SPECIAL: rows * (width + 1.0)},
        read_bytes={"activations": values},
        written_bytes={"activations": values},
    )
