"""The GPU check where there is no GPU, and its report of checks that passed, failed and died."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from ridgeline.bench.devices.cuda_probe import something_there
from ridgeline.bench.gpu_check import (
    CHECKS,
    Checked,
    NotPossibleError,
    check_kernel,
    check_named,
    markdown,
    one,
    read_check,
)
from ridgeline.bench.gpu_kernels import KernelCheck, kernel_checks, kernel_errors
from ridgeline.bench.paper_checks.lab import open_lab
from ridgeline.kernels import registry
from ridgeline.kernels.registry import Unsupported


@pytest.mark.skipif(something_there(), reason="a GPU is here")
def test_without_a_gpu_it_is_one_line_and_code_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ridgeline.bench.gpu_check"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "no GPU to measure on" in done.stderr
    assert list(tmp_path.iterdir()) == [], "no report of nothing"


def test_every_outcome_of_a_check_is_an_answer() -> None:
    def passes() -> dict[str, object]:
        """It works."""
        return {"seconds": 1.0}

    def fails() -> dict[str, object]:
        raise AssertionError("10 is not 20\nmore")

    def cannot() -> dict[str, object]:
        raise NotPossibleError("no CUPTI")

    assert one(passes) == {"state": "passed", "detail": "It works.", "values": {"seconds": 1.0}}
    assert one(fails)["detail"] == "AssertionError: 10 is not 20"
    assert (one(cannot)["state"], one(cannot)["detail"]) == ("not possible here", "no CUPTI")


def test_a_check_that_died_has_failed_with_its_last_words() -> None:
    said = "torch says hello\n" + json.dumps({"state": "passed", "detail": "d", "values": {"a": 1}}) + "\n"
    assert read_check("x", 0, said, "", 1.5) == Checked("x", "passed", "d", 1.5, {"a": 1})
    for output in ("", "nothing useful", "{}"):
        died = read_check("x", -6, output, "first\nCUDA error: illegal address", 1.0)
        assert died.state == "failed"
        assert "code -6" in died.detail
        assert died.detail.endswith("illegal address")


def test_the_report_holds_every_check_and_its_figures() -> None:
    checks = [Checked("roofs", "passed", "a | b", 2.0, {"HBM": 3e12}), Checked("watch", "failed", "why", 0.1)]
    text = markdown({"driver": "580"}, checks)
    assert "| driver | 580 |" in text
    assert r"| roofs | passed | 2.0 | a \| b |" in text
    assert "| watch | failed | 0.1 | why |" in text
    assert "- HBM: 3000000000000.0" in text


def test_the_checks_cover_every_path_of_the_card() -> None:
    assert set(CHECKS) == {
        "event timer", "graph timer", "watch", "profile", "peak memory", "out of memory", "illegal address", "roofs",
        "energy",
    }  # fmt: skip
    assert all(check.__doc__ for check in CHECKS.values())


def test_kernels_are_checked_against_their_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, as on a card: a kernel that is right, one that is wrong, one that takes nothing here."""
    with open_lab("cpu", threads=1) as lab:
        problems = registry.get_operator("gemm").test_problems
        parts = [kernel_errors(lab, KernelCheck("gemm", "torch", part, 2)) for part in range(2)]
        assert sum(found["problems"] for found in parts) == len(problems)
        assert all(0.0 <= found["worst_error"] < 0.01 for found in parts)

        right = registry.get_implementation("gemm", "torch")

        def prepare(problem: object, constants: registry.Tensors, context: registry.Context) -> registry.Run:
            run = right.prepare(problem, constants, context)

            def off(inputs: registry.Tensors, out: torch.Tensor) -> None:
                run(inputs, out)
                out.add_(1)

            return off

        def refuse(problem: object, constants: registry.Tensors, context: registry.Context) -> registry.Run:
            raise Unsupported("not on Tuesdays")

        for made, wrong, words in (
            (prepare, AssertionError, "above"),
            (refuse, Unsupported, "not on Tuesdays"),
        ):
            own = dataclasses.replace(right, prepare=made)
            monkeypatch.setitem(registry._IMPLEMENTATIONS, ("gemm", "torch"), own)
            with pytest.raises(wrong, match=words):
                kernel_errors(lab, KernelCheck("gemm", "torch", 0, 1))


def test_all_kernels_of_a_card_are_checked_in_parts() -> None:
    checks = kernel_checks("cuda")
    assert {("attention", "triton"), ("gemm", "torch"), ("stream", "triton")} <= {
        (check.operator, check.implementation) for check in checks
    }
    assert not {check for check in checks if check.operator in ("all_reduce", "all_to_all")}, "these need several ranks"
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        assert KernelCheck.named(check.name) == check
        named = check_named(check.name)
        assert isinstance(named, partial)
        assert (named.func, named.args) == (check_kernel, (check,))
    assert check_named("watch") is CHECKS["watch"]
