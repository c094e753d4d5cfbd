"""The simulation against closed forms, conservation laws and limits; every seed is fixed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.serving.queueing import md1_wait_s, mm1_sojourn_percentile_s, mm1_wait_s
from ridgeline.analytical.serving.server import Server, SimulationError
from ridgeline.analytical.serving.simulation import Run, simulate
from ridgeline.analytical.serving.summary import summarise
from ridgeline.analytical.serving.table import StepTable
from ridgeline.analytical.serving.traffic import (
    ClosedLoop,
    Deterministic,
    Empirical,
    Fixed,
    Lognormal,
    Poisson,
    Requests,
    Trace,
    TrafficError,
    make_requests,
)

ONE_SLOT = Server(max_sequences=1, token_budget=10**6)


def step_time_s(prefill_tokens: float, prefill_context: float, sequences: float, context_tokens: float) -> float:
    """A made-up device: a fixed part, tokens, attention of prompts and of decoding."""
    pairs = prefill_tokens * prefill_context
    return 4e-3 + 2e-5 * (prefill_tokens + sequences) + 1e-9 * pairs + 2e-8 * context_tokens


table = StepTable(lambda *a: step_time_s(*a), 256, 8192, 3400)


def chat(rate_per_s: float, count: int, seed: int = 1) -> Requests:
    return make_requests(Poisson(rate_per_s), Lognormal(300.0, 0.8, 3000), Lognormal(60.0, 0.6, 400), count, seed)


def test_one_slot_with_constant_service_waits_as_m_d_1() -> None:
    for rate in (40.0, 80.0):
        run = simulate(lambda *_: 0.01, make_requests(Poisson(rate), Fixed(8), Fixed(1), 30_000, 3), ONE_SLOT)
        summary = summarise(run)
        assert summary.means is not None
        wait = summary.means["ttft"]
        assert wait.low <= md1_wait_s(rate, 0.01) + 0.01 <= wait.high
        assert summary.utilisation == pytest.approx(rate * 0.01, rel=0.02)


def test_one_slot_with_exponential_service_waits_as_m_m_1() -> None:
    grid = (np.arange(2000) + 0.5) / 2000
    tokens = tuple(int(t) for t in np.rint(-np.log(1.0 - grid) * 1e5) + 1)
    scale = 0.01 / float(np.mean(tokens))
    run = simulate(
        lambda prefill, *_: prefill * scale, make_requests(Poisson(60.0), Empirical(tokens), Fixed(1), 40_000, 5),
        Server(max_sequences=1, token_budget=10**7),
    )  # fmt: skip
    summary = summarise(run, percentiles=(50.0, 90.0, 99.0))
    assert summary.means is not None
    assert summary.percentiles is not None
    assert summary.means["ttft"].value == pytest.approx(mm1_wait_s(60.0, 0.01) + 0.01, rel=0.06)
    for p in (50.0, 90.0):
        assert summary.percentiles["ttft", p].value == pytest.approx(mm1_sojourn_percentile_s(60.0, 0.01, p), rel=0.08)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(5.0, 300.0))
def test_one_slot_follows_lindleys_recursion(seed: int, rate: float) -> None:
    """Wait of the next = max(0, wait + service - gap), exactly, in any traffic."""
    requests = make_requests(Poisson(rate), Lognormal(200.0, 1.0, 5000), Lognormal(4.0, 0.5, 20), 60, seed)
    run = simulate(step_time_s, requests, ONE_SLOT)
    alone = simulate(step_time_s, _spaced(requests), ONE_SLOT)
    service = alone.e2e_s
    wait = np.zeros(60)
    assert requests.arrival_s is not None
    for i in range(1, 60):
        wait[i] = max(0.0, wait[i - 1] + service[i - 1] - (requests.arrival_s[i] - requests.arrival_s[i - 1]))
    np.testing.assert_allclose(run.e2e_s, wait + service, rtol=1e-8, atol=1e-10)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(1.0, 100.0), st.floats(1.0, 4.0))
def test_in_one_slot_more_load_never_lowers_any_wait(seed: int, rate: float, factor: float) -> None:
    """With the same requests closer together. In a batch this is not a law: a fuller step can be the luckier one."""
    slow, fast = (
        simulate(step_time_s, make_requests(Poisson(r), Fixed(500), Lognormal(5.0, 0.5, 20), 80, seed), ONE_SLOT)
        for r in (rate, rate * factor)
    )
    assert np.all(fast.ttft_s >= slow.ttft_s - 1e-12)


def _spaced(requests: Requests) -> Requests:
    """The same requests, so far apart that none meets another."""
    return Requests(
        Deterministic(0.01), np.arange(1, len(requests) + 1) * 100.0, requests.input_tokens, requests.output_tokens
    )


@pytest.mark.parametrize("mixing", ["decode_first", "prefill_first"])
def test_without_contention_ttft_is_the_prefill_and_tpot_the_decode_step(mixing: str) -> None:
    run = simulate(step_time_s, _spaced(chat(1.0, 20)), Server(mixing=mixing))  # type: ignore[arg-type]
    for i in range(20):
        prompt, answer = int(run.requests.input_tokens[i]), int(run.requests.output_tokens[i])
        assert run.ttft_s[i] == pytest.approx(step_time_s(prompt, (prompt + 1) / 2, 0, 0), abs=1e-9)
        steps = [step_time_s(0, 0, 1, prompt + k) for k in range(1, answer)]
        assert run.e2e_s[i] - run.ttft_s[i] == pytest.approx(sum(steps), abs=1e-8)


def test_a_prompt_over_the_budget_is_worked_on_in_chunks() -> None:
    requests = make_requests(Deterministic(1.0), Fixed(1000), Fixed(2), 1, 0)
    run = simulate(step_time_s, requests, Server(max_sequences=8, token_budget=400))
    assert run.steps.prefill_tokens.tolist() == [400.0, 400.0, 200.0, 0.0]
    pairs = 1000 * 1001 / 2  # chunked or not, every token attends to the same tokens
    assert run.ttft_s[0] == pytest.approx(3 * 4e-3 + 1000 * 2e-5 + 1e-9 * pairs)


@settings(max_examples=25)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["decode_first", "prefill_first"]),
    st.integers(1, 24),
    st.sampled_from([3400, 5000, 20_000, None]),
    st.sampled_from([1, 16, 64]),
    st.integers(1, 3),
    st.sampled_from(["round_robin", "least_outstanding", "random"]),
    st.booleans(),
)
def test_tokens_are_conserved_and_no_limit_is_broken(
    seed: int, mixing: str, most: int, kv_tokens: int | None, page: int, replicas: int, router: str, by_table: bool
) -> None:
    server = Server(
        kv_tokens=kv_tokens, page_tokens=page, max_sequences=most, token_budget=512, mixing=mixing,  # type: ignore[arg-type]
        replicas=replicas, router=router,  # type: ignore[arg-type]
    )  # fmt: skip
    run = simulate(table if by_table else step_time_s, chat(60.0, 60, seed), server)
    steps = run.steps
    decodes = float(np.sum(steps.decode_sequences * steps.count))
    decoded = int(np.sum(run.requests.output_tokens - 1))
    firsts = len(run.requests)
    # Every token after the first is decoded, or comes out of a prefill that a preemption made necessary.
    assert decoded - run.preemptions <= decodes <= decoded
    assert int(run.gap_count.sum()) == decoded
    if run.preemptions == 0:
        assert steps.prefill_tokens.sum() == run.requests.input_tokens.sum()
        assert decodes == decoded
    assert steps.decode_sequences.max() <= most
    assert (steps.prefill_tokens + steps.decode_sequences).max() <= 512
    if server.pages is not None:
        assert steps.pages.max() <= server.pages
    assert steps.pages.min() >= 0
    assert np.all(run.first_token_s > run.arrival_s)
    assert np.all(run.finish_s >= run.first_token_s)
    assert np.count_nonzero(run.requests.output_tokens == 1) == np.count_nonzero(run.finish_s == run.first_token_s)
    assert firsts == len(run.finish_s)
    for replica in range(replicas):
        mine = steps.replica == replica
        ends = steps.start_s[mine] + steps.seconds[mine]
        assert np.all(steps.start_s[mine][1:] >= ends[:-1] - 1e-9)
    # Gaps between tokens add up to the time from the first token to the last.
    assert float(np.sum(run.gap_s * run.gap_count)) == pytest.approx(float(np.sum(run.finish_s - run.first_token_s)))


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(2.0, 150.0), st.sampled_from([3400, 8000, None]), st.integers(1, 2))
def test_steps_taken_at_once_are_the_steps_one_by_one(
    seed: int, rate: float, kv_tokens: int | None, replicas: int
) -> None:
    server = Server(kv_tokens=kv_tokens, replicas=replicas, router="least_outstanding")
    requests = chat(rate, 80, seed)
    single = simulate(lambda *a: table(*a), requests, server)  # a function has no lines, so every step is its own
    leaping = simulate(table, requests, server)
    np.testing.assert_allclose(leaping.first_token_s, single.first_token_s, rtol=1e-9)
    np.testing.assert_allclose(leaping.finish_s, single.finish_s, rtol=1e-9)
    assert leaping.steps.count.sum() == len(single.steps.count)
    assert leaping.preemptions == single.preemptions
    users = make_requests(ClosedLoop(5, 0.01), Lognormal(300.0, 0.8, 3000), Lognormal(60.0, 0.6, 400), 40, seed)
    np.testing.assert_allclose(
        simulate(table, users, server).finish_s, simulate(lambda *a: table(*a), users, server).finish_s, rtol=1e-9
    )


def test_memory_that_is_short_preempts_and_costs_time() -> None:
    roomy, short = (simulate(step_time_s, chat(40.0, 300), Server(kv_tokens=kv)) for kv in (None, 4000))
    assert roomy.preemptions == 0
    assert short.preemptions > 0
    assert short.steps.prefill_tokens.sum() > roomy.steps.prefill_tokens.sum()
    assert short.e2e_s.mean() > roomy.e2e_s.mean()


def test_littles_law_and_the_bound_on_capacity() -> None:
    run = simulate(step_time_s, chat(20.0, 3000), Server())
    summary = summarise(run)
    assert summary.means is not None
    assert summary.in_system == pytest.approx(summary.requests_per_s * summary.means["e2e"].value, rel=0.05)
    assert summary.requests_per_s == pytest.approx(20.0, rel=0.06)
    flood = simulate(step_time_s, chat(1e4, 1500), Server(max_sequences=32, token_budget=512))
    # No schedule beats steps that are all full: each token costs at least its share of one.
    tokens = float(np.sum(flood.requests.input_tokens + flood.requests.output_tokens - 1))
    least = tokens * step_time_s(512, 1, 0, 0) / 512
    assert flood.finish_s.max() - flood.arrival_s[0] >= least


def test_a_closed_loop_keeps_its_concurrency() -> None:
    requests = make_requests(ClosedLoop(8), Fixed(100), Fixed(50), 400, 1)
    run = simulate(step_time_s, requests, Server())
    events = np.concatenate([np.stack([run.arrival_s, np.ones(400)]), np.stack([run.finish_s, -np.ones(400)])], axis=1)
    under_way = np.cumsum(events[1][np.lexsort((events[1], events[0]))])
    assert under_way.max() == 8
    summary = summarise(run)
    assert summary.means is not None
    assert summary.requests_per_s == pytest.approx(8 / summary.means["e2e"].value, rel=0.05)
    paused = simulate(step_time_s, make_requests(ClosedLoop(8, 1.0), Fixed(100), Fixed(50), 400, 1), Server())
    assert summarise(paused).requests_per_s < summary.requests_per_s


def test_two_replicas_serve_more_and_the_router_matters() -> None:
    def p99(server: Server) -> float:
        summary = summarise(simulate(step_time_s, chat(60.0, 2000), server))
        assert summary.percentiles is not None
        return summary.percentiles["ttft", 99.0].value

    one, two = Server(max_sequences=16), Server(max_sequences=16, replicas=2, router="least_outstanding")
    assert p99(two) < p99(Server(max_sequences=16, replicas=2, router="random"))
    assert summarise(simulate(step_time_s, chat(60.0, 2000), one)).unsteady


def test_the_scale_of_time_is_free() -> None:
    """Steps that take f times as long at 1/f of the load see f times the latencies: the buyer's curves rest on it."""
    base = simulate(step_time_s, chat(30.0, 400), Server(kv_tokens=6000))
    slow = simulate(lambda *a: 3.0 * step_time_s(*a), chat(10.0, 400), Server(kv_tokens=6000))
    np.testing.assert_allclose(slow.e2e_s, 3.0 * base.e2e_s, rtol=1e-9)


def test_a_trace_and_what_is_refused() -> None:
    run: Run = simulate(step_time_s, make_requests(Trace((0.0, 0.0, 5.0)), Fixed(10), Fixed(2), 3, 0), Server())
    assert run.arrival_s.tolist() == [0.0, 0.0, 5.0]
    with pytest.raises(TrafficError, match="holds 3"):
        make_requests(Trace((0.0, 0.0, 5.0)), Fixed(10), Fixed(2), 4, 0)
    with pytest.raises(TrafficError, match="ascending"):
        Trace((1.0, 0.5))
    with pytest.raises(SimulationError, match="does not fit"):
        simulate(step_time_s, chat(1.0, 5), Server(kv_tokens=50))
    with pytest.raises(SimulationError, match="positive"):
        simulate(lambda *_: math.nan, chat(1.0, 5), Server())
    with pytest.raises(SimulationError, match="token_budget"):
        Server(max_sequences=512, token_budget=256)
    for bad in (lambda: Poisson(0.0), lambda: Fixed(0), lambda: Lognormal(0.5, 1.0, 10), lambda: Empirical(())):
        with pytest.raises(TrafficError):
            bad()
