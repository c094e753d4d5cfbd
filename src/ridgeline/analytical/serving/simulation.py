"""Continuous batching, simulated step by step.

A server holds one or more replicas; a replica runs one step after the other, and every step of it

1. gives one token to each sequence that is decoding (``decode_first``; with ``prefill_first`` only where no prompt can be
   worked on, as the first schedulers did),
2. fills what is left of the token budget with chunks of prompts, first come, first served (chunked prefill: Agrawal et al.,
   "Sarathi-Serve", OSDI 2024, section 4; the budget is vLLM's ``max_num_batched_tokens``),
3. lasts as long as the given ``step_time_s`` says.

A prompt's last chunk yields the first token. The keys and values lie in pages (Kwon et al., "PagedAttention", SOSP 2023); a
prompt is admitted when there are pages for all of it. Where a decoding sequence finds no page, the one admitted last loses
its pages, goes back to the head of the queue and is computed again with the tokens it had (section 4.5 of that paper).

One step costs a constant number of operations, however many sequences decode: they move in step, so when each ends and when
each needs a page is known when it begins to decode. Where the step time is told as lines of the context
(:class:`~ridgeline.analytical.serving.table.StepTable`), all steps up to the next arrival or end are one operation: their times
are an arithmetic series. Only the gaps between tokens are then told by their mean.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ridgeline.analytical.serving.replica import Replica, RequestStates
from ridgeline.analytical.serving.server import Server, SimulationError, StepTime
from ridgeline.analytical.serving.traffic import ClosedLoop, Counts, Floats, Requests


@dataclass(frozen=True)
class Steps:
    """All steps of a run, by replica in the order of their begin: columns of one length."""

    start_s: Floats
    seconds: Floats
    prefill_tokens: Floats
    decode_sequences: Floats
    pages: Floats
    """Pages in use at the end."""
    count: Floats
    """Steps that one row stands for: only decoding ones, of the same sequences, are put together."""
    replica: Floats


@dataclass(frozen=True)
class Run:
    """What a simulation saw: of every request its times, of every step its batch."""

    server: Server
    requests: Requests
    arrival_s: Floats
    first_token_s: Floats
    finish_s: Floats
    replica: npt.NDArray[np.int64]
    steps: Steps
    gap_at_s: Floats
    """When tokens other than first ones came."""
    gap_s: Floats
    """Seconds since the token before, of the same sequence."""
    gap_count: Counts
    """Sequences that saw this gap then."""
    preemptions: int

    @property
    def ttft_s(self) -> Floats:
        """Time to first token."""
        return self.first_token_s - self.arrival_s

    @property
    def e2e_s(self) -> Floats:
        """Time to the last token."""
        return self.finish_s - self.arrival_s

    @property
    def tpot_s(self) -> Floats:
        """Time per output token after the first; NaN for answers of one token, which have none."""
        rest = self.requests.output_tokens - 1
        seconds = self.finish_s - self.first_token_s
        return np.asarray(np.divide(seconds, rest, out=np.full(len(rest), np.nan), where=rest > 0))


def simulate(step_time_s: StepTime, requests: Requests, server: Server, seed: int = 0) -> Run:
    """Serve ``requests`` to their end.

    Raises:
        SimulationError: for a request that does not fit into the memory, or a step that does not last a positive time.
    """
    _check_fit(requests, server)
    state = RequestStates(requests)
    replicas = [Replica(server, step_time_s, state) for _ in range(server.replicas)]
    route = _router(server, replicas, seed)
    count = len(requests)
    loop = requests.arrivals if isinstance(requests.arrivals, ClosedLoop) else None
    times: list[float] = [] if requests.arrival_s is None else requests.arrival_s.tolist()
    returning = [0.0] * min(loop.concurrency, count) if loop is not None else []
    events: list[tuple[float, int]] = []
    given = 0
    never = math.inf
    while True:
        if loop is None:
            arrival = times[given] if given < count else never
        else:
            arrival = returning[0] if returning and given < count else never
        if events and events[0][0] < arrival:
            now, index = heapq.heappop(events)
            replica = replicas[index]
            replica.outstanding -= replica.done
            if loop is not None:
                for _ in range(replica.done):
                    heapq.heappush(returning, now + loop.think_s)
            # In a closed loop the answers of another replica may bring the next request at any time.
            following = arrival if loop is None else (returning[0] if returning and given < count else never)
            end = replica.step(now, following if loop is None or server.replicas == 1 else now)
            if end is None:
                replica.idle = True
            else:
                heapq.heappush(events, (end, index))
            continue
        if arrival == never:
            break
        if loop is not None:
            heapq.heappop(returning)
        index = route()
        replica = replicas[index]
        state.arrival[given] = arrival
        state.replica[given] = index
        replica.outstanding += 1
        replica.waiting.append(given)
        given += 1
        if replica.idle:
            replica.idle = False
            if loop is None:
                following = times[given] if given < count else never
            else:
                following = (
                    (returning[0] if returning and given < count else never) if server.replicas == 1 else arrival
                )
            end = replica.step(arrival, following)
            if end is None:
                raise SimulationError("a request could not be begun by an idle replica")
            heapq.heappush(events, (end, index))
    return _run(server, requests, state, replicas)


def _router(server: Server, replicas: list[Replica], seed: int) -> Callable[[], int]:
    if server.replicas == 1:
        return lambda: 0
    if server.router == "least_outstanding":
        return lambda: min(range(len(replicas)), key=lambda index: replicas[index].outstanding)
    if server.router == "random":
        rng = np.random.default_rng([seed, 1])
        return lambda: int(rng.integers(len(replicas)))
    turn = iter(range(2**62))
    return lambda: next(turn) % len(replicas)


def _check_fit(requests: Requests, server: Server) -> None:
    pages = server.pages
    if pages is None:
        return
    longest = int((requests.input_tokens + requests.output_tokens).max())
    if -(-longest // server.page_tokens) > pages:
        raise SimulationError(
            f"a request of {longest} tokens does not fit: the memory holds keys and values of {server.kv_tokens} tokens"
        )


def _run(server: Server, requests: Requests, state: RequestStates, replicas: list[Replica]) -> Run:
    logs = [np.frombuffer(replica.log).reshape(-1, 6) if replica.log else np.zeros((0, 6)) for replica in replicas]
    gaps = np.concatenate(
        [np.frombuffer(replica.gaps).reshape(-1, 3) if replica.gaps else np.zeros((0, 3)) for replica in replicas]
    )
    start, seconds, tokens, sequences, pages, count = (np.ascontiguousarray(c) for c in np.concatenate(logs).T)
    owner = np.repeat(np.arange(len(logs), dtype=np.float64), [len(log) for log in logs])
    return Run(
        server,
        requests,
        np.asarray(state.arrival),
        np.asarray(state.first_token),
        np.asarray(state.finish),
        np.asarray(state.replica, dtype=np.int64),
        Steps(start, seconds, tokens, sequences, pages, count, owner),
        np.ascontiguousarray(gaps[:, 0]),
        np.ascontiguousarray(gaps[:, 1]),
        gaps[:, 2].astype(np.int64),
        sum(replica.preemptions for replica in replicas),
    )
