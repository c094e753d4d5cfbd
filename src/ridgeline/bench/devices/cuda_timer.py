"""CUDA timers: events around launches that wait behind a kernel holding the card, or around replays of a graph.

The host enqueues a chunk of samples while the card is held; when the card is let go, it runs them without waiting for
the host, so that the cost of launching is not in the times. Whether the host was fast enough is seen, not assumed: the
first event of the chunk must not have fired when the last launch was enqueued.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ridgeline.bench.devices.unit import Timer, UnitError

HOLD_LEAST_S = 50e-6
HOLD_MOST_S = 0.05
HOLD_FACTOR = 2.0
"""The card is held for twice as long as enqueuing took before: the host's own time is not steady."""
FIRST_GUESS_S = 50e-6
"""Host time of a launch before any was seen: a Triton or torch launch takes 5 to 30 us."""
QUEUE_LAUNCHES = 256
"""Launches enqueued behind one hold. A CUDA stream takes about a thousand entries before enqueuing itself waits, and a
launch may be several kernels."""


class Event(Protocol):
    """What a timer needs of ``torch.cuda.Event``."""

    def record(self) -> None:
        """Enqueue the event."""

    def query(self) -> bool:
        """Whether it has fired."""

    def elapsed_time(self, end: Any, /) -> float:
        """Milliseconds from this event to ``end``; both have fired."""


class Card(Protocol):
    """The calls of a CUDA card that a timer makes; tests give their own."""

    def event(self) -> Event:
        """A new timing event."""

    def hold(self, seconds: float) -> None:
        """Enqueue a kernel that keeps the card busy for about so long."""

    def synchronize(self) -> None:
        """Wait until everything enqueued has ended."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what ``work`` enqueues as a graph; returns what replays it."""

    def apart(self) -> AbstractContextManager[Any]:
        """A context in which the garbage collector does not run."""


class EventTimer(Timer):
    """CUDA events, launch latency hidden behind a kernel that holds the card."""

    name = "cuda_events"

    def __init__(self, card: Card, clock: Callable[[], float] = time.perf_counter) -> None:
        self._card = card
        self._clock = clock
        self._exposed = 0
        self.forget()

    def forget(self) -> None:
        """Another kernel comes: nothing is known of what its launches cost the host."""
        self._launch_s = FIRST_GUESS_S
        self._queue = QUEUE_LAUNCHES

    def time(self, launch: Callable[[int], None], launches: int) -> float:
        """As :meth:`Timer.time`."""
        return self.block(launch, launches, 1)[0]

    def block(self, launch: Callable[[int], None], launches: int, samples: int) -> list[float]:
        """Seconds of each sample. Samples of a chunk share one hold and one synchronisation."""
        seconds: list[float] = []
        while len(seconds) < samples:
            held = min(self._queue, int(HOLD_MOST_S / (HOLD_FACTOR * self._launch_s)))
            chunk = max(1, held // launches)
            seconds += self._chunk(launch, launches, min(chunk, samples - len(seconds)))
        return seconds

    def take_exposed(self) -> int:
        """Chunks since the last call in which the card may have waited for the host."""
        exposed, self._exposed = self._exposed, 0
        return exposed

    def _calls(self, launch: Callable[[int], None], launches: int, samples: int) -> list[Callable[[], None]]:
        return [lambda: launch(launches)] * samples

    def _chunk(self, launch: Callable[[int], None], launches: int, samples: int) -> list[float]:
        calls = self._calls(launch, launches, samples)
        events = [(self._card.event(), self._card.event()) for _ in calls]
        with self._card.apart():
            began = self._clock()
            self._card.hold(self._hold_s(launches * samples))
            for call, (start, end) in zip(calls, events, strict=True):
                start.record()
                call()
                end.record()
            if events[0][0].query():
                self._exposed += 1
                # Eager attention is 7 kernels a launch: 256 of them filled the stream of an H200, and enqueuing waited.
                self._queue = max(1, launches * samples // 2)
            host_s = (self._clock() - began) / (launches * samples)
        self._card.synchronize()
        # Up at once, down slowly: one quick chunk does not promise another.
        self._launch_s = max(host_s, 0.8 * self._launch_s)
        return [start.elapsed_time(end) * 1e-3 for start, end in events]

    def _hold_s(self, launches: int) -> float:
        return min(HOLD_MOST_S, HOLD_LEAST_S + HOLD_FACTOR * self._launch_s * launches)


class CaptureError(RuntimeError):
    """A launch that cannot be captured in a CUDA graph; the text is the reason."""


class GraphTimer(EventTimer):
    """CUDA events around replays of captured graphs: what a serving engine sees that replays its kernels.

    Each sample has a graph of its own, captured before the card is held, because a rotation through cold buffers puts
    other addresses into every sample.
    """

    name = "cuda_graph"

    def _calls(self, launch: Callable[[int], None], launches: int, samples: int) -> list[Callable[[], None]]:
        try:
            return [self._card.capture(lambda: launch(launches)) for _ in range(samples)]
        except RuntimeError as error:
            first = str(error).strip().splitlines() or [type(error).__name__]
            raise CaptureError(f"its launch cannot be captured in a CUDA graph: {first[0]}") from error


TIMERS: dict[str, type[EventTimer]] = {"events": EventTimer, "graph": GraphTimer}
"""Timers by the word that chooses them: ``cuda:0:graph``."""


def card_and_timer(argument: str) -> tuple[str, str]:
    """Index and timer of what follows ``cuda:``, such as ``1`` or ``0:graph``.

    Raises:
        UnitError: for an unknown timer or an index that is none.
    """
    index, _, timer = argument.partition(":")
    timer = timer or "events"
    if timer not in TIMERS or (index and not index.isdecimal()):
        raise UnitError(f"unknown device 'cuda:{argument}': write cuda, cuda:N or cuda:N:graph")
    return str(int(index)) if index else "", timer
