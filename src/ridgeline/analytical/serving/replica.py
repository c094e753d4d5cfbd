"""One replica of a simulated server: a queue, a batch, pages, and the step that is under way.

One step costs a constant number of operations, however many sequences decode: they move in step, so when each ends and when
each needs a page is known when it begins to decode.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections import deque
from collections.abc import Callable

from ridgeline.analytical.serving.server import Server, SimulationError, StepTime
from ridgeline.analytical.serving.traffic import Requests


class RequestStates:
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


class Replica:
    """One engine: a batch, a queue, pages."""

    def __init__(self, server: Server, step_time_s: StepTime, state: RequestStates) -> None:
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
        slot = number % page
        pages = cycles * n + sum(self.needing[slot : slot + rest]) + sum(self.needing[: max(slot + rest - page, 0)])
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
