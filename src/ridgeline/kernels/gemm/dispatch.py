"""``gemm`` by whichever of GEMV, flat GEMM and the library was measured to be fastest for this many rows."""

from __future__ import annotations

from dataclasses import replace

from ridgeline.analytical.operators import Gemm
from ridgeline.kernels.gemm.crossovers import CrossoverError, Crossovers, crossovers
from ridgeline.kernels.native.build import NativeBuildError
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, get_implementation, implementation


@implementation("gemm", "dispatch", precisions=("float32",), papers=("flashdecoding-pp",))
def prepare(problem: Gemm, constants: Tensors, context: Context) -> Run:
    """``context.config`` may state ``gemv_below`` and ``flat_below``; else they are measured once and kept."""
    try:
        known = Crossovers(**context.config) if context.config else crossovers(constants["b"], context.threads)
    except (CrossoverError, NativeBuildError, TypeError) as error:
        raise Unsupported(f"crossovers: {error}") from None
    chosen = get_implementation("gemm", known.choose(problem.m))
    return chosen.prepare(problem, constants, replace(context, config={}))
