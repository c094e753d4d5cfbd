"""Kernels of ``gemm`` that end, hang, flood or leave something behind in their process."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import time

import numpy as np
import torch

from ridgeline.kernels.registry import Unsupported, implementation

SLEEPER = "import time; time.sleep(3217)"
"""Code of the child process that a kernel starts; the number is what the test looks for."""


@implementation("gemm", "hangs")
def hangs(problem, constants, context):
    def run(inputs, out):
        while True:
            time.sleep(1.0)

    return run


@implementation("gemm", "segfaults")
def segfaults(problem, constants, context):
    return lambda inputs, out: ctypes.string_at(0)


@implementation("gemm", "segfaults_in_prepare")
def segfaults_in_prepare(problem, constants, context):
    ctypes.string_at(0)


@implementation("gemm", "fills_memory")
def fills_memory(problem, constants, context):
    """Maps the same pages again and again: as resident as new ones, and there at once however slow the machine is."""

    def run(inputs, out):
        pages = os.memfd_create("pages")
        os.truncate(pages, 1 << 26)
        kept = []
        while True:
            kept.append(mmap.mmap(pages, 1 << 26, mmap.MAP_SHARED | mmap.MAP_POPULATE))

    return run


@implementation("gemm", "asks_torch_for_too_much")
def asks_torch_for_too_much(problem, constants, context):
    return lambda inputs, out: torch.empty(1 << 46)


@implementation("gemm", "asks_numpy_for_too_much")
def asks_numpy_for_too_much(problem, constants, context):
    return lambda inputs, out: np.empty(1 << 46)


@implementation("gemm", "exits")
def exits(problem, constants, context):
    return lambda inputs, out: sys.exit(3)


@implementation("gemm", "exits_at_once")
def exits_at_once(problem, constants, context):
    return lambda inputs, out: os._exit(0)


@implementation("gemm", "raises")
def raises(problem, constants, context):
    def run(inputs, out):
        raise ValueError("no such tile \udcff\nsecond line")

    return run


@implementation("gemm", "closes_its_files")
def closes_its_files(problem, constants, context):
    def run(inputs, out):
        os.closerange(3, 256)
        time.sleep(3600.0)

    return run


@implementation("gemm", "forks_and_dies")
def forks_and_dies(problem, constants, context):
    def run(inputs, out):
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-c", SLEEPER]) if os.fork() == 0 else time.sleep(3217)
        os._exit(7)

    return run


@implementation("gemm", "unsupported_in_prepare")
def unsupported_in_prepare(problem, constants, context):
    raise Unsupported("needs a tile of\n7 rows")


@implementation("gemm", "unsupported_without_words")
def unsupported_without_words(problem, constants, context):
    raise Unsupported


@implementation("gemm", "starts_a_child")
def starts_a_child(problem, constants, context):
    subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True)

    def run(inputs, out):
        torch.matmul(inputs["a"], constants["b"], out=out)

    return run
