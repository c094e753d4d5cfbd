"""A contest inside the worker: both sides made, checked, timed in quads, and checked again.

Two implementations of one process take turns in it. Two revisions of one kernel cannot share a process, because both
bear the same name: each then has a process of its own (:mod:`ridgeline.bench.side_process`), and legs take turns
across the two.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ridgeline.bench.checks import IncorrectError
from ridgeline.bench.makers import Maker, OwnMaker, session_of
from ridgeline.bench.quads import LEG_S, QuadSettings, Side, measure_quads
from ridgeline.bench.side_process import OtherMaker
from ridgeline.kernels.registry import Unsupported

TWO_PROCESS_LEG_S = 5e-3
"""Longer than within one process: a message to each side comes before every leg."""
TWO_PROCESS_WARM_S = 12e-3
"""Launches before a leg where the other process ran last: its threads wake on one core, and the scheduler takes about
10 ms to spread them (a gemm of two threads took 1.32 ms a launch until then, 0.74 ms after)."""


def compare(request: Mapping[str, Any], phase: Callable[[str], None]) -> dict[str, Any]:
    """Compare both sides of ``request``; the fields of the record that were measured.

    Args:
        request: what :class:`OwnMaker` takes, ``unit``, and ``sides`` (implementation, label, config,
            python_path, with; a ``python_path`` asks for a process of its own), ``budget_s``, ``margin``, ``confidence``.
        phase: told what is being done.

    Raises:
        Unsupported, IncorrectError: naming the side.
    """
    session = session_of(request)
    lots = random.Random(request["seed"])
    labels = [side["label"] for side in request["sides"]]
    two = any(side["python_path"] for side in request["sides"])
    phase("prepare")
    with contextlib.ExitStack() as stack:
        makers = []
        for side in request["sides"]:
            with _naming(side["label"]):
                own = {**request, "config": side["config"]}
                maker = _other_process(own, side) if two else OwnMaker(own, side["implementation"], session)
            stack.callback(maker.close)
            makers.append(maker)

        def arrange(arrangement: int) -> tuple[Side, Side]:
            made: dict[int, Side] = {}
            for index in lots.sample((0, 1), 2):
                with _naming(labels[index]):
                    made[index] = _Named(makers[index].make(arrangement), labels[index])
            return made[0], made[1]

        settings = QuadSettings(
            request["budget_s"], request["margin"], request["confidence"], request["seed"],
            leg_s=TWO_PROCESS_LEG_S if two else LEG_S,
        )  # fmt: skip
        quads = measure_quads(arrange, settings, interruption=session.interruption)
        phase("check again")
        for maker, label in zip(makers, labels, strict=True):
            with _naming(label):
                maker.check("after timing")
        facts = [maker.facts() for maker in makers]
    return {
        "status": "ok",
        "sides": [
            {**facts[0], "launches_per_leg": quads.launches_a},
            {**facts[1], "launches_per_leg": quads.launches_b},
        ],
        "a_s": quads.a_s,
        "b_s": quads.b_s,
        "a_first": quads.a_first,
        "arrangement": quads.arrangement,
        "left_out": [{"block": index, "cause": cause} for index, cause in quads.left_out.items()],
        "looks": quads.looks,
        "measured_s": quads.measured_s,
    }


def _other_process(request: Mapping[str, Any], side: Mapping[str, Any]) -> Maker:
    return OtherMaker(
        {**request, "with": side["with"], "warm_s": TWO_PROCESS_WARM_S},
        side["implementation"],
        Path(side["python_path"]),
    )


class _Named:
    """A side whose failures name it."""

    def __init__(self, side: Side, label: str) -> None:
        self._side = side
        self._label = label

    def begin(self, launches: int) -> None:
        with _naming(self._label):
            self._side.begin(launches)

    def leg(self, launches: int) -> float:
        return self._side.leg(launches)

    def end(self) -> None:
        with _naming(self._label):
            self._side.end()


@contextlib.contextmanager
def _naming(label: str) -> Iterator[None]:
    try:
        yield
    except (IncorrectError, Unsupported) as error:
        raise type(error)(f"{label}: {error}") from error
