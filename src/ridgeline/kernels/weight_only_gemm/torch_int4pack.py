"""``weight_only_gemm`` by ``torch.ops.aten._weight_int4pack_mm_for_cpu``: int4 weights, groups of 32 to 256."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import WeightOnlyGemm
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation

GROUPS = (32, 64, 128, 256)
"""Groups that the operator checks for (torch 2.13)."""
MULTIPLE_N = 16
"""Rows of the weight that are packed together."""


@implementation(
    "weight_only_gemm", "torch_int4_packed", devices=("cpu",), precisions=("float32", "bfloat16", "float16")
)
def prepare(problem: WeightOnlyGemm, constants: Tensors, context: Context) -> Run:
    """bfloat16 has a vector kernel on x86; float32 and float16 run torch's plain loops there."""
    if problem.weight != "int4":
        raise Unsupported(f"torch._weight_int4pack_mm_for_cpu takes int4 weights, not {problem.weight}")
    if problem.group not in GROUPS:
        raise Unsupported(f"torch._weight_int4pack_mm_for_cpu takes groups of {GROUPS}, not {problem.group}")
    if problem.n % MULTIPLE_N:
        raise Unsupported(f"torch._weight_int4pack_mm_for_cpu needs n divisible by {MULTIPLE_N}; n is {problem.n}")
    # The kernel computes (u - 8) * scale + zero for u in [0, 15]; the second argument of the packing is unused here.
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(constants["q"].int() + 8, 1)
    scale = constants["scale"].T
    scale_and_zero = torch.stack((scale, torch.zeros_like(scale)), dim=-1).contiguous()  # [k / group, n, 2]

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        out.copy_(torch.ops.aten._weight_int4pack_mm_for_cpu(inputs["x"], packed, problem.group, scale_and_zero))

    return run
