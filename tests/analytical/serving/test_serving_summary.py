"""Percentiles with their error, goodput, averages that refuse percentiles, and tables of step times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.serving.averages import PercentileError, averages, length_means
from ridgeline.analytical.serving.goodput import largest_load
from ridgeline.analytical.serving.queueing import md1_wait_s, mm1_sojourn_percentile_s
from ridgeline.analytical.serving.server import Server, SimulationError
from ridgeline.analytical.serving.simulation import simulate
from ridgeline.analytical.serving.summary import ServiceLevel, Summary, Watts, good_share, summarise
from ridgeline.analytical.serving.table import StepTable
from ridgeline.analytical.serving.traffic import Fixed, Lognormal, Poisson, TrafficError, make_requests

LENGTHS = Lognormal(300.0, 0.8, 3000), Lognormal(60.0, 0.6, 400)


def step_times(prefill_tokens, prefill_context, sequences, context_tokens):  # type: ignore[no-untyped-def]
    tokens = prefill_tokens + sequences
    time = np.maximum(4e-3, 2e-5 * tokens) + 1e-9 * prefill_tokens * prefill_context + 2e-8 * context_tokens
    return np.where(tokens > 0, time, 0.0)


one_step = StepTable(step_times, 256, 8192, 3400)


def at(rate: float, count: int = 500, seed: int = 1) -> Summary:
    levels = [ServiceLevel("ttft", 95.0, 0.05), ServiceLevel("tpot", 95.0, 0.0105)]
    return summarise(simulate(one_step, make_requests(Poisson(rate), *LENGTHS, count, seed), Server()), levels)


def test_intervals_cover_the_truth_of_m_d_1() -> None:
    """Nominal 90 % over 40 seeds: at least 30 hold the mean (32 is the lower 1 % point of 36)."""
    truth, held = md1_wait_s(50.0, 0.01) + 0.01, 0
    server = Server(max_sequences=1, token_budget=10)
    for seed in range(40):
        run = simulate(lambda *_: 0.01, make_requests(Poisson(50.0), Fixed(1), Fixed(1), 3000, seed), server)
        means = summarise(run).means
        assert means is not None
        held += means["ttft"].low <= truth <= means["ttft"].high
    assert held >= 30


def test_an_overload_has_no_percentiles_but_a_reason() -> None:
    summary = at(500.0)
    assert summary.percentiles is None
    assert "exceeds the capacity" in summary.unsteady
    assert not summary.meets([])
    few = summarise(simulate(one_step, make_requests(Poisson(1.0), *LENGTHS, 50, 1), Server()))
    assert "need" in few.unsteady


def test_percentiles_are_ordered_and_memory_and_energy_are_told() -> None:
    run = simulate(one_step, make_requests(Poisson(20.0), *LENGTHS, 1000, 1), Server(kv_tokens=40_000))
    summary = summarise(run, power=Watts(500.0, 100.0))
    assert summary.percentiles is not None
    for metric in ("ttft", "tpot", "itl", "e2e"):
        values = [summary.percentiles[metric, p].value for p in (50.0, 90.0, 95.0, 99.0)]
        assert values == sorted(values)
    assert summary.kv_occupancy is not None
    assert summary.kv_peak is not None
    assert 0.0 < summary.kv_occupancy < summary.kv_peak <= 1.0
    assert summary.energy_j == pytest.approx(
        summary.seconds * (summary.utilisation * 500.0 + (1.0 - summary.utilisation) * 100.0)
    )


def test_the_largest_load_meets_the_levels_and_a_little_more_does_not() -> None:
    levels = [ServiceLevel("ttft", 95.0, 0.05), ServiceLevel("tpot", 95.0, 0.0105)]
    found = largest_load(at, levels, 5.0)
    assert found is not None
    assert at(found.requests_per_s).meets(levels)
    assert not at(found.fails_at_per_s).meets(levels)
    assert found.fails_at_per_s <= 1.02 * found.requests_per_s
    assert largest_load(at, [ServiceLevel("ttft", 95.0, 1e-4)], 5.0) is None
    with pytest.raises(SimulationError, match="levels"):
        largest_load(at, [], 5.0)


def test_goodput_of_m_m_1_like_limits() -> None:
    """The share of requests within the median sojourn of M/D/1's heavier sister is over one half."""
    run = simulate(
        lambda *_: 0.01,
        make_requests(Poisson(50.0), Fixed(1), Fixed(1), 5000, 1),
        Server(max_sequences=1, token_budget=10),
    )
    share = good_share(run, {"ttft": mm1_sojourn_percentile_s(50.0, 0.01, 50.0)})
    assert 0.4 < share.value < 0.8
    assert good_share(run, {"ttft": 10.0, "tpot": 1e-9}).value == 1.0  # one token: no time per output token
    assert good_share(run, {"e2e": 1e-3}).value == 0.0
    with pytest.raises(SimulationError, match="itl"):
        good_share(run, {"itl": 1.0})


def test_averages_agree_with_a_steady_simulation_and_refuse_percentiles() -> None:
    lengths = length_means(*LENGTHS)
    n = np.arange(1.0, 200.0)
    mean = averages(step_times, lengths, n)
    summary = at(20.0, 3000)
    assert summary.means is not None
    rate = float(np.interp(20.0, mean.requests_per_s, n))
    assert summary.decode_sequences == pytest.approx(rate, rel=0.15)
    # Steps of a real run are fuller or emptier than the mean one, and a step's time bends upwards: averages lie below.
    promised = float(np.interp(20.0, mean.requests_per_s, mean.tpot_s))
    assert 0.8 * summary.means["itl"].value < promised <= summary.means["itl"].value
    with pytest.raises(PercentileError, match="simulate"):
        mean.percentile("ttft", 99.0)
    with pytest.raises(TrafficError, match="one token"):
        length_means(Fixed(10), Fixed(1))


@settings(max_examples=50)
@given(st.integers(1, 1792), st.floats(1.0, 3400.0), st.integers(0, 256), st.floats(1.0, 3400.0))
def test_a_table_is_exact_where_the_model_is_linear(tokens: int, prefill: float, sequences: int, mean: float) -> None:
    def linear(p, c, n, k):  # type: ignore[no-untyped-def]
        return 1e-3 + 2e-5 * (p + n) + 1e-9 * p * c + 2e-8 * k

    table = StepTable(linear, 256, 2048, 3400)
    asked = (float(tokens), prefill, float(sequences), sequences * mean)
    assert table(*asked) == pytest.approx(linear(*asked), rel=1e-9)
    if sequences:
        assert table(0.0, 0.0, float(sequences), sequences * mean) == pytest.approx(
            linear(0.0, 0.0, sequences, sequences * mean), rel=1e-9
        )


def test_a_table_is_close_to_a_roofline_and_refuses_what_lies_outside() -> None:
    table = StepTable(step_times, 256, 2048, 3400)
    assert table.worst_error() < 0.01
    with pytest.raises(SimulationError, match="outside"):
        table(0.0, 0.0, 3000.0, 3000.0)
    with pytest.raises(SimulationError, match="positive"):
        StepTable(lambda p, c, n, k: p * 0.0, 8, 64, 100)


@pytest.mark.parametrize(
    ("metric", "percentile", "limit"), [("latency", 99.0, 1.0), ("ttft", 100.0, 1.0), ("ttft", 99.0, 0.0)]
)
def test_bad_service_levels_are_refused(metric: str, percentile: float, limit: float) -> None:
    with pytest.raises(SimulationError):
        ServiceLevel(metric, percentile, limit)
