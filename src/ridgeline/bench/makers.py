"""What makes one side of a contest in the process it is called in."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any
from typing import Protocol as Interface

import torch

from ridgeline.analytical.operators import make_problem
from ridgeline.analytical.quantities import digest
from ridgeline.bench.checks import Checker
from ridgeline.bench.devices.choose import choose_unit
from ridgeline.bench.devices.unit import Session
from ridgeline.bench.environment import package_versions
from ridgeline.bench.launches import RotatingLaunches, make_launches
from ridgeline.bench.quads import OwnSide, Side
from ridgeline.kernels.registry import get_implementation, get_operator
from ridgeline.results.sources import source_hash

PADDING_BYTES = 1 << 20
"""Allocations of up to this size, drawn by lot, stand before every set of buffers, so that addresses differ."""


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
        request: operator, problem, threads, cache, cache_bytes, seed; config where it is not the default,
            memory_limit_bytes where there is one.
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
            config=self._request.get("config", {}),
            memory_limit_bytes=self._request.get("memory_limit_bytes"),
        )
        self._launches.must_stay_cold()
        if self._prepare_s is None:
            self._prepare_s = prepare_s
            self._launches.check_all_ways("before timing")
        return OwnSide(self._launches, self._session, self._request.get("warm_s", 0.0))

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
            **({"config": dict(config)} if (config := self._request.get("config")) else {}),
        }
        return {"content_key": digest(key, 32), "prepare_s": self._prepare_s, **self._errors}

    def close(self) -> None:
        self._launches = None


def session_of(request: Mapping[str, Any]) -> Session:
    """The unit of a request, opened in this process and seeded."""
    session = choose_unit(request["unit"]).session()
    session.use(request["threads"])
    torch.manual_seed(request["seed"])
    return session
