"""Kernels that go wrong in every way we know: each costs its own case, gets the right status, and the run goes on."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from ridgeline_process import Run

KERNELS = Path(__file__).parent / "faulty_kernels"

EXPECTED = {
    # Wrong results
    "off_by_one": ("incorrect", "relative error"),
    "writes_nothing": ("incorrect", "not finite or not written"),
    "leaves_last_element": ("incorrect", "1 of "),
    "caches_by_address": ("incorrect", "relative error"),
    "caches_first": ("incorrect", "relative error"),
    "half_the_rows_later": ("incorrect", "not finite or not written"),
    "nothing_later": ("incorrect", "not finite or not written"),
    "zeroes_its_input": ("incorrect", "the kernel wrote to its input 'a'"),
    "scales_its_input_back": ("incorrect", "the kernel wrote to its input 'a'"),
    "knows_its_inputs": ("impossible", "times faster than"),
    # Faults of the process
    "hangs": ("timeout", "no result after 10 s (phase: check)"),
    "segfaults": ("crashed", "killed by SIGSEGV (phase: check)"),
    "segfaults_in_prepare": ("crashed", "killed by SIGSEGV (phase: prepare)"),
    "fills_memory": ("out_of_memory", "GB resident, limit 2.0 GB (phase: check)"),
    "asks_torch_for_too_much": ("out_of_memory", "allocate"),
    "asks_numpy_for_too_much": ("out_of_memory", "allocate"),
    "exits": ("crashed", "exited with code 3"),
    "exits_at_once": ("crashed", "exited with code 0"),
    "raises": ("crashed", "ValueError: no such tile ?"),
    "closes_its_files": ("crashed", "closed the worker's channel"),
    "forks_and_dies": ("crashed", "exited with code 7"),
    "unsupported_in_prepare": ("unsupported", "needs a tile of 7 rows"),
    "unsupported_without_words": ("unsupported", "gave no reason"),
}
GOOD = ["torch", "talks", "starts_a_child"]
GOOD_RECORDS = len(GOOD) + 2

SUITE = f"""
name = "faults"
description = "kernels that go wrong, between good ones"

[settings]
target_relative = 0.5
budget_s = 0.5
timeout_s = 10.0
memory_limit_bytes = 2e9

[[case]]
operator = "gemm"
cache = ["warm"]
implementations = {json.dumps([*EXPECTED, *GOOD])}
problems = [{{ m = 256, n = 256, k = 256, precision = "float32" }}]

[[case]]
operator = "gemm"
cache = ["cold", "warm"]
implementations = ["torch", "writes_nothing"]
problems = [{{ m = 40, n = 64, k = 512, precision = "int8" }}]
"""


@pytest.fixture(scope="module")
def finished(ridgeline_command: Run, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "faults.toml").write_text(SUITE)
    return ridgeline_command(
        "run", folder / "faults.toml", "--with", KERNELS, "--store", folder / "store", "--json", HOME=str(folder)
    )


@pytest.fixture(scope="module")
def records(finished: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_every_planned_case_has_its_record(records: list[dict[str, Any]]) -> None:
    named = sorted((r["implementation"], r["problem"]["precision"], r["protocol"]["cache"]) for r in records)
    planned = [(name, "float32", "warm") for name in (*EXPECTED, *GOOD)]
    planned += [(name, "int8", cache) for name in ("torch", "writes_nothing") for cache in ("cold", "warm")]
    assert named == sorted(planned)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_fault_has_its_status_and_says_why(records: list[dict[str, Any]], name: str) -> None:
    (record,) = (r for r in records if r["implementation"] == name and r["problem"]["precision"] == "float32")
    status, part = EXPECTED[name]
    assert (record["status"], part in record["reason"]) == (status, True), record["reason"]
    assert "\n" not in record["reason"]
    assert bool(record["samples_s"]) == (status == "impossible")


def test_good_kernels_between_them_are_measured(records: list[dict[str, Any]]) -> None:
    good = [r for r in records if r["implementation"] in GOOD]
    assert len(good) == GOOD_RECORDS
    for record in good:
        assert record["status"] in ("ok", "unstable"), record["reason"]
        assert record["median_s"] > 0.0


def test_an_integer_output_that_is_not_written_is_found(records: list[dict[str, Any]]) -> None:
    for record in records:
        if record["implementation"] == "writes_nothing":
            assert record["status"] == "incorrect", record


def test_nothing_that_a_kernel_started_survives(finished: subprocess.CompletedProcess[str]) -> None:
    until = time.monotonic() + 5.0
    while left := [
        p for p in psutil.process_iter(["cmdline"]) if any("sleep(3217)" in a for a in p.info["cmdline"] or [])
    ]:
        assert time.monotonic() < until, left
        time.sleep(0.1)
