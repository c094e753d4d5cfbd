"""Two kernels for test_compiled.py: one without a matrix product, one that does not compile."""

from __future__ import annotations

import triton
import triton.language as tl

from ridgeline.kernels.compiled import Compilation


@triton.jit
def plain_kernel(x_ptr, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, n, BLOCK):
        total += tl.load(x_ptr + start + i, mask=start + i < n, other=0.0)
    tl.store(x_ptr + i, total)


@triton.jit
def narrow_kernel(x_ptr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i[:, None] * BLOCK + i[None, :])
    tl.store(x_ptr + i[:, None] * BLOCK + i[None, :], tl.dot(x, x))  # no tl.dot is that small


def compilations() -> tuple[Compilation, ...]:
    return (
        Compilation(plain_kernel, "plain", {"x_ptr": "*fp32", "n": "i32"}, {"BLOCK": 256}),
        Compilation(narrow_kernel, "narrow", {"x_ptr": "*fp32"}, {"BLOCK": 4}),
    )
