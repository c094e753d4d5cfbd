"""Kernels of ``all_reduce`` whose rank 1 goes wrong, while rank 0 waits for it."""

from __future__ import annotations

import os
import signal
import time

import torch.distributed as dist

from ridgeline.kernels.registry import implementation


def register(name, fault):
    """A right kernel, but for ``fault(launches so far)`` on rank 1 before each launch."""

    @implementation("all_reduce", name)
    def prepare(problem, constants, context):
        launches = 0

        def run(inputs, out):
            nonlocal launches
            launches += 1
            if context.rank == 1:
                fault(launches)
            out.copy_(inputs[f"rank_{context.rank}"])
            dist.all_reduce(out)
            if context.rank == 1 and name == "rank_1_adds_one":
                out.add_(1.0)

        return run


def dies(launches):
    if launches > 10:  # while it is timed
        os.kill(os.getpid(), signal.SIGKILL)


def hangs(launches):
    while True:
        time.sleep(1.0)


register("rank_1_dies", dies)
register("rank_1_hangs", hangs)
register("rank_1_adds_one", lambda launches: None)
