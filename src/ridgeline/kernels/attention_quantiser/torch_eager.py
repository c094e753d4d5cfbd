"""``attention_quantiser`` as separate torch operations in float32."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import AttentionQuantiser
from ridgeline.kernels.attention_quantiser.operator import quantise_as
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


@implementation("attention_quantiser", "torch_eager", devices=("cpu", "cuda"), papers=("sageattention2",))
def prepare(problem: AttentionQuantiser, constants: Tensors, context: Context) -> Run:
    """The definition itself, in float32."""

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        out.copy_(quantise_as(problem, inputs["x"].float())[0])

    return run
