"""The workers of a placement: one for each rank, ended together, and the rank that is to blame for a fault."""

from __future__ import annotations

import selectors
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ridgeline.bench.supervisor import POLL_S, Outcome, Place, Supervisor

GRACE_S = 1.0
"""After the first fault the other ranks may take so long to end by themselves. A rank that loses another one's
connection says so before or after that one's death is seen: both are waited for, and the death is the cause."""
_GOOD = ("ok", "unstable")
_WAITING = "/torch/distributed/"
"""A rank whose innermost frame lies here waits for others."""


class RankGroup:
    """Runs cases of one or several ranks in warm workers; the first one is the leader, and runs cases of one rank.

    Args:
        timeout_s: of a case.
        memory_limit_bytes: of all ranks of a case together.
        folder: where ranks meet; made when they do, in a private folder that is there.
    """

    def __init__(self, timeout_s: float, memory_limit_bytes: float, folder: Path) -> None:
        self._limits = timeout_s, memory_limit_bytes
        self._workers = [Supervisor(timeout_s, memory_limit_bytes)]
        self._folder = folder
        self._meetings = 0

    def __enter__(self) -> RankGroup:
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all workers and everything they started."""
        for worker in self._workers:
            worker.stop()

    def run(self, requests: Sequence[Mapping[str, Any]]) -> Outcome:
        """Run one case, ``requests[r]`` on rank r; the outcome is the leader's, or that of the rank that went wrong."""
        if len(requests) == 1:
            return self._workers[0].run(requests[0])
        while len(self._workers) < len(requests):
            self._workers.append(Supervisor(*self._limits))
        # All of them import torch first, which may take a new worker long; a warm one must not wait for that in the case.
        started = self._run_all([{"task": "start"}] * len(requests))
        if started.fields["status"] != "ok":
            return started
        meeting = self._new_meeting()
        return self._run_all([{**request, "meeting": meeting} for request in requests])

    def _new_meeting(self) -> str:
        """A file that is not there yet, for the ranks to meet at."""
        self._folder.mkdir(exist_ok=True)
        self._meetings += 1
        return str(self._folder / str(self._meetings))

    def _run_all(self, requests: Sequence[Mapping[str, Any]]) -> Outcome:
        """Run the requests at once; after a fault of one rank the others are ended."""
        outcomes = self._watch(requests)
        for rank in range(len(requests)):
            if rank not in outcomes:
                self._workers[rank].stop()
        peak = sum(outcome.peak_memory_bytes for outcome in outcomes.values())
        culprits = blamed(outcomes)
        if not culprits:
            return Outcome(outcomes[0].fields, peak)
        fault = outcomes[culprits[0]]
        reason = fault.fields["reason"]
        if len(culprits) < len(requests):
            ranks = ", ".join(map(str, culprits))
            reason = f"rank{'s' if len(culprits) > 1 else ''} {ranks}: {reason}"
        lost = any(outcome.unit_lost for outcome in outcomes.values())
        return Outcome({"status": fault.fields["status"], "reason": reason}, peak, lost, fault.answered)

    def _watch(self, requests: Sequence[Mapping[str, Any]]) -> dict[int, Outcome]:
        """Outcomes by rank, in the order in which they were seen; without those of ranks that others left waiting."""
        outcomes: dict[int, Outcome] = {}
        channels: dict[int, int] = {}
        until = float("inf")
        with selectors.DefaultSelector() as selector:
            for rank, request in enumerate(requests):
                outcome = self._workers[rank].begin(request, 1.0 / len(requests))
                if outcome is None:
                    channels[rank] = self._workers[rank].channel
                    selector.register(channels[rank], selectors.EVENT_READ, rank)
                else:
                    outcomes[rank] = outcome
            while channels:
                if any(outcome.fields["status"] not in _GOOD for outcome in outcomes.values()):
                    until = min(until, time.monotonic() + GRACE_S)
                if time.monotonic() > until:
                    break
                readable = {key.data for key, _ in selector.select(POLL_S)}
                if any(self._workers[rank].overdue for rank in channels):
                    return outcomes | self._end_overdue(list(channels))
                for rank in list(channels):
                    outcome = self._workers[rank].look(rank in readable)
                    if outcome is not None:
                        outcomes[rank] = outcome
                        selector.unregister(channels.pop(rank))
        return outcomes

    def _end_overdue(self, ranks: Sequence[int]) -> dict[int, Outcome]:
        """``timeout`` of those ranks that hang, and not of those that only wait for them."""
        places = {rank: self._workers[rank].place() for rank in ranks}
        return {
            rank: self._workers[rank].end_overdue("" if places[rank] is None else str(places[rank]))
            for rank in hanging(places)
        }


def hanging(places: Mapping[int, Place | None]) -> list[int]:
    """Of ranks that had all their time, those that do not wait for others; all of them where every one waits."""
    found = [rank for rank, place in places.items() if place is None or _WAITING not in place.file]
    return found or list(places)


def blamed(outcomes: Mapping[int, Outcome]) -> list[int]:
    """The ranks whose fault it is: one that died, else the first that said what is wrong, and all that end like it.

    Args:
        outcomes: by rank, in the order in which they were seen.
    """
    failed = [rank for rank, outcome in outcomes.items() if outcome.fields["status"] not in _GOOD]
    died = [rank for rank in failed if not outcomes[rank].answered]
    if not failed:
        return []
    first = outcomes[(died or failed)[0]]
    return sorted(rank for rank in failed if outcomes[rank].fields["reason"] == first.fields["reason"])
