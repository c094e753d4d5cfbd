"""``stream`` in C++: AVX-512, AVX2 or portable, chosen at run time, on a pool of pinned threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ridgeline.analytical.operators import Stream
from ridgeline.kernels.native.build import NativeBuildError, NativeCallError
from ridgeline.kernels.native.stream import READ_LANES, bind_copy, bind_read, bind_triad, past_caches
from ridgeline.kernels.native.tensors import address
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation
from ridgeline.kernels.stream.operator import TRIAD_SCALAR


@implementation("stream", "native")
def prepare(problem: Stream, constants: Tensors, context: Context) -> Run:
    """Ordinary stores."""
    return _prepare(problem, context, nontemporal=False)


@implementation("stream", "native_nontemporal")
def prepare_nontemporal(problem: Stream, constants: Tensors, context: Context) -> Run:
    """Stores past the caches, which saves the read for ownership."""
    if problem.operation == "read":
        raise Unsupported("read stores nothing")
    try:
        if not past_caches():
            raise Unsupported("this machine has no stores past the caches")
    except NativeBuildError as error:
        raise Unsupported(str(error)) from None
    return _prepare(problem, context, nontemporal=True)


def _prepare(problem: Stream, context: Context, nontemporal: bool) -> Run:
    bound: dict[tuple[int, ...], Callable[[], Any]] = {}
    elements, passes, threads = problem.elements, problem.passes, context.threads
    arrays = ("a", "b") if problem.operation == "triad" else ("a",)
    filled = (READ_LANES if problem.operation == "read" else elements,)

    def bind(addresses: tuple[int, ...]) -> Callable[[], Any]:
        try:
            if problem.operation == "read":
                a, out = addresses
                return bind_read(a, out, elements, passes, threads)
            if problem.operation == "copy":
                a, out = addresses
                return bind_copy(a, out, elements, passes, threads, nontemporal=nontemporal)
            a, b, out = addresses
            return bind_triad(a, b, out, TRIAD_SCALAR, elements, passes, threads, nontemporal=nontemporal)
        except (NativeBuildError, NativeCallError) as error:
            raise Unsupported(str(error)) from None

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        # Binding the arguments once for each set of buffers halves the call's own cost to about 2 us.
        addresses = (
            *(address(inputs[name], name, torch.float32, (elements,)) for name in arrays),
            address(out, "out", torch.float32, filled),
        )
        call = bound.get(addresses)
        if call is None:
            call = bound[addresses] = bind(addresses)
        call()

    return run
