"""Fresh processes as outer blocks, on signals whose levels of variation are known."""

from __future__ import annotations

import numpy as np
import pytest

from ridgeline.analytical.processes import summarise_processes
from ridgeline.analytical.statistics import summarise


def processes(seed: int, count: int, launch: float, block: float, process: float) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        10.0 + process * rng.normal() + block * rng.normal(size=(30, 1)) + launch * rng.normal(size=(30, 8))
        for _ in range(count)
    ]


@pytest.mark.parametrize("level", ["launch", "block", "process"])
def test_the_level_that_spreads_most_is_named(level: str) -> None:
    sizes = {"launch": 0.001, "block": 0.001, "process": 0.0001, level: 1.0}
    assert summarise_processes(processes(1, 8, **sizes)).spread.dominant == level


@pytest.mark.parametrize("count", [2, 5, 6, 10])
def test_the_interval_covers_where_processes_differ_more_than_blocks(count: int) -> None:
    held = []
    for seed in range(150):
        s = summarise_processes(processes(seed, count, 0.01, 0.01, 0.1))
        assert s.low is not None
        assert s.high is not None
        assert s.low <= s.median <= s.high
        held.append(s.low <= 10.0 <= s.high)
    assert np.mean(held) >= 0.90


def test_one_process_gives_its_own_interval_and_no_process_spread() -> None:
    (one,) = processes(2, 1, 0.1, 0.1, 0.0)
    s = summarise_processes([one])
    assert (s.low, s.high, s.basis, s.spread.process) == (summarise(one).low, summarise(one).high, "one process", None)


def test_no_process_is_refused() -> None:
    with pytest.raises(ValueError, match="no processes"):
        summarise_processes([])
