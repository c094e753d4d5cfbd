"""Every Triton kernel against float64 in Triton's interpreter, on odd shapes. See interpret_triton.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUNNER = Path(__file__).with_name("interpret_triton.py")
GROUPS = ("gemm", "attention", "quantised_attention", "attention_quantiser", "weight_only_gemm", "stream", "fma")


# TRITON_INTERPRET is read when a kernel is decorated: it needs a process of its own.
@pytest.fixture(scope="module")
def found() -> dict[str, list[dict[str, Any]]]:
    """Cases by group of kernels."""
    done = subprocess.run(
        [sys.executable, str(RUNNER), *GROUPS],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("group", GROUPS)
def test_kernels_agree_with_float64(found: dict[str, list[dict[str, Any]]], group: str) -> None:
    assert len(found[group]) >= 15
    wrong = [case for case in found[group] if case["error"] is None or case["error"] > case["tolerance"]]
    assert not wrong
