"""``all_to_all`` by ``torch.distributed``: gloo on CPUs, nccl on GPUs."""

from __future__ import annotations

import torch
import torch.distributed as dist

from ridgeline.analytical.operators import AllToAll
from ridgeline.kernels import process_group
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


@implementation(
    "all_to_all",
    "torch_distributed",
    devices=("cpu", "cuda"),
    precisions=("float64", "float32", "float16", "bfloat16"),
)
def prepare(problem: AllToAll, constants: Tensors, context: Context) -> Run:
    """``all_to_all_single`` from the input into the output."""
    process_group.require(problem.ranks, context)
    own = f"rank_{context.rank}"

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        dist.all_to_all_single(out, inputs[own])

    return run
