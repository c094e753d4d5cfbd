"""The kernels that `benchmarks/overhead.py` gives to every tool, each called without arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

torch.set_num_threads(1)  # a tool that does not pin threads would otherwise be compared on its luck with two
torch.manual_seed(0)
_A, _B = torch.randn(256, 256), torch.randn(256, 256)
_OUT = torch.empty(256, 256)
_Q, _K, _V = (torch.randn(1, 4, 128, 64) for _ in range(3))
_X = torch.randn(1 << 16)


def gemm() -> None:
    """256 x 256 x 256 in float32: about 0.3 ms."""
    torch.matmul(_A, _B, out=_OUT)


def attention() -> None:
    """Four heads of 128 tokens."""
    torch.nn.functional.scaled_dot_product_attention(_Q, _K, _V)


def softmax() -> None:
    """65536 elements: about 50 us."""
    torch.softmax(_X, 0)


KERNELS: dict[str, Callable[[], None]] = {f.__name__: f for f in (gemm, attention, softmax)}


@functools.cache
def kernel(name: str) -> Callable[[], None]:
    """The kernel called ``name``, called once."""
    KERNELS[name]()
    return KERNELS[name]
