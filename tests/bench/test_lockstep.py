"""Ranks in step, on synthetic samples: the slowest rank's times, one decision for all, and whom a hang is blamed on."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from ridgeline.bench.devices.cpu_session import Reading, judge
from ridgeline.bench.devices.unit import Observed, Timer, Watch
from ridgeline.bench.lockstep import (
    LaunchesInStep,
    Ranks,
    SlowestRank,
    WatchOfAll,
    facts_together,
    seen_together,
    slowest,
)
from ridgeline.bench.rank_group import blamed, hanging
from ridgeline.bench.supervisor import Outcome, Place
from ridgeline.bench.timing import Timing, measure
from ridgeline.results.measurement import Conditions
from ridgeline.workloads.suite import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class ThreadRanks(Ranks):
    """Ranks that are threads of this process; ``group`` is a barrier and the list they tell through."""

    def tell(self, mine: T) -> list[T]:
        barrier, told = self.group
        told[self.rank] = mine
        barrier.wait(10.0)
        everything = list(told)
        barrier.wait(10.0)
        return everything


class Script(Timer, Watch):
    """A rank with times, a clock, disturbances and a liking for checks of its own."""

    name = "script"

    def __init__(self, rank: int) -> None:
        self.random = random.Random(rank)
        self.rank, self.now, self.blocks, self.checked = rank, 1000.0 * rank, 0, []  # type: ignore[var-annotated]
        self.samples: list[list[float]] = []

    def launch(self, count: int) -> None:
        pass

    def time(self, launch: Any, launches: int) -> float:
        launch(launches)
        seconds = launches * self.random.uniform(1e-3, 1.2e-3)
        self.now += (1 + self.rank) * seconds
        return seconds

    def block(self, launch: Any, launches: int, samples: int) -> list[float]:
        self.samples.append(super().block(launch, launches, samples))
        return self.samples[-1]

    def affords_check(self) -> bool:
        return self.random.random() < 0.5

    def before_block(self, count: int, check: bool | None = None) -> None:
        self.checked.append(check)

    def after_block(self) -> None:
        self.blocks += 1

    def begin(self) -> None:
        pass

    def end(self) -> Observed:
        return Observed(Conditions(involuntary_switches=1), "noise" if self.blocks % 5 == self.rank + 1 else "")

    def clock(self) -> float:
        self.now += 1e-4
        return self.now


def run_ranks(count: int, settings: Settings) -> tuple[list[Script], list[Timing]]:
    shared = (threading.Barrier(count), [None] * count)
    scripts = [Script(rank) for rank in range(count)]
    timings: list[Any] = [None] * count

    def run(rank: int) -> None:
        ranks, script = ThreadRanks(rank, count, shared), scripts[rank]
        timings[rank] = measure(
            LaunchesInStep(script, ranks),  # type: ignore[arg-type]
            SlowestRank(script, ranks),
            settings,
            WatchOfAll(script, ranks),
            lambda: ranks.tell(script.clock())[0],
            lambda seconds: None,
        )

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert None not in timings
    return scripts, timings


@pytest.mark.parametrize(("target", "stable"), [(0.2, True), (1e-6, False)])
def test_ranks_come_to_the_same_result_which_is_the_slowest_ones(target: float, stable: bool) -> None:
    scripts, timings = run_ranks(3, Settings(target_relative=target, budget_s=3.0))
    first = timings[0]
    assert all(timing == first for timing in timings)
    assert (first.unstable_reason == "") == stable
    grouped = first.launches_per_sample
    for block, seen in enumerate(zip(*(script.samples for script in scripts), strict=True)):
        assert first.blocks[block] == tuple(max(s) / grouped for s in zip(*seen, strict=True))
    assert {left.cause for left in first.left_out} == {"noise"}
    assert all(c.involuntary_switches == 3 for c in first.conditions)
    # Whether a block is checked is the leader's choice, made anew for each.
    assert all(script.checked == scripts[0].checked for script in scripts)
    assert set(scripts[0].checked) == {True, False}


def test_the_slowest_rank_of_each_sample() -> None:
    assert slowest([[1.0, 5.0, 2.0], [3.0, 4.0, 2.5]]) == [3.0, 5.0, 2.5]
    with pytest.raises(ValueError, match="zip"):
        slowest([[1.0], [1.0, 2.0]])


def test_a_disturbance_of_one_rank_is_one_of_the_block() -> None:
    seen = seen_together(
        [
            Observed(Conditions(load_other=0.1, clock_mhz=3000.0, power_w=100.0, involuntary_switches=1)),
            Observed(Conditions(load_other=0.7, clock_mhz=2000.0, power_w=150.0, involuntary_switches=2), "neighbour"),
        ]
    )
    assert seen.cause == "neighbour"
    expected = Conditions(load_other=0.7, clock_mhz=2000.0, power_w=250.0, involuntary_switches=3)
    assert seen.conditions == expected


def test_the_other_ranks_are_not_other_processes() -> None:
    start = Reading(at_s=0.0, busy_s=0.0, resolution_s=0.0, own_s=0.0, steal_s=0.0, involuntary_switches=0)
    alone = Reading(at_s=0.02, busy_s=0.04, resolution_s=0.0, own_s=0.02, steal_s=0.0, involuntary_switches=0)
    assert judge(start, alone, None).cause == "other processes"
    among = Reading(at_s=0.02, busy_s=0.04, resolution_s=0.0, own_s=0.04, steal_s=0.0, involuntary_switches=0)
    assert judge(start, among, None).cause == ""


def test_figures_of_ranks_are_the_worst_ones() -> None:
    facts = [
        {"error_relative": 1e-7, "rows_checked": 3, "peak": None},
        {"error_relative": 2e-7, "rows_checked": 4, "peak": None},
    ]
    assert facts_together(facts) == {"error_relative": 2e-7, "rows_checked": 7, "peak": None}


def test_a_hang_is_blamed_on_the_rank_that_does_not_wait_for_others() -> None:
    waits = Place("/lib/torch/distributed/distributed_c10d.py", 3007, "all_reduce")
    hangs = Place("/home/me/kernel.py", 12, "run")
    assert hanging({0: waits, 1: hangs}) == [1]
    assert hanging({0: waits, 1: None}) == [1]
    assert hanging({0: waits, 1: waits}) == [0, 1]


def test_a_death_is_the_cause_and_a_lost_connection_its_consequence() -> None:
    fine = Outcome({"status": "ok", "reason": ""}, 0.0)
    lost = Outcome({"status": "crashed", "reason": "Connection closed by peer"}, 0.0)
    dead = Outcome({"status": "crashed", "reason": "killed by SIGKILL"}, 0.0, answered=False)
    assert blamed({0: fine, 1: fine}) == []
    assert blamed({0: lost, 1: dead}) == [1]
    assert blamed({2: Outcome({"status": "incorrect", "reason": "error 1"}, 0.0), 0: lost, 1: fine}) == [2]
    assert blamed({2: lost, 0: lost, 1: fine}) == [0, 2]
