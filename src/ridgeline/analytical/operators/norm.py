"""Normalisations over the last axis: RMSNorm (Zhang & Sennrich 2019), LayerNorm (Ba et al. 2016)."""

from __future__ import annotations

from typing import Any

from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, Work, fma_key

NORMS = ("rms", "layer")


def norm_work(
    rows: Any, width: Any, precision: str, kind: str = "rms", *, residual: bool = False, output: str | None = None
) -> Work:
    """``rows`` vectors of ``width``, normalised; gain (and for ``layer`` a bias) of ``width`` read once.

    rms, for each row: w squares, w - 1 additions, mean and epsilon (2), w products with the reciprocal root and w with
    the gain: 4 w + 1 operations. layer: w - 1 additions and the mean, w differences, w squares, w - 1 additions, mean
    and epsilon (2), w products with the reciprocal root, w with the gain, w additions of the bias: 7 w + 1. Both: one
    reciprocal square root.

    ``residual`` adds a second input first and writes the sum too, which the next residual connection needs (fused
    add and norm). ``output`` is the precision of the result, for a norm that quantises; default ``precision``.

    Raises:
        ValueError: for a ``kind`` that is not in :data:`NORMS`.
    """
    if kind not in NORMS:
        raise ValueError(f"unknown norm {kind!r}: one of {', '.join(NORMS)}")
    rows, width = 1.0 * rows, 1.0 * width
    operations = rows * ((4.0 if kind == "rms" else 7.0) * width + 1.0)
    one = bytes_of(rows * width, precision)
    result = bytes_of(rows * width, output or precision)
    return Work(
        operations={
            fma_key(precision, "vector"): operations + rows * width if residual else operations,
            SPECIAL: rows,
        },
        read_bytes={
            "activations": 2.0 * one if residual else one,
            "weights": bytes_of(width if kind == "rms" else 2.0 * width, precision),
        },
        written_bytes={"activations": one + result if residual else result},
    )
