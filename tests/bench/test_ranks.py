"""Cases of two real ranks through the command line: their figures, and what becomes of a case whose rank 1 goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from ridgeline_process import Run

KERNELS = Path(__file__).parent / "faulty_ranks"
PROCESSORS = len(os.sched_getaffinity(0))
EXPECTED = {
    "rank_1_dies": ("crashed", "rank 1: killed by SIGKILL (phase: time)"),
    "rank_1_hangs": ("timeout", "rank 1: no result after 15 s (phase: check), in hangs (faulty_rank.py, line "),
    "rank_1_adds_one": ("incorrect", "rank 1: before timing: relative error"),
}
GOOD = ["torch_distributed"]
GOOD_RECORDS = 4
SUITE = f"""
name = "ranks"
description = "two ranks, right and wrong"

[settings]
target_relative = 0.5
budget_s = 0.6
timeout_s = 15.0

[[case]]
operator = "all_reduce"
cache = ["warm"]
implementations = {json.dumps([*EXPECTED, *GOOD])}
problems = [{{ elements = 1000, precision = "float32", ranks = 2 }}]

[[case]]
operator = "all_reduce"
cache = ["cold"]
implementations = ["torch_distributed"]
problems = [{{ elements = 200000, precision = "float32", ranks = [1, 2] }}]

[[case]]
operator = "all_to_all"
cache = ["warm"]
implementations = ["torch_distributed"]
problems = [{{ elements = 1000, precision = "float32", ranks = 2 }}]
"""

pytestmark = pytest.mark.skipif(PROCESSORS < 2, reason="two ranks need two processors")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home folder of the run, by which its processes are known."""
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def finished(ridgeline_command: Run, home: Path) -> subprocess.CompletedProcess[str]:
    (home / "ranks.toml").write_text(SUITE)
    return ridgeline_command(
        "run", home / "ranks.toml", "--with", KERNELS, "--store", home / "store", "--json", "--device", "cpu",
        HOME=str(home), TMPDIR=str(home),
    )  # fmt: skip


@pytest.fixture(scope="module")
def records(finished: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_right_kernels_are_measured_beside_wrong_ones(records: list[dict[str, Any]]) -> None:
    right = [r for r in records if r["implementation"] in GOOD]
    assert len(right) == GOOD_RECORDS
    for record in right:
        assert record["status"] in ("ok", "unstable"), record["reason"]
        ranks = record["problem"]["ranks"]
        assert record["placement"]["ranks"] == record["ranks"] == ranks
        assert record["protocol"]["threads"] == PROCESSORS // ranks
        assert len(record["conditions"]) == len(record["samples_s"]) >= 2
        assert record["rows_checked"] >= 4 * ranks
        if ranks > 1:
            assert record["energy_reason"] == "the energy of several ranks is not measured"


def test_bandwidths_are_those_of_nccl_tests(records: list[dict[str, Any]]) -> None:
    for record in records:
        if record["median_s"] is not None:
            algbw = 4.0 * record["problem"]["elements"] / record["median_s"]
            assert record["algbw_bytes_per_s"] == pytest.approx(algbw)
            factor = {"all_reduce": 1.0, "all_to_all": 0.5}[record["operator"]]
            busbw = factor * algbw if record["ranks"] == 2 else None
            assert record["busbw_bytes_per_s"] == (busbw if busbw is None else pytest.approx(busbw))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_fault_of_one_rank_ends_the_case_and_is_named(records: list[dict[str, Any]], name: str) -> None:
    (record,) = (r for r in records if r["implementation"] == name)
    status, part = EXPECTED[name]
    assert (record["status"], part in record["reason"]) == (status, True), record["reason"]
    assert not record["samples_s"]


def test_no_process_and_no_file_of_the_run_is_left(finished: subprocess.CompletedProcess[str], home: Path) -> None:
    until = time.monotonic() + 5.0
    while left := [process for process in psutil.process_iter() if home_of(process) == str(home)]:
        assert time.monotonic() < until, left
        time.sleep(0.1)
    assert sorted(path.name for path in home.iterdir() if not path.name.startswith("torchinductor")) == [
        "ranks.toml",
        "store",
    ]


def home_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("HOME")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def test_more_ranks_than_processors_are_refused_in_one_line(ridgeline_command: Run, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(SUITE.replace("ranks = [1, 2]", f"ranks = {PROCESSORS + 1}"))
    done = ridgeline_command(
        "run", tmp_path / "s.toml", "--with", KERNELS, "--store", tmp_path / "s", "--device", "cpu"
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert f"{PROCESSORS + 1} ranks need a processor each" in line
    assert f"has {PROCESSORS}" in line
