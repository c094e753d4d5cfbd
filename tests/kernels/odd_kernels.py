"""Kernels for test_compiled.py: without a matrix product, one that does not compile, and a product with more beside it."""

from __future__ import annotations

from typing import Any

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


@triton.jit
def product_kernel(x_ptr, y_ptr, n, EXPONENTIALS: tl.constexpr, MULTIPLY_ADDS: tl.constexpr, BLOCK: tl.constexpr):
    """Sums of products; each product goes through so many exponentials and multiply-adds on the way."""
    i = tl.arange(0, BLOCK)
    at = i[:, None] * BLOCK + i[None, :]
    total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for start in range(n):
        x = tl.load(x_ptr + start * BLOCK * BLOCK + at)
        y = tl.load(y_ptr + start * BLOCK * BLOCK + at)
        product = tl.dot(x, y)
        for _ in tl.static_range(EXPONENTIALS):
            product = tl.exp2(product)
        for _ in tl.static_range(MULTIPLY_ADDS):
            product = tl.fma(product, product, product)
        total += product
    tl.store(x_ptr + at, total.to(tl.float16))


def product(exponentials: int, multiply_adds: int) -> Compilation:
    """The product with so much beside it."""
    constants: dict[str, Any] = {"EXPONENTIALS": exponentials, "MULTIPLY_ADDS": multiply_adds, "BLOCK": 64}
    return Compilation(
        product_kernel,
        f"product {exponentials} {multiply_adds}",
        {"x_ptr": "*fp16", "y_ptr": "*fp16", "n": "i32"},
        constants,
        aligned=("x_ptr", "y_ptr"),
    )


def compilations() -> tuple[Compilation, ...]:
    return (
        Compilation(plain_kernel, "plain", {"x_ptr": "*fp32", "n": "i32"}, {"BLOCK": 256}),
        Compilation(narrow_kernel, "narrow", {"x_ptr": "*fp32"}, {"BLOCK": 4}),
        product(1, 1),
        product(9, 1),
        product(1, 33),
    )
