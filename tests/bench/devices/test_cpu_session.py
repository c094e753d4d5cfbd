"""What is seen of the host during a block, and when that spoils it; pinning; the choice of a unit."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.bench.devices import cpu_session
from ridgeline.bench.devices.choose import choose_unit
from ridgeline.bench.devices.cpu_session import OTHERS_SHARE, CpuSession, Reading, judge, read_counters
from ridgeline.bench.devices.unit import UnitError

START = Reading(at_s=100.0, busy_s=50.0, resolution_s=0.0, own_s=10.0, steal_s=1.0, involuntary_switches=5)


def later(elapsed_s: float, *, busy_s: float, own_s: float, steal_s: float = 0.0, resolution_s: float = 0.0) -> Reading:
    return Reading(START.at_s + elapsed_s, 50.0 + busy_s, resolution_s, START.own_s + own_s, 1.0 + steal_s, 8)


def test_a_block_of_its_own_counts() -> None:
    seen = judge(START, later(0.020, busy_s=0.041, own_s=0.040), None)
    assert seen.cause == ""
    assert seen.conditions.load_other == pytest.approx(0.05)
    assert seen.conditions.involuntary_switches == 3
    assert seen.conditions.clock_mhz is None


def test_other_processes_and_the_hypervisor_are_named() -> None:
    assert judge(START, later(0.020, busy_s=0.035, own_s=0.020), 3000.0).cause == "other processes"
    assert judge(START, later(0.100, busy_s=0.1, own_s=0.1, steal_s=0.07), None).cause == "hypervisor"
    # One tick of 10 ms in a block of 20 ms may be a neighbour's single microsecond.
    assert judge(START, later(0.020, busy_s=0.02, own_s=0.02, steal_s=0.01), None).cause == ""


def test_where_nothing_can_be_read_nothing_is_claimed() -> None:
    blind = dataclasses.replace(START, busy_s=None, steal_s=None)
    seen = judge(blind, dataclasses.replace(blind, at_s=100.02), None)
    assert seen.cause == ""
    assert seen.conditions.load_other is None
    assert seen.conditions.steal_s is None


@given(st.floats(1e-3, 1.0), st.floats(0.0, 2.0), st.floats(0.0, 0.04))
def test_what_the_clock_cannot_resolve_is_not_blamed_on_others(elapsed: float, own: float, resolution: float) -> None:
    """Busy time that exceeds the own by no more than the counters' resolution is nobody else's."""
    after = later(elapsed, busy_s=own + resolution, own_s=own, resolution_s=resolution)
    seen = judge(START, after, None)
    assert seen.cause == ""
    assert seen.conditions.load_other == pytest.approx(0.0, abs=1e-9 / elapsed)


@given(st.floats(1e-3, 1.0), st.floats(0.0, 2.0), st.floats(0.0, 2.0))
def test_the_cause_follows_the_share(elapsed: float, own: float, others: float) -> None:
    seen = judge(START, later(elapsed, busy_s=own + others, own_s=own), None)
    if abs(others / elapsed - OTHERS_SHARE) > 1e-6:
        assert (seen.cause == "other processes") == (others / elapsed > OTHERS_SHARE)


def test_the_host_can_be_read_and_grows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = read_counters()
    sum(i * i for i in range(200_000))
    second = read_counters()
    assert second.own_s > first.own_s
    assert second.at_s > first.at_s
    monkeypatch.setattr(cpu_session, "CPUACCT", tmp_path / "none")
    monkeypatch.setattr(cpu_session, "STAT", tmp_path / "none")
    blind = read_counters()
    assert blind.busy_s is None
    assert blind.steal_s is None


def test_every_thread_is_pinned_to_the_processors_of_the_case() -> None:
    before = os.sched_getaffinity(0)
    try:
        session = CpuSession()
        session.use(1)
        assert os.sched_getaffinity(0) == {max(before)}
        session.use(len(before))
        assert os.sched_getaffinity(0) == before
    finally:
        cpu_session.pin(set(before))


def test_ranks_have_processors_of_their_own() -> None:
    before = os.sched_getaffinity(0)
    try:
        session = CpuSession()
        taken = []
        for rank in range(len(before)):
            session.use(1, rank)
            taken.append(os.sched_getaffinity(0))
        assert sorted(taken, key=max) == [{processor} for processor in sorted(before)]
        assert taken[0] == {max(before)}
    finally:
        cpu_session.pin(set(before))


def test_ranks_of_a_host_pass_through_its_cache_together() -> None:
    unit = choose_unit("cpu")
    ranks = unit.threads
    assert unit.cache_bytes_per_rank(1) == unit.last_level_cache_bytes
    assert unit.cache_bytes_per_rank(ranks) == pytest.approx(unit.last_level_cache_bytes / ranks)


class Threads:
    """Threads of a process as the kernel shows them: 11 and 12 can help, 13 has slept since its start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for thread in (11, 12, 13):
            self.show(thread, "S", 5.0)

    def show(self, thread: int, state: str, spent_s: float) -> None:
        task = self.folder / str(thread)
        task.mkdir(exist_ok=True)
        (task / "stat").write_text(f"{thread} (a name (with) one) {state} 1 1 1")
        (task / "schedstat").write_text(f"{spent_s * 1e9:.0f} 100 7\n")

    def waited(self, session: CpuSession) -> float:
        """Seconds that settling takes."""
        began = time.monotonic()
        session.settle()
        return time.monotonic() - began


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Threads]:
    threads = torch.get_num_threads()
    monkeypatch.setattr(cpu_session, "pin", lambda processors: None)
    monkeypatch.setattr(cpu_session, "TASKS", tmp_path)
    monkeypatch.setattr(cpu_session, "LONGEST_SETTLE_S", 0.3)
    yield Threads(tmp_path)
    torch.set_num_threads(threads)


def test_helpers_of_one_kind_are_not_waited_for(shown: Threads) -> None:
    session = CpuSession()
    session.use(2)
    shown.show(11, "S", 5.1)
    for _ in range(5):
        session.settle()
    shown.show(11, "R", 5.1)
    assert shown.waited(session) < 0.2


def test_helpers_that_do_not_fit_on_the_processors_are_waited_for(shown: Threads) -> None:
    session = CpuSession()
    session.use(2)
    shown.show(11, "S", 5.1)
    shown.show(12, "S", 5.0001)
    shown.show(13, "S", 5.00001)
    session.settle()
    shown.show(11, "R", 5.1)
    assert shown.waited(session) >= 0.3  # the longest: it does not stop
    shown.show(11, "S", 5.1)
    shown.show(13, "R", 5.1)
    assert shown.waited(session) < 0.2  # what has not helped is not waited for
    (shown.folder / "13" / "stat").unlink()
    assert shown.waited(session) < 0.2


def test_helpers_that_come_later_are_seen(shown: Threads) -> None:
    session = CpuSession()
    session.use(2)
    shown.show(11, "S", 5.1)
    for _ in range(4):
        session.settle()
    shown.show(12, "S", 5.1)
    session.settle()
    shown.show(12, "R", 5.1)
    assert shown.waited(session) >= 0.3
    shown.show(12, "S", 5.1)
    session.use(2)
    for _ in range(5):
        session.settle()
    shown.show(12, "R", 5.1)
    assert shown.waited(session) < 0.2  # it helped an earlier case


def test_helpers_of_another_case_are_seen_at_once(shown: Threads) -> None:
    session = CpuSession()
    session.use(2)
    shown.show(11, "S", 5.1)
    for _ in range(6):
        session.settle()
    shown.show(12, "S", 5.1)
    session.settle()
    shown.show(12, "R", 5.1)
    assert shown.waited(session) < 0.2  # looked for at the ninth time
    shown.show(12, "S", 5.1)
    session.begin_case("gemm", "native", 0)
    session.settle()
    shown.show(12, "R", 5.1)
    assert shown.waited(session) >= 0.3


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="torch has no helper on one processor")
def test_a_spinning_thread_of_torch_is_known() -> None:
    session = CpuSession()
    try:
        session.use(2)
        matrix = torch.randn(512, 512)
        for _ in range(3):
            matrix @ matrix
        session.settle()  # waits once, to know them
        assert not cpu_session.any_running(cpu_session.thread_times())
    finally:
        session.close()


def test_what_ranks_do_together_is_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = cpu_session.CpuWatch()
    readings = iter([START, later(0.020, busy_s=0.040, own_s=0.020)] * 2)
    monkeypatch.setattr(cpu_session, "read_counters", lambda: next(readings))
    watch.begin()
    assert watch.end().cause == "other processes"
    watch.begin()
    told: list[float] = []
    seen = watch.end_among(lambda own_s: told.append(own_s) or own_s + 0.019)  # type: ignore[func-returns-value]
    assert told == [pytest.approx(0.020)]
    assert seen.cause == ""
    assert seen.conditions.load_other == pytest.approx(0.05)


def test_units_are_chosen_by_name() -> None:
    assert choose_unit("cpu").spec == choose_unit(None).spec == "cpu"
    with pytest.raises(UnitError, match="unknown device 'tpu': one of cpu"):
        choose_unit("tpu")
    with pytest.raises(UnitError, match="write cpu"):
        choose_unit("cpu:1")
