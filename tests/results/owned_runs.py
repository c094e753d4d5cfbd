"""Runs that are still owned, and processes that use the store, for the tests of the store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from synthetic import make_device, make_manifest, make_measurement

from ridgeline.results.store import RunWriter, Store


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python process that runs ``code`` with ``tests/results`` on its path."""
    path = os.pathsep.join([str(Path(__file__).parent), *(p for p in sys.path if p)])
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def begin(store: Store, count: int = 1, **manifest: str) -> RunWriter:
    """A run with ``count`` records, still owned."""
    m = make_manifest(**manifest)
    writer = store.create(m, make_device())
    for i in range(count):
        writer.append(make_measurement(run_id=m.run_id, case_id=f"c{i}", content_key=f"c{i}"))
    return writer


def run_folder(store: Store, run_id: str) -> Path:
    return store.path / "runs" / run_id
