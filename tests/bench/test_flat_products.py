"""Ways to compute a product of few rows, timed by turns: who is given up, what is told, how a second visit goes on."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ridgeline.bench.paper_checks import flat_products
from ridgeline.bench.paper_checks.flat_products import HOPELESS_ROUNDS, LOOKS, WAYS, Point, Trial, mean_gain

CHOSEN = "native_flat"


class FakeRuns:
    """Runs that take what a script says, on a clock that only they move."""

    shape = (16, 8)

    def __init__(self, takes_s: Callable[[str], float]) -> None:
        self._takes_s = takes_s
        self.now_s = 0.0
        self.calls: list[str] = []

    def __call__(self, way: str, m: int) -> Callable[..., None]:
        def run(inputs: Any, out: Any) -> None:
            self.calls.append(way)
            self.now_s += self._takes_s(way)

        return run


def trial_of(runs: FakeRuns, monkeypatch: pytest.MonkeyPatch) -> Trial:
    clock = SimpleNamespace(perf_counter_ns=lambda: round(runs.now_s * 1e9))
    monkeypatch.setattr(flat_products, "time", clock)
    return Trial(4, runs, CHOSEN, {}, {way: [] for way in WAYS}, list(WAYS))  # type: ignore[arg-type]


def noisy(means_s: dict[str, float], spread: float, seed: int = 0) -> Callable[[str], float]:
    lots = random.Random(seed)
    return lambda way: means_s[way] * lots.lognormvariate(0.0, spread)


def visit(trial: Trial, *looks: int) -> str:
    for look in looks:
        trial.visit(look, torch.empty(0), random.Random(1), lambda: None)
    return trial.point().verdict


def test_a_hopeless_way_is_given_up_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = FakeRuns(noisy({CHOSEN: 0.01, "native_gemv": 0.012, "torch": 0.03}, 0.01))
    trial = trial_of(runs, monkeypatch)
    assert visit(trial, LOOKS[0]) == "near"
    assert {way: len(s) for way, s in trial.seconds.items()} == {
        CHOSEN: LOOKS[0], "native_gemv": LOOKS[0], "torch": HOPELESS_ROUNDS,
    }  # fmt: skip
    assert trial.point().against("torch")[0] == pytest.approx(1 / 3, rel=0.1)
    assert runs.calls.count(CHOSEN) == 2 * LOOKS[0], "an untimed run before each timed one"


def test_a_second_visit_goes_on_where_the_first_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = trial_of(FakeRuns(noisy(dict.fromkeys(WAYS, 0.01), 0.001)), monkeypatch)
    visit(trial, LOOKS[0])
    first = list(trial.seconds[CHOSEN])
    assert visit(trial, LOOKS[1]) == "near"
    assert trial.n_rounds == LOOKS[1]
    assert trial.seconds[CHOSEN][: LOOKS[0]] == first


@pytest.mark.parametrize(("other", "expected"), [(0.0098, "near"), (0.008, "far")])
def test_a_clear_machine_tells_near_from_far(monkeypatch: pytest.MonkeyPatch, other: float, expected: str) -> None:
    means_s = {CHOSEN: 0.01, "native_gemv": other, "torch": 0.015}
    assert visit(trial_of(FakeRuns(noisy(means_s, 0.01)), monkeypatch), *LOOKS) == expected


def test_a_noisy_machine_tells_nothing_and_verdicts_are_seldom_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = unclear = 0
    for seed in range(60):
        # 8 % slower than the best: "near" would be wrong.
        runs = FakeRuns(noisy({CHOSEN: 0.0108, "native_gemv": 0.01, "torch": 0.02}, 0.15, seed))
        trial = trial_of(runs, monkeypatch)
        verdict = "unclear"
        for look in LOOKS:
            if verdict == "unclear":
                verdict = visit(trial, look)
        wrong += verdict == "near"
        unclear += verdict == "unclear"
    assert wrong <= 6, "5 % of 60, and chance"
    assert unclear > 30


@pytest.mark.parametrize("gain", [1.0, 1.02])
def test_the_mean_gain_is_held_by_its_interval(gain: float) -> None:
    """48 points, of which 12 have another way chosen than the one that is asked for; 6 % noise, and now and then a disturbance."""
    held = 0
    for seed in range(40):
        lots = random.Random(seed)

        def rounds(mean: float, lots: random.Random = lots) -> list[float]:
            return [mean * lots.lognormvariate(0.0, 0.06) * (3.0 if lots.random() < 0.05 else 1.0) for _ in range(20)]

        judged = [Point(1, 8, 8, "torch", {"torch": rounds(0.01), CHOSEN: rounds(0.01 * gain**4)}) for _ in range(12)]
        judged += [Point(1, 8, 8, CHOSEN, {CHOSEN: rounds(0.01)}) for _ in range(36)]
        value, low, high = mean_gain(judged, CHOSEN, 0.99)
        assert low <= value <= high
        assert high / low < 1.06
        held += low <= gain <= high
    assert held >= 37
