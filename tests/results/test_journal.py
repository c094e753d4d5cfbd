"""The journal under torn lines, bad lines, a full disk and kill -9; the failures are real ones."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from synthetic import blocks, make_measurement

from ridgeline.results.durable import StoreError, write_durably
from ridgeline.results.fact import SCHEMA_VERSION
from ridgeline.results.journal import Journal, read_journal

HERE = Path(__file__).parent


def filled(path: Path, count: int = 3) -> list[str]:
    journal = Journal(path)
    for i in range(count):
        journal.append(make_measurement(record_id=f"r{i}"))
    journal.close()
    return [f"r{i}" for i in range(count)]


def ids(path: Path) -> list[str]:
    return [r.record_id for r in read_journal(path)[0]]


@pytest.mark.parametrize("keep", [1, 40, -2, -1])
def test_a_torn_last_line_is_reported_and_then_moved_away(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    torn = last[:keep]  # -1 leaves whole JSON without its line end: it was never acknowledged
    path.write_bytes(whole[: -len(last)] + torn)
    records, set_aside = read_journal(path)
    assert [r.record_id for r in records] == ["r0", "r1"]
    assert len(set_aside) == 1
    assert set_aside[0].where == f"{path}: line 3"
    assert "cut off" in set_aside[0].reason

    journal = Journal(path)
    assert [r.record_id for r in journal.records] == ["r0", "r1"]
    assert journal.set_aside == []
    journal.append(make_measurement(record_id="r2"))
    journal.close()
    assert read_journal(path)[1] == []
    assert ids(path) == ["r0", "r1", "r2"]
    assert (tmp_path / "journal.torn").read_bytes() == torn + b"\n"


def test_a_last_line_of_zeros_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    with path.open("ab") as f:
        f.write(b"\0" * 100 + b"\n")  # what some file systems leave after a power cut
    assert ids(path) == ["r0", "r1", "r2"]
    Journal(path).close()
    assert read_journal(path)[1] == []


def test_bad_lines_in_the_middle_are_named_and_the_rest_loads(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    lines = path.read_bytes().splitlines(keepends=True)
    newer = lines[0].replace(b'"schema_version":%d' % SCHEMA_VERSION, b'"schema_version":9')
    path.write_bytes(b"".join([lines[0], b"{half\n", lines[1], b"[1]\n", b"\xff\xfe\n", newer, lines[2]]))
    records, set_aside = read_journal(path)
    assert [r.record_id for r in records] == ["r0", "r1", "r2"]
    assert [s.where.rsplit(" ", 1)[1] for s in set_aside] == ["2", "4", "5", "6"]
    assert set_aside[0].reason.startswith("not JSON")
    assert set_aside[1].reason == "not a record"
    assert "newer" in set_aside[3].reason
    assert all("\n" not in s.reason for s in set_aside)
    before = path.read_bytes()
    journal = Journal(path)
    journal.append(make_measurement(record_id="r3"))
    journal.close()
    assert len(journal.set_aside) == 4
    assert path.read_bytes().startswith(before), "whole lines are never rewritten"


def test_text_that_is_not_unicode_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    with pytest.raises(StoreError, match="not valid Unicode"):
        journal.append(make_measurement(problem_label="a\udc80"))
    assert path.read_bytes() == b""
    journal.close()
    with pytest.raises(StoreError, match="closed"):
        journal.append(make_measurement())


def test_a_journal_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        Journal(tmp_path / "absent" / "journal.jsonl")
    with pytest.raises(StoreError, match="journal"):
        Journal(tmp_path)
    with pytest.raises(StoreError, match="No such file"):
        read_journal(tmp_path / "absent.jsonl")


def child(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A Python process that runs ``code`` with ``tests/results`` on its path."""
    path = os.pathsep.join([str(HERE), *(p for p in sys.path if p)])
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )


FULL = """
import resource, sys
from pathlib import Path
from synthetic import blocks, make_measurement
from ridgeline.results.journal import Journal, StoreError, read_journal
path = Path(sys.argv[1])
journal = Journal(path)
journal.append(make_measurement(record_id="r0"))
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 1000, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        journal.append(make_measurement(record_id="big", samples_s=blocks(0.01, n_blocks=400)))
        print("no error")
    except StoreError as error:
        print(error)
    print(path.stat().st_size == len(path.read_bytes()) and path.read_bytes().endswith(b"}\\n"))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append(make_measurement(record_id="r1"))
print([r.record_id for r in read_journal(path)[0]], read_journal(path)[1])
"""


def test_a_full_disk_costs_one_record_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    process = child(FULL, str(path))
    lines = process.communicate(timeout=60)[0].decode().splitlines()
    said = f"{path}: disk full: free space and run the same command again; everything measured so far is kept"
    assert process.returncode == 0
    assert lines == [said, "True", said, "True", "['r0', 'r1'] []"]


def test_write_durably_keeps_the_old_file_when_it_fails(tmp_path: Path) -> None:
    target = tmp_path / "device.json"
    write_durably(target, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(StoreError, match="disk full"):
            write_durably(target, b"x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["device.json"]


ENDLESS = """
import os, sys
from pathlib import Path
from synthetic import blocks, make_measurement
from ridgeline.results.journal import Journal
journal = Journal(Path(sys.argv[1]))
samples = blocks(0.01, n_blocks=200)
for i in range(len(journal.records), 10**6):
    journal.append(make_measurement(record_id=f"r{i}", samples_s=samples))
    os.write(1, f"r{i}\\n".encode())
"""


def test_kill_9_at_any_instant_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    chance = random.Random(7)
    acknowledged: list[str] = []
    for _ in range(6):
        process = child(ENDLESS, str(path))
        assert process.stdout is not None
        first = process.stdout.readline() + process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.08))
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        process.wait()
        process.stdout.close()
        acknowledged += (first + rest).decode().split()
        found = ids(path)
        # What was acknowledged is there, in order; at most one more was on the disk before it was acknowledged.
        assert found[: len(acknowledged)] == acknowledged
        assert len(found) - len(acknowledged) in (0, 1)
        acknowledged = found
    assert len(acknowledged) >= 12
    assert acknowledged == [f"r{i}" for i in range(len(acknowledged))]
    assert blocks(0.01, n_blocks=200) == read_journal(path)[0][-1].samples_s
