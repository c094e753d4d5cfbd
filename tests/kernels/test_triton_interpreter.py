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
GROUPS = {
    "gemm": 15,
    "attention": 50,
    "paged_attention": 8,
    "tree_attention": 6,
    "block_sparse_attention": 10,
    "quantised_attention": 15,
    "attention_quantiser": 15,
    "token_gather_attention": 7,
    "token_selector": 36,
    "weight_only_gemm": 15,
    "stream": 15,
    "fma": 15,
}
"""Groups of cases, and how many there are at least."""


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
    assert len(found[group]) >= GROUPS[group]
    wrong = [case for case in found[group] if case["error"] is None or case["error"] > case["tolerance"]]
    assert not wrong
