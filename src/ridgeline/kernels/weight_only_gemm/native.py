"""``weight_only_gemm`` of few rows in C++: int8 weights in panels, which become float32 in registers, one scale a channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ridgeline.analytical.operators import WeightOnlyGemm
from ridgeline.kernels.gemm.native import MOST_ROWS, binding_run, panel_width
from ridgeline.kernels.gemm.panels import pack
from ridgeline.kernels.native.gemm import bind_flat_int8
from ridgeline.kernels.native.tensors import address
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation


@implementation("weight_only_gemm", "native_flat", precisions=("float32",))
def prepare(problem: WeightOnlyGemm, constants: Tensors, context: Context) -> Run:
    """One pass over the weights for all rows; the integers are exact, sums are float32."""
    if problem.weight != "int8":
        raise Unsupported(f"made for int8 weights, not {problem.weight}")
    if problem.group != problem.k:
        raise Unsupported(f"takes one scale per channel of k={problem.k}, not one per {problem.group}")
    if problem.m > MOST_ROWS:
        raise Unsupported(f"made for up to {MOST_ROWS} rows of X, not {problem.m}")
    scale = constants["scale"].reshape(-1).float().contiguous()
    return flat_int8(problem, flat_int8_panels(constants["q"]), scale, context.threads)


def flat_int8_panels(q: torch.Tensor) -> torch.Tensor:
    """int8 q[n, k] as :func:`flat_int8` takes it: panels of its transpose.

    Raises:
        Unsupported: where the C++ cannot be built.
    """
    return pack(q.T, panel_width())


def flat_int8(problem: WeightOnlyGemm, panels: torch.Tensor, scale: torch.Tensor, threads: int) -> Run:
    """A run on ``panels``, from :func:`flat_int8_panels`, and ``scale`` [n] float32.

    Raises:
        Unsupported: where the C++ cannot be built.
    """
    m, n, k = problem.m, problem.n, problem.k
    columns = panel_width()
    scratch = torch.empty(m, k)

    def bind(x: int, y: int) -> Callable[[], Any]:
        weights = address(panels, "panels", torch.int8, (-(-n // columns), k, columns))
        scales = address(scale, "scale", torch.float32, (n,))
        room = address(scratch, "scratch", torch.float32, (m, k))
        return bind_flat_int8(x, weights, scales, y, room, m, n, k, threads)

    return binding_run("x", problem, bind)
