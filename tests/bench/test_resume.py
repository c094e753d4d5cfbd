"""A run that is interrupted in any way loses nothing, repeats nothing, and leaves nobody behind."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
from ridgeline_process import COMMAND, LIMIT_S, Run, interruptible

from ridgeline.results.record import Record
from ridgeline.results.store import Store

KILLS = 10
GONE_S = 10.0
"""How long the processes of a killed run may take to end: the kernel frees half a gigabyte of each."""
SUITE = """
name = "tiny"
description = "cases of a few milliseconds"

[settings]
target_relative = 0.9
budget_s = 0.05
timeout_s = 100.0

[[case]]
operator = "gemm"
implementations = ["torch"]
cache = ["warm"]
problems = [{{ m = {m}, n = 16, k = 16, precision = "float32" }}]
"""
FULL = "disk full: free space and run the same command again; everything measured so far is kept"


class Command:
    """One ``ridgeline run`` of a suite into a store, which can be started, interrupted and started again."""

    def __init__(
        self, folder: Path, environment: dict[str, str], run: Run, m: Sequence[int], store: Path | None = None
    ) -> None:
        self.suite = folder / "tiny.toml"
        self.suite.write_text(SUITE.format(m=list(m)))
        self.store = Store(store or folder / "store")
        self._environment = environment
        self._run = run

    def start(self, most_bytes: int | None = None) -> subprocess.Popen[str]:
        def before() -> None:
            interruptible()
            if most_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

        return subprocess.Popen(
            [*COMMAND, "run", str(self.suite), "--store", str(self.store.path)],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,
        )

    def finish(self) -> tuple[int, str]:
        done = self._run("run", self.suite, "--store", self.store.path)
        return done.returncode, done.stderr

    def journalled(self) -> int:
        """Whole lines in the journals, without reading what another process is writing."""
        return sum(path.read_bytes().count(b"\n") for path in self.store.path.glob("runs/*/journal.jsonl"))

    def wait_for(self, count: int, process: subprocess.Popen[str]) -> None:
        until = time.monotonic() + LIMIT_S
        while self.journalled() < count and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.005)

    def records(self) -> list[Record]:
        return self.store.records()[0]

    def states(self) -> list[str]:
        return [run.state for run in self.store.runs()]


Make = Callable[..., Command]


@pytest.fixture
def make(tmp_path: Path, environment: dict[str, str], ridgeline_command: Run) -> Make:
    """A command of as many cases as ``m`` has values; one that is interrupted is started as from a shell."""
    return lambda m, store=None: Command(tmp_path, environment, ridgeline_command, m, store)


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def assert_gone(processes: list[psutil.Process], within_s: float = GONE_S) -> None:
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


def assert_workers_gone(parent: int) -> None:
    """No worker that was told this parent is left: the number is the last word of its command line."""
    until = time.monotonic() + GONE_S
    while True:
        left = [
            p.pid
            for p in psutil.process_iter(["cmdline"])
            if (p.info["cmdline"] or [])[-2:] == ["ridgeline.bench.worker", str(parent)]
        ]
        if not left:
            return
        assert time.monotonic() < until, left
        time.sleep(0.05)


def test_killed_at_random_instants_and_continued(make: Make) -> None:
    command = make(range(1, 25))
    instants = random.Random(20261122)
    kept: dict[str, tuple[str, int]] = {}
    for number in range(KILLS):
        process = command.start()
        before = command.journalled()
        if number % 3 == 0:  # while it starts, at any point of it
            time.sleep(instants.uniform(0.1, 3.0))
        else:  # while it measures, or between two cases
            command.wait_for(before + instants.randrange(1, 4), process)
            time.sleep(instants.uniform(0.0, 0.3))
        workers = family(process.pid) if process.poll() is None else []
        process.kill()
        process.communicate()
        assert_gone(workers)
        assert_workers_gone(process.pid)
        found = {r.record_id: (r.case_id, r.process) for r in command.records()}
        assert kept.items() <= found.items()
        kept = found
    assert kept
    assert command.states() == ["unfinished"]
    assert command.finish()[0] == 0
    assert command.states() == ["finished"]
    records = command.records()
    assert kept.items() <= {r.record_id: (r.case_id, r.process) for r in records}.items()
    assert len(records) == command.store.runs()[0].planned == 24
    assert Counter((r.case_id, r.process) for r in records).most_common(1)[0][1] == 1
    assert {r.status for r in records} <= {"ok", "unstable"}


def test_interrupted_then_continued_then_begun_anew(make: Make) -> None:
    command = make(range(1, 9))
    process = command.start()
    command.wait_for(2, process)
    workers = family(process.pid)
    assert workers
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 4, said
    assert said.splitlines()[-1] == ("ridgeline: interrupted; what was measured is kept: the same command continues")
    assert "Traceback" not in said
    assert_gone(workers)
    assert command.states() == ["unfinished"]
    first = {r.record_id for r in command.records()}
    assert len(first) >= 2

    code, said = command.finish()
    assert code == 0, said
    assert command.states() == ["finished"]
    assert first <= {r.record_id for r in command.records()}
    assert len(command.records()) == 8

    # A finished run is never continued: the same command measures again.
    assert command.finish()[0] == 0
    assert command.states() == ["finished", "finished"]
    records = command.records()
    assert len(records) == 16
    assert len({r.record_id for r in records}) == 16
    assert sorted(Counter(r.case_id for r in records).values()) == [2] * 8


def test_interrupted_while_it_starts(make: Make) -> None:
    command = make([1])
    process = command.start()
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (4, -signal.SIGINT), said  # the latter before any code of ours ran
    assert_workers_gone(process.pid)


def test_two_runs_at_once_share_a_store(make: Make) -> None:
    command = make(range(1, 9))
    both = [command.start(), command.start()]
    said = [process.communicate(timeout=LIMIT_S)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert command.states() == ["finished", "finished"]
    records = command.records()
    assert len({r.record_id for r in records}) == 16
    assert sorted(Counter(r.run_id for r in records).values()) == [8, 8]


def test_a_full_disk_is_one_line_and_keeps_what_was_measured(make: Make, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True
    ).returncode == 0  # fmt: skip
    try:
        # Where nothing may be mounted, a limit on the size of files fails the same write.
        _fill_and_continue(make(range(1, 41), disk / "store"), mounted, disk)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill_and_continue(command: Command, mounted: bool, disk: Path) -> None:
    process = command.start(most_bytes=None if mounted else 40_000)
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2, said
    (line,) = (line for line in said.splitlines() if "disk full" in line)
    assert line.startswith("ridgeline: ")
    assert line.endswith(FULL)
    assert said.splitlines()[-1] == line
    assert command.states() == ["unfinished"]
    kept = {r.record_id for r in command.records()}
    assert 0 < len(kept) < 40
    if mounted:
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    code, said = command.finish()
    assert code == 0, said
    assert command.states() == ["finished"]
    assert kept <= {r.record_id for r in command.records()}
    assert len(command.records()) == 40
