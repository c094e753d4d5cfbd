"""Idealized runtimes: known constants come back, predictions are monotone, intervals hold the truth, bad input is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helm_rule import helm_prompt, helm_runtime
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.idealized.model import IdealizedRuntime, fit_runtime
from ridgeline.analytical.idealized.points import (
    IdealizedError,
    Point,
    denoised,
    points_from_rows,
    relative_noise,
    software_efficiency,
    usd_per_request,
)
from ridgeline.analytical.idealized.published import STEPS, find_published, published_runtimes, steps_from_others

Truth = Callable[[float, float, float], float]
EIGHT = ((1, 1), (8, 1), (32, 1), (128, 1), (512, 1), (1024, 1), (1, 64), (1024, 64))


def summed(p: float, o: float, b: float = 1.0) -> float:
    """Flat + linear + quadratic prefill, and a step that grows with the context, of every sequence."""
    contexts = (o - 1) * p + o * (o - 1) / 2
    return 0.02 + 1e-4 * b * p + 2e-8 * b * p * p + 0.015 * (o - 1) + 0.001 * b * (o - 1) + 2e-6 * b * contexts


def kneed(p: float, o: float, b: float = 1.0) -> float:
    """Flat up to 200 tokens, then linear: the maximum of both."""
    return max(0.03, 1.5e-4 * b * p) + 0.02 * (o - 1)


def measured(truth: Truth, requests: Any, noise: float = 0.0, seed: int = 0, trials: int = 1) -> list[Point]:
    random = np.random.default_rng(seed)
    return [
        Point(
            p,
            o,
            b[0] if b else 1,
            tuple(truth(p, o, *b) * math.exp(noise * random.standard_normal()) for _ in range(trials)),
        )
        for p, o, *b in requests
    ]


def test_the_constants_come_back() -> None:
    fitted = fit_runtime(measured(summed, EIGHT))
    constants = fitted.constants
    assert constants["flat"] == pytest.approx(0.02, rel=0.02)
    assert constants["token"] == pytest.approx(1e-4, rel=0.02)
    assert constants["pair"] == pytest.approx(2e-8, rel=0.02)
    assert constants["step"] == pytest.approx(0.016, rel=0.01)  # at one batch its two parts are one
    assert constants["context"] == pytest.approx(2e-6, rel=0.02)
    assert fitted.r_squared == pytest.approx(1.0, abs=1e-6)
    assert np.abs(fitted.residuals()).max() < 1e-3


@pytest.mark.parametrize("truth", [summed, kneed])
def test_requests_that_were_not_fitted_are_predicted(truth: Truth) -> None:
    fitted = fit_runtime(measured(truth, EIGHT))
    requests = [(p, o) for p in (4, 16, 64, 100, 200, 300, 700) for o in (1, 5, 40)]
    actual = np.array([truth(p, o, 1) for p, o in requests])
    ours = fitted.predict([p for p, _ in requests], [o for _, o in requests]).value / actual - 1.0
    few = [(p, o, truth(p, o, 1)) for p, o in EIGHT]
    theirs = np.array([helm_runtime(few, p, o) for p, o in requests]) / actual - 1.0
    assert np.abs(ours).max() < 0.12  # between 128 and 512 lies the knee
    assert np.median(np.abs(ours)) < 0.01
    assert np.abs(ours).max() < np.abs(theirs).max() / 4


def test_a_flat_and_a_linear_region_are_both_right() -> None:
    fitted = fit_runtime(measured(kneed, [(p, 1) for p in (1, 16, 64, 150, 400, 800, 1600)]))
    assert fitted.prompt([8, 32, 100]) == pytest.approx([0.03] * 3, rel=0.02)
    assert fitted.prompt([600, 1200]) == pytest.approx([0.09, 0.18], rel=0.02)


def test_growth_is_seen_only_where_contexts_differ() -> None:
    fitted = fit_runtime(measured(summed, EIGHT))
    assert fitted.step(2000) == pytest.approx(0.016 + 2e-6 * 2000, rel=0.02)
    one_prompt = fit_runtime(measured(summed, [(1, 1), (64, 1), (512, 1), (64, 8), (64, 16)]))
    assert "context" not in one_prompt.constants


def test_batches_are_told_apart() -> None:
    requests = [(p, o, b) for b in (1, 4) for p, o in ((1, 1), (64, 1), (256, 1), (8, 32), (256, 32))]
    fitted = fit_runtime(measured(summed, requests))
    assert fitted.constants["step"] == pytest.approx(0.015, rel=0.02)
    assert fitted.constants["sequence"] == pytest.approx(0.001, rel=0.05)
    assert fitted.predict(128, 16, 2).value == pytest.approx(summed(128, 16, 2), rel=0.02)
    assert fitted.predict(128, 16, 8).value == pytest.approx(summed(128, 16, 8), rel=0.05)


def test_another_batch_than_the_measured_one_is_refused() -> None:
    fitted = fit_runtime(measured(summed, EIGHT))
    with pytest.raises(IdealizedError, match="measured at batch 1 only"):
        fitted.predict(64, 4, 2)


@settings(max_examples=15)
@given(
    flat=st.floats(1e-3, 1.0),
    token=st.floats(1e-7, 1e-2),
    pair=st.floats(0.0, 1e-6),
    step=st.floats(1e-4, 0.1),
    noise=st.floats(0.0, 0.2),
    seed=st.integers(0, 99),
)
def test_more_tokens_never_take_less(
    flat: float, token: float, pair: float, step: float, noise: float, seed: int
) -> None:
    def truth(p: float, o: float) -> float:
        return flat + token * p + pair * p * p + step * (o - 1)

    fitted = fit_runtime(measured(truth, EIGHT, noise, seed), leave_out=False)
    prompts = np.unique(np.geomspace(1, 4096, 80).round())
    assert np.all(np.diff(fitted.prompt(prompts)) >= -1e-12)
    assert np.all(np.diff(fitted.predict(100, np.arange(1, 50)).value) >= -1e-12)
    assert np.all(np.diff(fitted.step(np.arange(1, 50))) >= -1e-12)


@pytest.mark.parametrize(("noise", "trials"), [(0.005, 1), (0.03, 3)])
def test_intervals_hold_what_is_measured_later(noise: float, trials: int) -> None:
    """What noise there is, trials tell; single ones are taken to have 1 %."""
    requests = [(p, o) for p in (4, 20, 64, 200, 700) for o in (1, 8, 32)]
    hit, widths = [], []
    for seed in range(10):
        fitted = fit_runtime(measured(summed, EIGHT, noise, seed, trials))
        later = [point.value("median") for point in measured(summed, requests, noise, 1000 + seed, trials)]
        estimate = fitted.predict([p for p, _ in requests], [o for _, o in requests])
        assert estimate.low is not None
        assert estimate.high is not None
        hit += ((estimate.low <= later) & (later <= estimate.high)).tolist()
        widths.append(float(np.median(estimate.high / estimate.low)))
    assert np.mean(hit) >= 0.85
    assert np.median(widths) < 1.0 + 8.0 * max(noise, 0.01)  # and they say something


def test_intervals_widen_outside_of_what_was_measured() -> None:
    fitted = fit_runtime(measured(summed, EIGHT, 0.01))
    estimate = fitted.predict([512, 8192], [1, 1])
    assert estimate.low is not None
    assert estimate.high is not None
    width = estimate.high / estimate.low
    assert width[1] > width[0]
    assert estimate.extrapolated.tolist() == [False, True]


def test_few_points_give_no_interval_and_say_why() -> None:
    estimate = fit_runtime(measured(summed, [(1, 1), (512, 1), (1, 32)])).predict(64, 8)
    assert estimate.low is None
    assert "an interval needs 3" in estimate.reason


def test_contention_is_removed_by_the_minimum() -> None:
    random = np.random.default_rng(0)

    def trials(p: int, o: int) -> Point:
        steps = [0.02 + 1e-4 * p] + [0.01] * (o - 1)
        slowed = tuple(tuple(s * (3.0 if random.random() < 0.2 else 1.0) for s in steps) for _ in range(5))
        return Point(p, o, 1, tuple(map(sum, slowed)), slowed)

    points = [trials(p, o) for p in (1, 32, 128, 512) for o in (1, 16)]
    truth = 0.02 + 1e-4 * 200 + 0.01 * 9
    quiet = fit_runtime(points, statistic="minimum").predict(200, 10).value[0]
    noisy = fit_runtime(points, statistic="median").predict(200, 10).value[0]
    assert quiet == pytest.approx(truth, rel=0.01)
    assert noisy > 1.1 * truth
    assert denoised([(1.0, 5.0), (2.0, 3.0)]) == 4.0  # the prefill is no neighbour
    assert denoised([(1.0, 5.0, 4.0, 3.0, 6.0, 7.0)]) == 1.0 + 3.0 + 3.0 + 3.0 + 3.0 + 3.0
    assert denoised([(1.0, 2.0, 4.0, 4.0, 4.0, 4.0)]) == 1.0 + 2.0 + 2.0 + 2.0 + 4.0 + 4.0
    with pytest.raises(IdealizedError, match="same steps"):
        denoised([(1.0, 2.0), (1.0,)])


def test_trials_tell_the_noise() -> None:
    for noise in (0.002, 0.02):
        points = measured(summed, EIGHT, noise, trials=5)
        assert fit_runtime(points, leave_out=False).noise == pytest.approx(noise * math.sqrt(math.pi / 2 / 5), rel=0.4)
    random = np.random.default_rng(1)
    requests = [(p, o) for p in (1, 8, 64, 512) for o in (1, 2, 8, 32)]
    delayed = [Point(p, o, 1, tuple(1.0 + 0.1 * random.exponential(size=4))) for p, o in requests]
    above = math.sqrt(np.mean([(min(point.trials) - 1.0) ** 2 for point in delayed]))
    assert relative_noise(delayed, "minimum") == pytest.approx(above, rel=0.6)
    assert relative_noise(measured(summed, EIGHT), "median") is None


def test_a_known_overhead_is_apart() -> None:
    points = [Point(q.p, q.o, q.b, (q.trials[0] + 0.5,)) for q in measured(summed, EIGHT)]
    fitted = fit_runtime(points, overhead=0.5)
    assert fitted.prompt(300)[0] == pytest.approx(summed(300, 1), rel=0.02)
    assert fitted.predict(300, 5).value[0] == pytest.approx(summed(300, 5) + 0.5, rel=0.01)
    with pytest.raises(IdealizedError, match="not above the overhead"):
        fit_runtime(points, overhead=0.53)


def test_energy_and_cost_are_the_same_fit() -> None:
    rows = [{"p": p, "o": o, "joules": 200 * summed(p, o), "usd": 1e-6 * p + 3e-6 * o} for p, o in EIGHT]
    energy = fit_runtime(points_from_rows(rows, "joules", "t"), response="joules")
    assert energy.predict(300, 8).value[0] == pytest.approx(200 * summed(300, 8), rel=0.02)
    cost = fit_runtime(points_from_rows(rows, "usd", "t"), response="usd")
    assert cost.predict(700, 20).value[0] == pytest.approx(7e-4 + 6e-5, rel=0.01)
    assert usd_per_request(1.8, 2.0, 8) == pytest.approx(8e-3)
    assert usd_per_request(1.8, 2.0, 8, b=4) == pytest.approx(2e-3)


def test_software_efficiency_is_not_cut_to_one() -> None:
    assert software_efficiency(0.2, 0.8) == 0.25
    assert software_efficiency(1.0, 0.8) == 1.25
    with pytest.raises(IdealizedError, match="measured time"):
        software_efficiency(1.0, 0.0)


@pytest.mark.parametrize("name", ["ada", "bloom", "yalm_100b"])
def test_published_prompts_are_predicted_from_the_others(name: str) -> None:
    runtime = published_runtimes()[name]
    fitted = fit_runtime(runtime.points)
    ours = [abs(q.error) for q in fitted.left_out if q.point.o == 1 and q.error is not None]
    theirs = []
    for index, p in enumerate(runtime.prompt_tokens):
        tokens = [q for q in runtime.prompt_tokens if q != p]
        times = [s for i, s in enumerate(runtime.prompt_s) if i != index]
        theirs.append(abs(helm_prompt(tokens, times, p) / runtime.prompt_s[index] - 1.0))
    assert len(ours) == 27
    assert np.median(ours) <= 0.05
    assert np.median(ours) < np.median(theirs)
    assert max(ours) < max(theirs) / 2
    assert fitted.constants["step"] == pytest.approx(runtime.step_s, rel=0.01)


def test_published_runtimes_are_those_of_the_papers_page() -> None:
    expected = {
        "gptj_6b": (0.021, 0.042, 0.076, 0.113),
        "opt_175b": (0.081, 0.178, 0.323, 0.476),
        "yalm_100b": (0.068, 0.284, 0.527, 0.809),
    }
    for name, (step_s, *alphas) in expected.items():
        runtime = find_published(name)
        found = dict(zip(runtime.prompt_tokens, runtime.prompt_s, strict=True))
        assert (runtime.step_s, *(found[p] for p in (512, 1024, 1536))) == (step_s, *alphas)
    assert find_published("openai/davinci").name == "opt_175b"
    assert find_published("opt_175b").block_parameter_count == pytest.approx(175e9, rel=0.02)
    with pytest.raises(IdealizedError, match="no published runtime of 'gpt-5': one of ada"):
        find_published("gpt-5")


def test_each_step_follows_from_the_layers_of_the_others() -> None:
    found = {step.runtime.name: step for step in steps_from_others()}
    assert set(found) == set(STEPS)
    gptj = published_runtimes()["gptj_6b"]
    others = [published_runtimes()[name] for name in STEPS if name != "gptj_6b"]
    per_layer_s = [r.step_s / r.layers for r in others if r.devices == 1]
    assert 0 < len(per_layer_s) < len(others)
    assert found["gptj_6b"].predicted_s == pytest.approx(28 * sum(per_layer_s) / len(per_layer_s))
    assert found["gptj_6b"].error == pytest.approx(0.0, abs=0.02)
    assert found["gptj_6b"].over_bound == pytest.approx(gptj.step_s / (2.0 * gptj.block_parameter_count / 2.039e12))


def test_what_the_points_do_not_tell_is_refused() -> None:
    def fit(*requests: tuple[int, int]) -> IdealizedRuntime:
        return fit_runtime(measured(summed, requests))

    with pytest.raises(IdealizedError, match="no points"):
        fit()
    with pytest.raises(IdealizedError, match="every point has o=4: measure some with o=1"):
        fit((1, 4), (8, 4), (64, 4))
    with pytest.raises(IdealizedError, match="2 points for 3 constants"):
        fit((1, 1), (64, 8))
    with pytest.raises(IdealizedError, match="vary p, o and b together"):
        fit((8, 9), (16, 17), (24, 25))
    with pytest.raises(IdealizedError, match="twice"):
        fit((1, 1), (1, 1), (8, 1))
    with pytest.raises(IdealizedError, match="no point generated more than one token"):
        fit((1, 1), (8, 1), (64, 1)).predict(8, 2)
    with pytest.raises(IdealizedError, match="measured with p=8 only"):
        fit((8, 1), (8, 4), (8, 16)).predict(9, 2)
    assert fit((8, 1), (8, 4), (8, 16)).predict(8, 9).value[0] == pytest.approx(summed(8, 9), rel=0.01)
    with pytest.raises(IdealizedError, match="p=0: must be at least 1"):
        fit((1, 1), (8, 1), (64, 1)).predict(0, 1)


def test_rows_that_are_no_points_are_named() -> None:
    good = {"p": "8", "o": "1", "seconds": "0.5"}
    assert points_from_rows([good, {**good, "seconds": "0.7"}], "seconds", "t") == (Point(8, 1, 1, (0.5, 0.7)),)
    for bad, said in (
        ({"p": "x"}, r"t: line 2: p='x': must be a whole number"),
        ({"o": "0"}, r"t: line 2: o='0': must be a whole number"),
        ({"o": "1.5"}, r"o='1.5': must be a whole number"),
        ({"seconds": "-1"}, r"seconds='-1': must be a positive number"),
        ({"seconds": "nan"}, r"seconds='nan': must be a positive number"),
        ({"seconds": ""}, r"no value in column 'seconds'; the columns are p, o, seconds"),
        ({"b": "2.5"}, r"b='2.5'"),
    ):
        with pytest.raises(IdealizedError, match=said):
            points_from_rows([{**good, **bad}], "seconds", "t")
    with pytest.raises(IdealizedError, match="no points"):
        points_from_rows([], "seconds", "t")
    with pytest.raises(IdealizedError, match="one of seconds, joules, usd"):
        points_from_rows([good], "minutes", "t")
