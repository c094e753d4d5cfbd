"""The pytest-benchmark suite, run as a user does, and its file imported again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ridgeline_process import SOURCE

from ridgeline.results.imported import Imported
from ridgeline.results.importers.pytest_benchmark import import_pytest_benchmark
from ridgeline.results.store import Store

ROOT = Path(__file__).resolve().parents[1]
SUITE = """
name = "two"
description = "d"
[[case]]
operator = "gemm"
implementations = ["torch", "triton"]
problems = [{ m = 16, n = 16, k = 16, precision = "float32" }]
cache = ["warm"]
"""


@pytest.mark.skipif(SOURCE != ROOT / "src", reason="the installed package has no benchmarks folder beside it")
def test_the_suite_runs_under_pytest_benchmark_and_comes_back_as_imported(tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(SUITE)
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(ROOT / "benchmarks"), "--benchmark-only", "-q", "--benchmark-max-time=0.1",
         f"--ridgeline-suite={tmp_path / 'two.toml'}", "--ridgeline-device=cpu", "--ridgeline-budget=0.3",
         f"--ridgeline-store={tmp_path / 'store'}", f"--benchmark-json={out}", "-rs"],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 1 skipped" in done.stdout
    assert "runs on cuda only" in done.stdout
    (benchmark,) = json.loads(out.read_text())["benchmarks"]
    info = benchmark["extra_info"]
    assert info["median_s"] > 0.0
    assert info["status"] in ("ok", "unstable")
    assert info["error_relative"] < 1e-3
    assert info["roof_fraction"] is None
    assert "ridgeline roofs" in info["roof_reason"]
    store = Store(tmp_path / "store")
    run_id, count, _ = import_pytest_benchmark(store, out)
    assert count == 1
    assert all(isinstance(record, Imported) for record in store.records(run_id)[0])
