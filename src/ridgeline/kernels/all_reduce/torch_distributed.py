"""``all_reduce`` by ``torch.distributed``: gloo on CPUs, nccl on GPUs."""

from __future__ import annotations

import torch
import torch.distributed as dist

from ridgeline.analytical.operators import AllReduce
from ridgeline.kernels import process_group
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


@implementation(
    "all_reduce",
    "torch_distributed",
    devices=("cpu", "cuda"),
    precisions=("float64", "float32", "float16", "bfloat16"),
)
def prepare(problem: AllReduce, constants: Tensors, context: Context) -> Run:
    """Copy, then sum in place: torch has no form with an output of its own. The copy is part of the time."""
    process_group.require(problem.ranks, context)
    own = f"rank_{context.rank}"

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        out.copy_(inputs[own])
        dist.all_reduce(out)

    return run
