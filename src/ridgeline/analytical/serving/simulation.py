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
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from ridgeline.analytical.serving.traffic import ClosedLoop, Counts, Floats, Requests

StepTime = Callable[[float, float, float, float], float]
"""``step_time_s(prefill_tokens, prefill_context, decode_sequences, decode_context_tokens) -> seconds``.

``prefill_context`` is the mean number of tokens that a prompt token of this step attends to, itself included: a whole prompt
of p tokens has (p + 1) / 2. ``decode_context_tokens`` is the sum, over the decoding sequences, of what each attends to.
"""


class Lines(Protocol):
    """A step time that is piecewise linear in the context."""

    def line(self, sequences: int, context_tokens: float) -> tuple[float, float, float]:
        """Start, slope and end of the line on which steps that only decode lie: ``start + slope * context`` up to ``end``."""
        ...


class SimulationError(ValueError):
    """A simulation that cannot be made. One line."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """What runs the requests."""

    kv_tokens: int | None = None
    """Tokens whose keys and values fit into one replica's memory; ``None``: all that ever come."""
    page_tokens: int = 16
    max_sequences: int = 256
    """Most sequences in one replica's batch."""
    token_budget: int = 8192
    """Most tokens of one step."""
    mixing: Literal["decode_first", "prefill_first"] = "decode_first"
    watermark: float = 0.01
    """Share of the pages that admission leaves free for those that decode."""
    replicas: int = 1
    router: Literal["round_robin", "least_outstanding", "random"] = "round_robin"

    def __post_init__(self) -> None:
        if min(self.page_tokens, self.max_sequences, self.token_budget, self.replicas) < 1:
            raise SimulationError("page_tokens, max_sequences, token_budget and replicas must be at least 1")
        if self.mixing not in ("decode_first", "prefill_first"):
            raise SimulationError(f"unknown mixing {self.mixing!r}: decode_first or prefill_first")
        if self.router not in ("round_robin", "least_outstanding", "random"):
            raise SimulationError(f"unknown router {self.router!r}: round_robin, least_outstanding or random")
        if self.mixing == "decode_first" and self.token_budget < self.max_sequences:
            raise SimulationError(
                f"a token budget of {self.token_budget} cannot serve {self.max_sequences} sequences that decode: "
                f"raise token_budget or lower max_sequences"
            )

    @property
    def pages(self) -> int | None:
        """Pages of one replica."""
        return None if self.kv_tokens is None else self.kv_tokens // self.page_tokens


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
    state = _State(requests)
    replicas = [_Replica(server, step_time_s, state) for _ in range(server.replicas)]
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


class _State:
    """Of every request what is known so far."""

    def __init__(self, requests: Requests) -> None:
        count = len(requests)
        self.input = requests.input_tokens.tolist()
        self.output = requests.output_tokens.tolist()
        self.prompt = list(self.input)
        """Tokens that its prefill has to work on: those it has, on a second try."""
        self.produced = [0] * count
        """Tokens it had when it last began to decode."""
        self.joined = [-1] * count
        """Number of the decoding step with which it began to decode, or -1."""
        self.last_token = [0.0] * count
        self.arrival = [0.0] * count
        self.first_token = [0.0] * count
        self.finish = [0.0] * count
        self.replica = [0] * count


class _Replica:
    """One engine: a batch, a queue, pages."""

    def __init__(self, server: Server, step_time_s: StepTime, state: _State) -> None:
        self.step_time_s = step_time_s
        self.line: Callable[[int, float], tuple[float, float, float]] | None = getattr(step_time_s, "line", None)
        self.state = state
        self.page = server.page_tokens
        self.most = server.max_sequences
        self.budget = server.token_budget
        self.prefill_first = server.mixing == "prefill_first"
        self.free = server.pages if server.pages is not None else 2**62
        self.pages = self.free
        self.reserve = int(server.watermark * server.pages) if server.pages is not None else 0
        self.waiting: deque[int] = deque()
        self.prefilling: deque[list[int]] = deque()
        """[request, tokens done]"""
        self.running: dict[int, None] = {}
        """In the order of admission."""
        self.decoding = 0
        self.kv_sum = 0
        """Tokens of all decoding sequences together."""
        self.number = 0
        """Decoding steps so far."""
        self.last_decode = 0.0
        self.newcomers: list[int] = []
        """Decoding, but in no step yet."""
        self.ends: dict[int, list[int]] = {}
        """Requests by the number of their last decoding step."""
        self.next_ends: list[int] = []
        """The numbers, as a heap; some are past."""
        self.needing = [0] * self.page
        """Sequences that need a page in the decoding steps of each number modulo the page."""
        self.idle = True
        self.outstanding = 0
        self.done = 0
        """Requests that the step under way completes."""
        self.preemptions = 0
        self.log = array("d")
        self.gaps = array("d")

    def step(self, now: float, until: float) -> float | None:
        """Run the next step, or as many equal ones as begin before ``until``; the end, or ``None`` without work."""
        self.done = 0
        if self.line is not None and self.decoding and not (self.prefilling or self.waiting or self.newcomers):
            end = self._leap(now, until)
            if end is not None:
                return end
        decodes = self.decoding > 0
        admits = True
        if decodes and not self.prefill_first:
            admits = not self._take_pages()
            decodes = self.decoding > 0
        budget = self.budget if self.prefill_first else self.budget - self.decoding
        tokens, pairs = self._chunks(budget, admits)
        if self.prefill_first and decodes:
            if tokens:
                decodes = False
            else:
                self._take_pages()
                decodes = self.decoding > 0
        sequences = self.decoding if decodes else 0
        if not tokens and not sequences:
            return None
        seconds = self.step_time_s(
            tokens, pairs / tokens if tokens else 0.0, sequences, self.kv_sum + sequences if sequences else 0
        )
        if not 0.0 < seconds < math.inf:
            raise SimulationError(
                f"a step of {tokens} prompt tokens and {sequences} sequences lasts {seconds!r} s: times must be positive"
            )
        end = now + seconds
        self.log.extend((now, seconds, tokens, sequences, self.pages - self.free, 1))
        if sequences:
            self._decoded(end)
        if tokens:
            self._prefilled(end)
        return end

    def _leap(self, now: float, until: float) -> float | None:
        """All decoding steps up to the next arrival or end, at once; ``None`` where that is one step, or memory is short."""
        n, number, page = self.decoding, self.number, self.page
        ends = self.next_ends
        while ends[0] < number:
            heapq.heappop(ends)
        count = ends[0] - number + 1
        if count < 2:
            return None
        first = self.kv_sum + n
        assert self.line is not None
        start, slope, most = self.line(n, first)
        count = min(count, int((most - first) / n) + 1)
        # Steps take start + slope (first + n j), j = 0, 1 ...: an arithmetic series, solved for the arrival.
        half, linear = 0.5 * slope * n, start + slope * (first - 0.5 * n)
        if until != math.inf:
            left = until - now
            if half * count * count + linear * count > left:
                root = math.sqrt(linear * linear + 4.0 * half * left) if half > 0.0 else linear
                steps = math.ceil(2.0 * left / (linear + root)) if root > 0.0 else 1
                count = min(count, max(steps, 1))
        if count < 2:
            return None
        cycles, rest = divmod(count, page)
        pages = cycles * n + sum(self.needing[(number + j) % page] for j in range(rest))
        if pages > self.free:
            return None
        self.free -= pages
        seconds = half * count * count + linear * count
        end = now + seconds
        self.log.extend((now, seconds, 0.0, n, self.pages - self.free, count))
        self.gaps.extend((end, seconds / count, n * count))
        self.last_decode = end
        self.kv_sum += n * count
        self.number = number + count
        self._end_of(self.number - 1, end)
        return end

    def _take_pages(self) -> bool:
        """Give each decoding sequence the page it needs; whether one had to go for it."""
        slot = self.number % self.page
        preempted = False
        while self.needing[slot] > self.free:
            self._preempt()
            preempted = True
        self.free -= self.needing[slot]
        return preempted

    def _preempt(self) -> None:
        request, _ = self.running.popitem()
        state = self.state
        self.preemptions += 1
        prompt, joined = state.prompt[request], state.joined[request]
        if joined < 0:
            self.free += -(-prompt // self.page)
            self.prefilling.remove(next(entry for entry in self.prefilling if entry[0] == request))
        else:
            generated = self.number - joined
            held = prompt + generated
            self.free += -(-held // self.page)
            self.decoding -= 1
            self.kv_sum -= held
            self.needing[(joined - prompt) % self.page] -= 1
            self.ends[joined + state.output[request] - state.produced[request] - 1].remove(request)
            if generated:
                state.last_token[request] = self.last_decode
            else:
                self.newcomers.remove(request)
            state.produced[request] += generated
            state.prompt[request] = state.input[request] + state.produced[request]
            state.joined[request] = -1
        self.waiting.appendleft(request)

    def _chunks(self, budget: int, admits: bool) -> tuple[int, float]:
        """Chunks of prompts for this step: tokens, and token pairs that attend."""
        tokens, pairs = 0, 0.0
        state = self.state
        for entry in self.prefilling:
            if budget <= 0:
                return tokens, pairs
            done = entry[1]
            chunk = min(budget, state.prompt[entry[0]] - done)
            entry[1] = done + chunk
            tokens += chunk
            pairs += chunk * (done + (chunk + 1) * 0.5)
            budget -= chunk
        while admits and budget > 0 and self.waiting and len(self.running) < self.most:
            request = self.waiting[0]
            prompt = state.prompt[request]
            needed = -(-prompt // self.page)
            if needed > self.free - (self.reserve if self.running else 0):
                break
            self.waiting.popleft()
            self.free -= needed
            self.running[request] = None
            chunk = min(budget, prompt)
            self.prefilling.append([request, chunk])
            tokens += chunk
            pairs += chunk * (chunk + 1) * 0.5
            budget -= chunk
        return tokens, pairs

    def _decoded(self, end: float) -> None:
        state = self.state
        steady = self.decoding - len(self.newcomers)
        if steady:
            self.gaps.extend((end, end - self.last_decode, steady))
        if self.newcomers:
            for request in self.newcomers:
                self.gaps.extend((end, end - state.last_token[request], 1))
            self.newcomers.clear()
        self.last_decode = end
        self.kv_sum += self.decoding
        self.number += 1
        self._end_of(self.number - 1, end)

    def _end_of(self, number: int, end: float) -> None:
        """Requests whose last decoding step was ``number``."""
        state = self.state
        if number in self.ends:
            for request in self.ends.pop(number):
                prompt, joined = state.prompt[request], state.joined[request]
                held = prompt + number + 1 - joined
                self.decoding -= 1
                self.kv_sum -= held
                self.free += -(-held // self.page)
                self.needing[(joined - prompt) % self.page] -= 1
                self._finish(request, end)

    def _prefilled(self, end: float) -> None:
        state = self.state
        while self.prefilling:
            request, done = self.prefilling[0]
            prompt = state.prompt[request]
            if done < prompt:
                return
            self.prefilling.popleft()
            if state.produced[request]:
                self.gaps.extend((end, end - state.last_token[request], 1))
            else:
                state.first_token[request] = end
            state.last_token[request] = end
            state.produced[request] += 1
            left = state.output[request] - state.produced[request]
            if not left:
                self.free += -(-prompt // self.page)
                self._finish(request, end)
                continue
            state.joined[request] = self.number
            self.decoding += 1
            self.kv_sum += prompt
            self.needing[(self.number - prompt) % self.page] += 1
            last = self.number + left - 1
            if last in self.ends:
                self.ends[last].append(request)
            else:
                self.ends[last] = [request]
                if self.line is not None:
                    heapq.heappush(self.next_ends, last)
            self.newcomers.append(request)

    def _finish(self, request: int, end: float) -> None:
        self.state.finish[request] = end
        del self.running[request]
        self.done += 1


def _router(server: Server, replicas: list[_Replica], seed: int) -> Callable[[], int]:
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


def _run(server: Server, requests: Requests, state: _State, replicas: list[_Replica]) -> Run:
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
