"""Kernels that do known amounts of more work: each launch runs a registered kernel N times, so N + 1 is 1/N more.

``torch_x20`` against ``torch_x21`` is 5 % more work, ``x50`` against ``x51`` 2 %, ``x100`` against ``x101`` 1 %: exactly,
with nothing else changed, and with the right answer, so every check passes.
"""

from __future__ import annotations

from typing import Any

import torch

from ridgeline.kernels.registry import Context, Run, Tensors, get_implementation, implementation

BASES = (
    ("gemm", "torch"),
    ("gemm", "numba"),
    ("attention", "torch_sdpa"),
    ("attention", "torch_eager"),
    ("weight_only_gemm", "torch_int8_packed"),
    ("stream", "native"),
)
TIMES = (1, 20, 21, 50, 51, 100, 101)


def _register(operator: str, base: str, times: int) -> None:
    @implementation(operator, f"{base}_x{times}")
    def prepare(problem: Any, constants: Tensors, context: Context) -> Run:
        once = get_implementation(operator, base).prepare(problem, constants, context)
        if times == 1:
            return once  # a loop of one turn is 2 % more work for a kernel of 10 us, and was found

        def run(inputs: Tensors, out: torch.Tensor) -> None:
            for _ in range(times):
                once(inputs, out)

        return run


for _operator, _base in BASES:
    for _times in TIMES:
        _register(_operator, _base, _times)
