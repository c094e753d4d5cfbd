"""``gemm`` of few rows in C++: a GEMV that takes B as it is, and a flat GEMM on B packed in panels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ridgeline.analytical.operators import Gemm, WeightOnlyGemm
from ridgeline.kernels.gemm.panels import pack
from ridgeline.kernels.native.build import NativeBuildError, NativeCallError
from ridgeline.kernels.native.gemm import bind_flat, bind_gemv, panel_columns
from ridgeline.kernels.native.tensors import address
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation

MOST_ROWS = 256
"""Rows up to which the flat GEMM is offered: a block of A, 2 KiB a row, then fills a second-level cache of 512 KiB."""

MOST_BUFFERS = 64
"""Pairs of buffers that a run remembers; the measuring loop uses a few, a model's layers any number."""


@implementation("gemm", "native_gemv", precisions=("float32",), papers=("flashdecoding-pp",))
def prepare_gemv(problem: Gemm, constants: Tensors, context: Context) -> Run:
    """One pass over B for every four rows of A."""
    return gemv(problem, constants["b"], context.threads)


@implementation("gemm", "native_flat", precisions=("float32",), papers=("flashdecoding-pp",))
def prepare_flat(problem: Gemm, constants: Tensors, context: Context) -> Run:
    """One pass over B for all rows; register tiles of up to 6 rows, shared out so that no row is padded."""
    if problem.m > MOST_ROWS:
        raise Unsupported(f"made for up to {MOST_ROWS} rows of A, not {problem.m}")
    return flat(problem, flat_panels(constants["b"]), context.threads)


def flat_panels(b: torch.Tensor) -> torch.Tensor:
    """B[k, n] as :func:`flat` takes it: panels of two vectors of this CPU.

    Raises:
        Unsupported: where the C++ cannot be built.
    """
    return pack(b, panel_width())


def panel_width() -> int:
    """Columns of a panel. Builds the library, so that its time and its refusal are prepare's.

    Raises:
        Unsupported: where the C++ cannot be built.
    """
    try:
        return panel_columns()
    except (NativeBuildError, NativeCallError) as error:
        raise Unsupported(str(error)) from None


def gemv(problem: Gemm, b: torch.Tensor, threads: int) -> Run:
    """A run on ``b``, float32 [k, n], as it is.

    Raises:
        Unsupported: where the C++ cannot be built.
    """
    panel_width()
    m, n, k = problem.m, problem.n, problem.k

    def bind(a: int, c: int) -> Callable[[], Any]:
        return bind_gemv(a, address(b, "b", torch.float32, (k, n)), c, m, n, k, threads)

    return binding_run("a", problem, bind)


def flat(problem: Gemm, panels: torch.Tensor, threads: int) -> Run:
    """A run on ``panels``, from :func:`flat_panels`."""
    m, n, k = problem.m, problem.n, problem.k
    columns = panel_width()
    scratch = torch.empty(m, k)

    def bind(a: int, c: int) -> Callable[[], Any]:
        weights = address(panels, "panels", torch.float32, (-(-n // columns), k, columns))
        return bind_flat(a, weights, c, address(scratch, "scratch", torch.float32, (m, k)), m, n, k, threads)

    return binding_run("a", problem, bind)


def binding_run(name: str, problem: Gemm | WeightOnlyGemm, bind: Callable[[int, int], Callable[[], Any]]) -> Run:
    """A run of what ``bind`` makes of the addresses of the input called ``name`` and of the output, both float32.

    Binds the arguments once for each pair of buffers, of which it knows the latest few.
    """
    calls: dict[tuple[int, int], Callable[[], Any]] = {}
    a_shape, c_shape = (problem.m, problem.k), (problem.m, problem.n)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        key = address(inputs[name], name, torch.float32, a_shape), address(out, "out", torch.float32, c_shape)
        call = calls.get(key)
        if call is None:
            if len(calls) == MOST_BUFFERS:
                calls.clear()
            call = calls[key] = bind(*key)
        call()

    return run
