"""``line_selector`` by torch: one product with the last queries, a softmax, two sums and two selections."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import LineSelector
from ridgeline.kernels.line_selector.operator import chosen_lines, last_scores
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


@implementation(
    "line_selector",
    "torch",
    devices=("cpu", "cuda"),
    precisions=("float32", "bfloat16", "float16"),
    papers=("qwen25-1m",),
)
def prepare(problem: LineSelector, constants: Tensors, context: Context) -> Run:
    """Weights and sums are float32 whatever the operands."""

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        out.copy_(chosen_lines(problem, last_scores(problem, inputs["q"], inputs["k"]).softmax(-1)))

    return run
