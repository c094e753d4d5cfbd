"""Quantised attention against sageattention 1.0.6, the authors' own Triton kernels, in the interpreter."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOLERANCE = 3e-3
"""Relative error of O: theirs adds up P V of a tile, and writes O, in float16 (5e-4 each)."""


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    if importlib.util.find_spec("sageattention") is None:
        pytest.skip("needs sageattention 1.0.6: pip install 'ridgeline[test]'")
    runner = Path(__file__).with_name("interpret_sageattention.py")
    done = subprocess.run(
        [sys.executable, "-O", str(runner)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return list(json.loads(done.stdout))


def test_integers_and_scales_are_the_authors(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        assert case["largest_difference"] <= 1, case
        assert case["integers_differing"] <= case["integers"] / 1000, case  # halves: theirs scales Q before it divides
        assert case["scale_error"] <= 1e-4, case  # ours adds 1e-7, as the second version does


def test_outputs_are_the_authors(cases: list[dict[str, Any]]) -> None:
    assert len(cases) == 3
    for case in cases:
        assert set(case["errors"]) == {"torch_eager", "triton", "native"}
        assert max(case["errors"].values()) <= TOLERANCE, case
        assert case["their_cosine"] >= 0.999, case
