"""What every test that starts ``ridgeline`` as a process of its own shares."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ridgeline

SOURCE = Path(ridgeline.__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "ridgeline.bench.cli"]
LIMIT_S = 300.0

Run = Callable[..., "subprocess.CompletedProcess[str]"]
