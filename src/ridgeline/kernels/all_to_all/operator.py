"""``all_to_all``: inputs, reference and tolerance of the exchange of parts."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import AllToAll
from ridgeline.kernels.collective import EXACT, CollectiveOperator
from ridgeline.kernels.registry import operator


@operator
class AllToAllOperator(CollectiveOperator):
    """Part q of rank r's message becomes part r of rank q's output."""

    name = "all_to_all"
    baselines = {"cpu": "torch_distributed", "cuda": "torch_distributed"}
    tolerances = dict.fromkeys(("float64", "float32", "float16", "bfloat16"), EXACT)
    test_problems = tuple(
        AllToAll(elements=elements, precision=precision, ranks=ranks)
        for ranks in (1, 3)
        for precision in ("float32", "bfloat16")
        for elements in (3, 33, 999)
    )

    def outcome(self, messages: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([message.chunk(len(messages))[self.rank] for message in messages])
