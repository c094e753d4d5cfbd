"""What every test that starts ``ridgeline`` as a process of its own shares."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ridgeline

SOURCE = Path(ridgeline.__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "ridgeline.bench.cli"]
LIMIT_S = 300.0

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def interruptible() -> None:
    """Before a command starts: Ctrl-C ends it as from a terminal. A shell lets its background jobs ignore SIGINT, and
    so would everything that a test run in the background starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
