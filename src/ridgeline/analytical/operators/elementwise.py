"""Element-wise maps: additions, products, copies, conversions."""

from __future__ import annotations

from typing import Any

from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import Work, fma_key


def elementwise_work(
    count: Any, inputs: Any, precision: str, operations_per_element: Any = 1.0, *, output: str | None = None
) -> Work:
    """``count`` results from ``inputs`` equally long arrays, ``operations_per_element`` operations each.

    ``output`` is the precision of the result, for a conversion; default ``precision``.
    """
    count = 1.0 * count
    return Work(
        operations={fma_key(precision, "vector"): count * operations_per_element},
        read_bytes={"activations": bytes_of(count * inputs, precision)},
        written_bytes={"activations": bytes_of(count, output or precision)},
    )
