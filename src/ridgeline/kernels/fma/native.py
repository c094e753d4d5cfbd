"""``fma`` in C++: AVX-512 with BF16 and VNNI, AVX2 or portable, chosen at run time, on a pool of pinned threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ridgeline.analytical.operators import Fma
from ridgeline.analytical.work import fma_key
from ridgeline.kernels.native.build import NativeBuildError, NativeCallError
from ridgeline.kernels.native.fma import bind_fma, fma_path, fma_shape
from ridgeline.kernels.native.tensors import address
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation


@implementation("fma", "native", precisions=("float64", "float32", "bfloat16", "int8"))
def prepare(problem: Fma, constants: Tensors, context: Context) -> Run:
    """One group per thread, in the chains, lanes and depth of this CPU's instructions."""
    if problem.unit != "vector":
        raise Unsupported(f"measures the vector unit; this problem asks for {problem.unit}")
    try:
        shape, path = fma_shape(problem.precision), fma_path(problem.precision)
    except (NativeBuildError, NativeCallError) as error:
        raise Unsupported(str(error)) from None
    if (problem.chains, problem.lanes, problem.depth) != tuple(shape):
        raise Unsupported(f"{path} computes {shape.chains} chains x {shape.lanes} lanes x depth {shape.products}")
    bound: dict[tuple[int, int, int], Callable[[], Any]] = {}
    operand = getattr(torch, problem.precision)
    sums = getattr(torch, fma_key(problem.precision).accumulator)
    operands, filled = (problem.lanes * problem.depth,), (problem.groups, problem.chains, problem.lanes)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        addresses = (
            address(inputs["x"], "x", operand, operands),
            address(inputs["y"], "y", operand, operands),
            address(out, "out", sums, filled),
        )
        call = bound.get(addresses)
        if call is None:
            call = bound[addresses] = bind_fma(problem.precision, *addresses, problem.iterations, problem.groups)
        call()

    return run
