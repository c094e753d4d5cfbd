"""A right kernel of ``gemm`` with a tuning space: it waits before it multiplies, by default 100 ms."""

from __future__ import annotations

import time

import torch

from ridgeline.kernels.registry import implementation


def configurations(problem):
    return [{"wait_s": 0.0, "wrong": False}, {"wait_s": 0.0, "wrong": True}]


@implementation("gemm", "waits")
def waits(problem, constants, context):
    config = {"wait_s": 0.1, "wrong": False, **context.config}

    def run(inputs, out):
        time.sleep(config["wait_s"])
        torch.matmul(inputs["a"], constants["b"], out=out)
        if config["wrong"]:
            out.zero_()

    return run
