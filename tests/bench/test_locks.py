"""Locks of several units: all or none, in whatever order runs ask for them."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ridgeline.bench.locks import held


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RIDGELINE_CACHE", str(tmp_path))


def test_overlapping_sets_in_opposite_orders_do_not_block_each_other() -> None:
    holders: dict[str, int] = dict.fromkeys("abc", 0)
    mistakes: list[str] = []
    done: list[str] = []

    def run(units: str) -> None:
        for _ in range(5):
            with held(units):
                for unit in units:
                    holders[unit] += 1
                    if holders[unit] != 1:
                        mistakes.append(unit)
                for unit in units:
                    holders[unit] -= 1
        done.append(units)

    wishes = ("ab", "ba", "bc", "ca")
    threads = [threading.Thread(target=run, args=(units,), daemon=True) for units in wishes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert sorted(done) == sorted(wishes)
    assert mistakes == []


def test_a_run_that_waits_holds_nothing_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    got = threading.Event()

    def wait() -> None:
        with held("ab"):
            got.set()

    with held("b"):
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        assert not got.wait(0.8)
        with held("a"):
            assert not got.is_set()
    assert got.wait(10.0)
    waiting.join(10.0)
    assert capsys.readouterr().err == "ridgeline: waiting for another run on this machine to end\n"


def test_locks_are_given_back_after_an_error() -> None:
    with pytest.raises(KeyboardInterrupt), held("ab"):
        raise KeyboardInterrupt
    with held("ba"):
        pass


KILLED = """
import sys, time
from ridgeline.bench.locks import held
with held("ab") as folder:
    folder.mkdir()
    (folder / "1").touch()
    print(folder, flush=True)
    time.sleep(3600)
"""


def test_what_a_killed_run_left_is_removed_by_the_next_and_a_run_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        process.kill()
    assert (left / "1").exists()
    assert tmp_path in left.parents, "not where other programs keep their files"
    with held("ca") as folder:
        assert not left.exists(), "it had held one of these units"
        folder.mkdir()
        (folder / "2").touch()
    assert {path.suffix for path in left.parent.iterdir()} <= {".lock"}
