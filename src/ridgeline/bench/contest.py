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
from typing import Protocol as Interface

import torch

from ridgeline.analytical.operators import make_problem
from ridgeline.analytical.quantities import digest
from ridgeline.bench.checks import Checker, IncorrectError
from ridgeline.bench.devices.choose import choose_unit
from ridgeline.bench.devices.unit import Session
from ridgeline.bench.environment import package_versions
from ridgeline.bench.launches import RotatingLaunches, make_launches
from ridgeline.bench.quads import OwnSide, QuadSettings, Side, measure_quads
from ridgeline.bench.sources import source_hash
from ridgeline.kernels.registry import Unsupported, get_implementation, get_operator

PADDING_BYTES = 1 << 20
"""Allocations of up to this size, drawn by lot, stand before every set of buffers, so that addresses differ."""
TWO_PROCESS_LEG_S = 5e-3
"""Longer than within one process: a message to each side comes before every leg."""
TWO_PROCESS_WARM_S = 12e-3
"""Launches before a leg where the other process ran last: its threads wake on one core, and the scheduler takes about
10 ms to spread them (a gemm of two threads took 1.32 ms a launch until then, 0.74 ms after)."""


class Maker(Interface):
    """Makes one side, again and again, on buffers of its own each time."""

    def make(self, arrangement: int) -> Side:
        """A side whose inputs depend on the seed and ``arrangement`` alone."""
        ...

    def check(self, when: str) -> None:
        """Check the present buffers against the reference.

        Raises:
            IncorrectError: above the tolerance.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """Content key, first preparation's seconds, and the errors of all checks so far."""
        ...

    def close(self) -> None:
        """Let go of what belongs to it."""
        ...


class OwnMaker:
    """Makes a side in this process; the kernels are loaded.

    Args:
        request: operator, problem, threads, cache, cache_bytes, seed.
        implementation: name of the implementation.
        session: where it runs.
    """

    def __init__(self, request: Mapping[str, Any], implementation: str, session: Session) -> None:
        self._session = session
        self._problem = make_problem(request["operator"], request["problem"])
        self._operator = get_operator(self._problem.operator)
        self._implementation = get_implementation(self._problem.operator, implementation)
        self._request = request
        self._launches: RotatingLaunches | None = None
        self._checker: Checker | None = None
        self._padding: torch.Tensor | None = None
        self._lots = random.Random()
        self._prepare_s: float | None = None
        self._errors: dict[str, Any] = {}

    def make(self, arrangement: int) -> Side:
        self._fold()
        padding = torch.ones(self._lots.randrange(64, PADDING_BYTES), dtype=torch.uint8)
        self._padding = self._session.place({"padding": padding})["padding"]
        self._session.begin_case(self._problem.operator, self._implementation.name, self._request["seed"] + arrangement)
        self._launches, self._checker, prepare_s = make_launches(
            self._operator,
            self._problem,
            self._implementation,
            self._session,
            threads=self._request["threads"],
            cold=self._request["cache"] == "cold",
            cache_bytes=self._request["cache_bytes"],
            # The same for both sides: equal values, so that nothing but the kernel differs.
            seed=self._request["seed"] + arrangement,
        )
        if self._prepare_s is None:
            self._prepare_s = prepare_s
            self._launches.check_all_ways("before timing")
        return OwnSide(self._launches, self._session.timer, self._request.get("warm_s", 0.0))

    def check(self, when: str) -> None:
        assert self._launches is not None
        self._launches.check_all_ways(when)

    def _fold(self) -> None:
        """Keep the errors of the present checker, and let go of its tensors."""
        if self._checker is None:
            return
        facts, known = self._checker.facts(), self._errors
        self._errors = {
            "error_relative": max(facts["error_relative"], known.get("error_relative", 0.0)),
            "error_tolerance": facts["error_tolerance"],
            "rows_checked": facts["rows_checked"] + known.get("rows_checked", 0),
        }
        self._checker = None

    def facts(self) -> dict[str, Any]:
        self._fold()
        key = {
            "case": {name: self._request[name] for name in ("operator", "problem", "threads", "cache")},
            "implementation": self._implementation.name,
            "source": source_hash(self._implementation.path),
            "versions": package_versions(),
        }
        return {"content_key": digest(key, 32), "prepare_s": self._prepare_s, **self._errors}

    def close(self) -> None:
        self._launches = None


def compare(request: Mapping[str, Any], phase: Callable[[str], None]) -> dict[str, Any]:
    """Compare both sides of ``request``; the fields of the record that were measured.

    Args:
        request: what :class:`OwnMaker` takes, ``unit``, and ``sides`` (implementation, label, python_path, with; a ``python_path``
            asks for a process of its own), ``budget_s``, ``margin``, ``confidence``.
        phase: told what is being done.

    Raises:
        Unsupported, IncorrectError: naming the side.
    """
    session = open_session(request)
    lots = random.Random(request["seed"])
    labels = [side["label"] for side in request["sides"]]
    two = any(side["python_path"] for side in request["sides"])
    phase("prepare")
    with contextlib.ExitStack() as stack:
        makers = []
        for side in request["sides"]:
            with _naming(side["label"]):
                maker = _other_process(request, side) if two else OwnMaker(request, side["implementation"], session)
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
            **({"leg_s": TWO_PROCESS_LEG_S} if two else {}),
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


def open_session(request: Mapping[str, Any]) -> Session:
    """The unit of a request, opened in this process and seeded."""
    session = choose_unit(request["unit"]).session()
    session.use(request["threads"])
    torch.manual_seed(request["seed"])
    return session


def _other_process(request: Mapping[str, Any], side: Mapping[str, Any]) -> Maker:
    from ridgeline.bench.side_process import OtherMaker

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
