"""The ``ridgeline`` command with a cache of its own, so that it waits for no other run on this host."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from ridgeline_process import COMMAND, LIMIT_S, SOURCE, interruptible


class Ridgeline:
    """Starts commands in an environment of their own under ``folder``."""

    def __init__(self, folder: Path) -> None:
        cache = folder / "cache"
        (cache / "native").mkdir(parents=True, mode=0o700)
        built = Path(os.environ.get("RIDGELINE_CACHE") or Path.home() / ".cache" / "ridgeline") / "native"
        for library in built.glob("*.so"):
            shutil.copy2(library, cache / "native")
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RIDGELINE")}
        self.environment = {**kept, "PYTHONPATH": str(SOURCE), "RIDGELINE_CACHE": str(cache)}
        self.folder = folder

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """A command, to its end."""
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            preexec_fn=interruptible,
        )
