"""``stream``: inputs, reference and tolerance of the bandwidth kernels."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import Stream
from ridgeline.kernels.registry import Operator, Tensors, Tolerance, operator

READ_SUMS = 16
"""Sums that ``read`` returns: element i is added to sum i mod 16."""
TRIAD_SCALAR = 0.5
ROW_ELEMENTS = 1024
"""Of the rows in which outputs too long to be compared whole are sampled."""


@operator
class StreamOperator(Operator):
    """Read, copy or triad over float32 arrays, repeated; its fastest results are the bandwidths of a device."""

    name = "stream"
    test_problems = tuple(
        Stream(operation=operation, elements=elements, passes=passes)
        for operation in ("read", "copy", "triad")
        for elements, passes in ((1, 1), (17, 3), (1000, 2), (100_003, 1))
    )

    def make_inputs(self, problem: Stream, generator: torch.Generator) -> Tensors:
        # Uniform over [0.5, 1.5): sums do not cancel, so the error of `read` stays relative to its result.
        names = ("a", "b") if problem.operation == "triad" else ("a",)
        return {name: torch.rand(problem.elements, generator=generator).add_(0.5) for name in names}

    def make_output(self, problem: Stream) -> torch.Tensor:
        return torch.empty(READ_SUMS if problem.operation == "read" else problem.elements)

    def reference(
        self, problem: Stream, constants: Tensors, inputs: Tensors, rows: torch.Tensor | None
    ) -> torch.Tensor:
        a = inputs["a"]
        if problem.operation == "read":
            padded = torch.nn.functional.pad(a, (0, -len(a) % READ_SUMS)) if len(a) % READ_SUMS else a
            sums = padded.view(-1, READ_SUMS).sum(0, dtype=torch.float64)
            return sums if rows is None else sums[None][rows]
        chosen = {name: x if rows is None else _in_rows(x)[rows] for name, x in inputs.items()}
        result = chosen["a"].double()
        return result if problem.operation == "copy" else result.add_(chosen["b"].double(), alpha=TRIAD_SCALAR)

    def row_elements(self, problem: Stream, out: torch.Tensor) -> int:
        return _in_rows(out).shape[-1]

    def tolerance(self, problem: Stream) -> Tolerance:
        if problem.operation == "copy":
            return Tolerance(0.0, "a copy is exact")
        if problem.operation == "triad":
            return Tolerance(1e-7, "one rounding to float32")
        return Tolerance(1e-4, "float32 partial sums of up to 2^28 positive terms")


def _in_rows(x: torch.Tensor) -> torch.Tensor:
    """``[elements]`` as rows of :data:`ROW_ELEMENTS`; as one row where they do not fill these."""
    return x.view(-1, len(x) if len(x) % ROW_ELEMENTS else ROW_ELEMENTS)
