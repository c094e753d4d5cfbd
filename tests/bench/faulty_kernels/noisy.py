"""A right kernel of ``gemm`` that talks: on both descriptors of its output, and listens on its input."""

from __future__ import annotations

import os
import sys

import torch

from ridgeline.kernels.registry import implementation


@implementation("gemm", "talks")
def talks(problem, constants, context):
    def run(inputs, out):
        print('{"event": "result", "status": "ok"}')
        os.write(1, b"raw\n")
        assert sys.stdin.read() == ""
        torch.matmul(inputs["a"], constants["b"], out=out)

    return run
