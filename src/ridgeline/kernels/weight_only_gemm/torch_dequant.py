"""``weight_only_gemm`` as it is without a fused kernel: dequantise the weights, then multiply, in every call."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import WeightOnlyGemm
from ridgeline.kernels.registry import Context, Run, Tensors, implementation


def store(problem: WeightOnlyGemm, q: torch.Tensor) -> torch.Tensor:
    """Weights at their stored size: int8[n, k], or for int4 uint8[n, ceil(k / 2)], q + 8 of even k in the low bits."""
    if problem.weight == "int8":
        return q.contiguous()
    unsigned = torch.nn.functional.pad((q + 8).to(torch.uint8), (0, problem.k % 2))
    return unsigned[:, 0::2] | unsigned[:, 1::2] << 4


def dequantise(problem: WeightOnlyGemm, stored: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """scale * q, [n, k] in the problem's precision, of what :func:`store` returned."""
    if problem.weight == "int4":
        pairs = torch.stack((stored & 15, stored >> 4), dim=-1)
        stored = pairs.view(problem.n, -1)[:, : problem.k].to(torch.int8) - 8
    groups = stored.to(scale.dtype).reshape(problem.n, -1, problem.group)
    return (groups * scale[:, :, None]).view(problem.n, problem.k)


@implementation(
    "weight_only_gemm", "torch_dequantise", devices=("cpu", "cuda"), precisions=("float32", "bfloat16", "float16")
)
def prepare(problem: WeightOnlyGemm, constants: Tensors, context: Context) -> Run:
    """The weights stay integers between calls: reading and expanding them is part of what is measured."""
    stored, scale = store(problem, constants["q"]), constants["scale"]

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        torch.matmul(inputs["x"], dequantise(problem, stored, scale).T, out=out)

    return run
