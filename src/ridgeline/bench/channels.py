"""How a process that runs kernels talks with its parent, undisturbed by what the kernels print, and ends with it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TextIO

PR_SET_PDEATHSIG = 1


def take_channels() -> tuple[TextIO, TextIO]:
    """Requests and answers: standard input and output as they are; both are elsewhere from then on."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    return requests, answers


def die_with_parent(parent: int) -> None:
    """Ask the kernel to end this process when its parent dies, also by ``kill -9``."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died before the request above was in place
