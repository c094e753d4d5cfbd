"""Every Triton kernel against float64 in Triton's interpreter, on odd shapes. See interpret_triton.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).with_name("interpret_triton.py")


# TRITON_INTERPRET is read when a kernel is decorated: it needs a process of its own.
@pytest.mark.parametrize("group", ["gemm", "attention", "weight_only_gemm", "stream", "fma"])
def test_kernels_agree_with_float64(group: str) -> None:
    done = subprocess.run(
        [sys.executable, str(RUNNER), group],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cases = json.loads(done.stdout)["cases"]
    assert len(cases) >= 15
    wrong = [case for case in cases if case["error"] is None or case["error"] > case["tolerance"]]
    assert not wrong
