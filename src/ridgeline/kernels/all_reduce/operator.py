"""``all_reduce``: inputs, reference and tolerance of the sum over ranks."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import AllReduce
from ridgeline.kernels.collective import CollectiveOperator
from ridgeline.kernels.registry import Tolerance, operator


@operator
class AllReduceOperator(CollectiveOperator):
    """Sum of all ranks' messages, on every rank."""

    name = "all_reduce"
    baselines = {"cpu": "torch_distributed", "cuda": "torch_distributed"}
    tolerances = {
        "float64": Tolerance(1e-13, "sums of up to hundreds of terms in float64"),
        "float32": Tolerance(1e-5, "sums of up to hundreds of terms in float32"),
        "float16": Tolerance(5e-3, "partial sums rounded to float16: 5e-4 relative each"),
        "bfloat16": Tolerance(3e-2, "partial sums rounded to bfloat16: 4e-3 relative each"),
    }
    test_problems = tuple(
        AllReduce(elements=elements, precision=precision, ranks=ranks)
        for ranks in (1, 3)
        for precision in ("float32", "bfloat16")
        for elements in (1, 17, 1000)
    )

    def outcome(self, messages: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(messages).sum(0)
