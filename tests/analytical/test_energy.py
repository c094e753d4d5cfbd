"""Maths of energy on synthetic signals whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ridgeline.analytical.energy import (
    Edge,
    EnergyError,
    Estimate,
    combine_trials,
    counter_edges,
    delay_product,
    edge_window,
    integrate_power,
    naive_window,
    per_unit,
    subtract_idle,
    unwrap,
    update_profile,
)

positive = st.floats(1e-3, 1e3)


def polled_counter(power_w: float, period_s: float, poll_s: float, length_s: float) -> tuple[np.ndarray, np.ndarray]:
    """A counter that updates every ``period_s``, polled every ``poll_s``."""
    t = np.arange(0.0, length_s, poll_s)
    return t, np.floor(t / period_s + 1e-9) * period_s * power_w


@given(st.lists(st.floats(0.0, 90.0), min_size=1, max_size=30), st.floats(0.0, 99.0))
def test_an_unwrapped_counter_keeps_every_step(steps: list[float], start: float) -> None:
    exact = np.cumsum([start, *steps])
    made = unwrap([float(v % 100.0) for v in exact], 100.0)
    assert np.allclose(np.diff(made), steps, atol=1e-9)


@pytest.mark.parametrize(("values", "modulus"), [([1.0], 0.0), ([5.0], 4.0), ([-1.0], 4.0)])
def test_unwrap_refuses_what_is_no_counter(values: list[float], modulus: float) -> None:
    with pytest.raises(ValueError, match=r"modulus|counter value"):
        unwrap(values, modulus)


@settings(max_examples=60)
@given(st.floats(20.0, 900.0), st.floats(0.01, 0.2), st.floats(0.0005, 0.004))
def test_edge_aligned_power_of_a_steady_load_lies_in_its_interval(power: float, period: float, poll: float) -> None:
    edges = counter_edges(*polled_counter(power, period, poll, 20 * period))
    window = edge_window(edges)
    assert abs(window.power_w - power) <= max(window.random_w, 2.0 * poll / window.window_s * power)
    assert window.edges == len(edges)


def test_the_bracket_of_a_change_is_the_time_between_polls_but_never_more_than_a_period() -> None:
    edges = counter_edges([0.0, 0.4, 0.5], [0.0, 3.0, 4.0])
    assert edges == [Edge(0.2, 3.0, 0.4), Edge(0.45, 4.0, pytest.approx(0.1))]
    assert counter_edges([0.0, 0.4], [0.0, 3.0], period_s=0.1)[0] == Edge(pytest.approx(0.35), 3.0, 0.1)


def test_faults_of_samples_are_named() -> None:
    with pytest.raises(EnergyError, match="backwards") as fault:
        counter_edges([0.0, 1.0], [5.0, 1.0])
    assert fault.value.code == "counter_reset"
    with pytest.raises(EnergyError) as fault:
        counter_edges([1.0, 0.0], [1.0, 2.0])
    assert fault.value.code == "clock_jump"
    with pytest.raises(EnergyError) as fault:
        counter_edges([0.0, 1.0], [1.0, math.nan])
    assert fault.value.code == "not_a_number"
    with pytest.raises(EnergyError) as fault:
        edge_window([Edge(0.0, 1.0, 0.1)])
    assert fault.value.code == "no_edges"
    with pytest.raises(EnergyError) as fault:
        naive_window(0.0, 1.0, 7.0, 7.0, 0.1, 0)
    assert fault.value.code == "sensor_frozen"
    with pytest.raises(EnergyError) as fault:
        naive_window(0.0, 1.0, 7.0, 6.0, 0.1, 3)
    assert fault.value.code == "counter_reset"
    with pytest.raises(EnergyError) as fault:
        update_profile([])
    assert fault.value.code == "sensor_frozen"
    with pytest.raises(EnergyError) as fault:
        combine_trials([], [])
    assert fault.value.code == "no_window"
    with pytest.raises(ValueError, match="equally long"):
        counter_edges([0.0], [1.0, 2.0])


@pytest.mark.parametrize("jitter", [0.0005, 0.002, 0.005])
def test_period_and_jitter_of_a_counter_are_found(jitter: float) -> None:
    rng = np.random.default_rng(4)
    late = rng.normal(0.0, jitter, 4000)
    edges = [Edge(0.1 * k + float(late[k]), 30.0 * k, 0.0) for k in range(4000)]
    del edges[100:200:7]  # missed updates must not count as jitter
    profile = update_profile(edges)
    assert profile.period_s == pytest.approx(0.1, rel=0.01)
    assert profile.jitter_s == pytest.approx(jitter, rel=0.1)
    assert profile.changes == len(edges)


@given(st.integers(1, 500), st.lists(st.integers(1, 1000), min_size=6, max_size=30))
@example(55, [376, 546, 993, 9, 344, 8])  # rounding errors grew in Euclid's rests
def test_resolution_divides_every_step(unit_mj: int, counts: list[int]) -> None:
    energies = np.cumsum([0, *counts]) * unit_mj / 1e3
    profile = update_profile([Edge(float(k), float(e), 0.0) for k, e in enumerate(energies)])
    expected = math.gcd(*counts) * unit_mj / 1e3
    if min(counts) <= 500 * math.gcd(*counts):  # below a thousandth of the smallest step a rest is noise
        assert profile.resolution_j == pytest.approx(expected, rel=1e-6)


def test_intervals_of_windows_with_jitter_hold_the_truth() -> None:
    """A drifting, pulsing load on a jittery counter; at least 95 % of 2000 intervals hold the exact mean power."""
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(2000):
        level, slope, amplitude, phase = (
            rng.uniform(100, 400),
            rng.uniform(-50, 50),
            rng.uniform(0, 80),
            rng.uniform(0, 6),
        )

        def exact(t: float, a=level, b=slope, c=amplitude, p=phase) -> float:
            return a * t + b * t * t / 2.0 - c / 7.0 * math.cos(7.0 * t + p)

        # An update is late by up to 4 ms and is seen up to 0.5 ms later.
        edges = []
        for k in range(12):
            seen = 0.1 * k + rng.uniform(0, 0.004) + rng.uniform(0, 0.0005)
            edges.append(Edge(seen - 0.00025, exact(0.1 * k), 0.0005))
        window = edge_window(edges, jitter_s=0.004 / math.sqrt(12.0))
        truth = (exact(window.end_s) - exact(window.start_s)) / window.window_s
        held += abs(window.power_w - truth) <= window.random_w
    assert held / 2000 >= 0.95


def test_a_step_of_power_is_a_drift_and_jitter_is_none() -> None:
    energies = np.cumsum([0.0] + [10.0] * 15 + [12.0] * 15)
    step = edge_window([Edge(0.1 * k, float(e), 0.001) for k, e in enumerate(energies)])
    assert step.drift_relative == pytest.approx(0.2, rel=0.05)
    rng = np.random.default_rng(1)
    flat = [Edge(0.1 * k + float(rng.uniform(0, 0.02)), 10.0 * k, 0.001) for k in range(30)]
    assert edge_window(flat, jitter_s=0.006).drift_relative is None


def test_a_naive_window_is_uncertain_by_the_period_of_the_counter() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(500):
        start = rng.uniform(0, 1)
        end = start + 1.0 + rng.uniform(0, 0.1)
        begin_j, final_j = (math.floor(t / 0.1) * 0.1 * 200.0 for t in (start, end))
        window = naive_window(start, end, begin_j, final_j, 0.1, 10)
        held += abs(window.power_w - 200.0) <= window.random_w
    assert held >= 475


@pytest.mark.parametrize("averaging", [0.0, 0.025, 0.1, 1.0])
def test_idle_time_before_the_load_does_not_enter_the_power_integral(averaging: float) -> None:
    """Boxcar readings of a step from 70 W to 450 W at 5 s, of a sensor that updates every 100 ms."""
    t = np.arange(4.0, 9.0, 0.02)
    update = np.floor(t / 0.1 + 1e-9) * 0.1

    def exact(s: np.ndarray) -> np.ndarray:
        return 70.0 * s + 380.0 * np.maximum(0.0, s - 5.0)

    width = max(averaging, 1e-6)
    watts = (exact(update) - exact(update - width)) / width + 1e-3 * np.sin(update)
    window = integrate_power(t, watts, 5.0, 9.0, averaging, 0.1)
    assert window.power_w == pytest.approx(450.0, abs=0.01)
    assert window.start_s >= 5.0


def test_a_power_integral_of_noise_holds_the_mean() -> None:
    rng = np.random.default_rng(8)
    held = 0
    for _ in range(400):
        t = np.arange(0.0, 5.0, 0.1)
        window = integrate_power(t, rng.normal(300.0, 20.0, t.size), 0.0, 5.0, 0.025, 0.1)
        held += abs(window.power_w - 300.0) <= window.random_w
    assert held >= 370  # the interval is of exactly 95 %; this is three standard errors below


def test_a_power_integral_needs_readings_of_the_load_alone() -> None:
    with pytest.raises(EnergyError) as fault:
        integrate_power([0.0, 0.5, 1.0], [1.0, 2.0, 3.0], 0.0, 1.0, 1.0, 0.1)
    assert fault.value.code == "no_edges"
    with pytest.raises(EnergyError) as fault:
        integrate_power([0.0, 0.5, 1.0], [0.0, 0.0, 0.0], 0.0, 1.0, 0.0, 0.1)
    assert fault.value.code == "sensor_frozen"


def test_trials_combine_by_students_t_and_hold_the_truth() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(1000):
        estimate = combine_trials(rng.normal(2.0, 0.02, 5), np.zeros(5))
        held += abs(estimate.value - 2.0) <= estimate.random
    assert 0.93 <= held / 1000 <= 0.97
    alone = combine_trials([2.0], [0.1], gain_relative=0.05)
    assert (alone.value, alone.random, alone.sensor) == (2.0, 0.1, pytest.approx(0.1))


@given(positive, positive, positive, positive, st.floats(0.001, 10.0))
def test_idle_is_subtracted_with_both_uncertainties(g: float, u: float, p: float, v: float, seconds: float) -> None:
    net = subtract_idle(Estimate(g, u, 0.05 * g), Estimate(p, v, 0.05 * p), seconds)
    assert net.value == pytest.approx(g - p * seconds)
    assert net.random >= max(u, v * seconds) * (1.0 - 1e-12)
    assert net.sensor == pytest.approx(0.05 * abs(net.value))


@given(positive, positive, st.floats(1e-6, 10.0), st.floats(0.0, 0.1))
def test_delay_products_scale_as_their_name_says(energy: float, random: float, seconds: float, relative: float) -> None:
    estimate = Estimate(energy, random, 0.0)
    for power in (1, 2):
        product = delay_product(estimate, seconds, relative * seconds, power)
        assert product.value == pytest.approx(energy * seconds**power)
        assert product.random / product.value == pytest.approx(random / energy + power * relative)
    with pytest.raises(ValueError, match="positive"):
        delay_product(estimate, 0.0)


@pytest.mark.parametrize("amount", [None, 0.0, -1.0, math.inf, math.nan])
def test_no_work_gives_no_energy_per_operation(amount: float | None) -> None:
    assert per_unit(Estimate(1.0, 0.1), amount) is None


def test_energy_per_operation_keeps_the_relative_interval() -> None:
    made = per_unit(Estimate(2.0, 0.1, 0.2), 4.0)
    assert made == Estimate(0.5, 0.025, 0.05)
