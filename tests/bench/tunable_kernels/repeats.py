"""A right kernel of ``gemm`` with a tuning space: it multiplies several times over, by default eight times."""

from __future__ import annotations

import torch

from ridgeline.kernels.registry import implementation


def configurations(problem):
    return [{"times": 1, "wrong": False}, {"times": 9, "wrong": False}, {"times": 1, "wrong": True}]


@implementation("gemm", "repeats")
def repeats(problem, constants, context):
    config = {"times": 8, "wrong": False, **context.config}

    def run(inputs, out):
        for _ in range(config["times"]):
            torch.matmul(inputs["a"], constants["b"], out=out)
        if config["wrong"]:
            out.zero_()

    return run
