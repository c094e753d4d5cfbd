"""Let every Triton implementation prepare for CUDA where there is no GPU: prints a JSON list of what was compiled.

A stand-in for Triton's driver names sm_90. The compilation goes through Triton's own launcher, with its
specialisations: sizes of 1 become constants, multiples of 16 are marked.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from ridgeline.kernels.registry import Context, Unsupported, get_operator, implementations, load


class Sm90:
    """The little of a driver that compiling asks for."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


def main() -> None:
    driver.set_active(Sm90())
    torch.cuda.get_device_capability = lambda device=None: (9, 0)
    allocate = torch.empty

    def empty(*sizes: Any, device: str | None = None, **options: Any) -> torch.Tensor:
        return allocate(*sizes, **options)

    torch.empty = empty  # scratch memory of prepare stays on the CPU
    load()
    prepared = []
    for implementation in (i for i in implementations() if i.name.startswith("triton")):
        operator = get_operator(implementation.operator)
        done: set[str] = set()
        for problem in operator.test_problems:  # the first, smallest problem of each precision
            if implementation.unsupported_reason(problem, "cuda") or getattr(problem, "precision", "") in done:
                continue
            try:
                constants = operator.make_constants(problem, torch.Generator().manual_seed(0))
                implementation.prepare(problem, constants, Context(device="cuda", threads=1))
            except Unsupported:
                continue
            done.add(getattr(problem, "precision", ""))
            prepared.append(
                {"operator": operator.name, "implementation": implementation.name, "problem": problem.to_dict()}
            )
    json.dump(prepared, sys.stdout)


if __name__ == "__main__":
    main()
