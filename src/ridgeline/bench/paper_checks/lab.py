"""What a check may use: errors against the reference, ratios of interleaved times, the strongest of several peers."""

from __future__ import annotations

import contextlib
import math
import operator
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ridgeline.analytical.problem import Problem
    from ridgeline.bench.devices.unit import Session
    from ridgeline.bench.makers import Maker
    from ridgeline.bench.quads import Side as TimedSide
    from ridgeline.kernels.registry import Implementation

CONFIDENCE = 0.99
BUDGET_S = 5.0
"""Seconds that one ratio takes by default."""
STRONGEST_ROUNDS, STRONGEST_S = 5, 10.0
"""Legs of each side, by turns, that say which is the fastest; after so many seconds two are enough."""
HOPELESS = 3.0
"""Times the first launch of the fastest side that a side's own takes which is not timed further."""


@dataclass(frozen=True)
class Ratio:
    """Time of the slow side over time of the fast one."""

    value: float
    """Median of the quads."""
    low: float | None
    high: float | None
    """Ends of the 99 % interval on the median; ``None`` where there were too few quads for one."""
    n_quads: int
    slow_s: float
    fast_s: float
    """Median seconds per call of each side."""

    def __str__(self) -> str:
        interval = f" [{self.low:.3g}, {self.high:.3g}]" if self.low is not None and self.high is not None else ""
        return f"{self.value:.3g}x{interval}"


@dataclass(frozen=True)
class ImplementationSide:
    """A registered implementation on a problem."""

    problem: Problem
    implementation: Implementation
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.implementation.name


@dataclass(frozen=True)
class FunctionSide:
    """Callables without arguments, called by turns; nothing checks what they compute."""

    functions: tuple[Callable[[], object], ...]
    label: str


Side = ImplementationSide | FunctionSide


class Lab:
    """Where a check measures.

    Args:
        session: the unit; its threads are in use.
        threads: host threads that kernels may use.
        cache_bytes: capacity of the outermost cache: what a cold side passes through between uses of a buffer.
        seed: of all random values.
    """

    def __init__(self, session: Session, threads: int, cache_bytes: float, seed: int) -> None:
        self.threads = threads
        self._session = session
        self.cache_bytes = cache_bytes
        self._seed = seed
        self._draws = 0
        self.sources: set[Path] = set()
        """Files of the operators and implementations that were used."""

    @property
    def torch_device(self) -> str:
        """torch device type: ``cpu`` or ``cuda``."""
        return self._session.torch_device

    @cached_property
    def generator(self) -> torch.Generator:
        """Random numbers on the CPU, the same in every run."""
        import torch

        return torch.Generator().manual_seed(self._seed)

    def implementation(
        self,
        operator_name: str,
        problem: Problem | Mapping[str, Any],
        implementation_name: str,
        config: Mapping[str, Any] | None = None,
    ) -> ImplementationSide:
        """A registered implementation as a side of :meth:`ratio`.

        Raises:
            RegistryError: for a name that is not registered.
            ProblemError: for parameters that are no problem of the operator.
            Unsupported: where it does not take this problem on this device.
        """
        from ridgeline.analytical.operators import make_problem
        from ridgeline.kernels.registry import Unsupported, get_implementation

        found = problem if not isinstance(problem, Mapping) else make_problem(operator_name, problem)
        chosen = get_implementation(operator_name, implementation_name)
        reason = chosen.unsupported_reason(found, self.torch_device)
        if reason is not None:
            raise Unsupported(f"{implementation_name}: {reason}")
        self._use(operator_name, chosen)
        return ImplementationSide(found, chosen, dict(config or {}))

    def function(
        self, functions: Callable[[], object] | Sequence[Callable[[], object]], label: str = ""
    ) -> FunctionSide:
        """Any callable as a side of :meth:`ratio`; several are called by turns.

        For a cold cache give as many, each on buffers of its own, as pass through three times the outermost cache.
        """
        several = (functions,) if callable(functions) else tuple(functions)
        if not several:
            raise ValueError("function: no callable was given")
        return FunctionSide(several, label or getattr(several[0], "__name__", "function"))

    def worst_error(
        self,
        operator_name: str,
        problem: Problem | Mapping[str, Any],
        implementation_name: str,
        config: Mapping[str, Any] | None = None,
    ) -> float:
        """Largest relative L2 error against the operator's reference, of two sets of fresh inputs.

        Outputs are poisoned before. Of large problems sampled rows are compared (:class:`ridgeline.bench.checks.Checker`).

        Raises:
            Unsupported: where it does not take this problem.
            IncorrectError: for an output that is not finite or not written, or an input that was written to.
        """
        from ridgeline.bench.launches import make_launches
        from ridgeline.kernels.registry import get_operator

        side = self.implementation(operator_name, problem, implementation_name, config)
        launches, checker, _ = make_launches(
            get_operator(operator_name),
            side.problem,
            side.implementation,
            self._session,
            threads=self.threads,
            cold=False,
            cache_bytes=self.cache_bytes,
            seed=self._next_seed(),
            config=side.config,
        )
        checker.tolerance = math.inf  # the check judges
        launches.check_all_ways("check")
        return checker.error_relative

    def ratio(self, slow: Side, fast: Side, *, cold: bool = True, budget_s: float = BUDGET_S) -> Ratio:
        """Median of time(slow) / time(fast) over interleaved quads; all of the budget is used.

        Registered implementations are checked before and after, and rotate through buffers of their own: ``cold``
        through more than three times the outermost cache, else two sets. The memory that this takes is thrice the
        cache for each side.

        Raises:
            IncorrectError: where an implementation's output is above its tolerance.
            Unsupported: where a side cannot be prepared.
        """
        from ridgeline.analytical.comparison import log_ratios, sequential_interval
        from ridgeline.bench.quads import QuadSettings, measure_quads

        seed = self._next_seed()
        self._session.use(self.threads)  # what helped earlier checks does not help here
        lots = random.Random(seed)
        with contextlib.ExitStack() as stack:
            # Time of B over time of A: A is the fast side.
            makers = [stack.enter_context(self._maker(side, cold, seed)) for side in (fast, slow)]

            def arrange(arrangement: int) -> tuple[TimedSide, TimedSide]:
                made: dict[int, TimedSide] = {}
                for index in lots.sample((0, 1), 2):
                    made[index] = makers[index].make(arrangement)
                return made[0], made[1]

            settings = QuadSettings(budget_s, margin=0.0, confidence=CONFIDENCE, seed=seed, whole_budget=True)
            quads = measure_quads(arrange, settings, interruption=self._session.interruption)
            for maker in makers:
                maker.check("after timing")
        used = quads.used
        a_s, b_s = [quads.a_s[i] for i in used], [quads.b_s[i] for i in used]
        interval = sequential_interval(log_ratios(a_s, b_s), quads.looks, CONFIDENCE)
        return Ratio(
            interval.ratio, interval.low, interval.high, interval.n_quads,
            slow_s=statistics.median(sum(legs) / 2 for legs in b_s), fast_s=statistics.median(sum(legs) / 2 for legs in a_s),
        )  # fmt: skip

    def settle(self) -> None:
        """Wait until no thread that another kernel left spinning takes a processor from what is timed next."""
        self._session.settle()

    def strongest(self, sides: Sequence[Side], *, cold: bool = True) -> Side:
        """The fastest of several, by the median of a few legs of each, taken by turns.

        Sides that cannot be prepared here are passed over.

        Raises:
            Unsupported: where none can.
        """
        from ridgeline.bench.quads import LEG_S
        from ridgeline.kernels.registry import Unsupported

        seed = self._next_seed()
        self._session.use(self.threads)
        refusals: list[str] = []
        with contextlib.ExitStack() as stack:
            timed: list[tuple[Side, TimedSide, list[float]]] = []
            for side in sides:
                try:
                    made = stack.enter_context(self._maker(side, cold, seed)).make(0)
                except Unsupported as error:
                    refusals.append(f"{side.label}: {error}")
                    continue
                timed.append((side, made, [_leg(made, 1)]))
            if not timed:
                raise Unsupported("no peer runs here: " + "; ".join(refusals))
            nearest = min(legs[0] for _, _, legs in timed)
            # Launches of a second are not repeated to learn that they are the slower ones.
            timed = [entry for entry in timed if entry[2][0] <= HOPELESS * nearest]
            began = time.monotonic()
            for number in range(STRONGEST_ROUNDS if len(timed) > 1 else 0):
                for _, made, legs in timed:
                    legs.append(_leg(made, max(1, math.ceil(LEG_S / max(legs[0], 1e-9)))))
                if number > 0 and time.monotonic() - began > STRONGEST_S:
                    break
        return min(timed, key=lambda entry: statistics.median(entry[2]))[0]

    def _use(self, operator_name: str, implementation: Implementation) -> None:
        from ridgeline.kernels.registry import get_operator

        self.sources.add(implementation.path)
        self.sources.add(Path(sys.modules[type(get_operator(operator_name)).__module__].__file__ or "").resolve())

    def _next_seed(self) -> int:
        self._draws += 1
        return self._seed + 1000 * self._draws

    @contextlib.contextmanager
    def _maker(self, side: Side, cold: bool, seed: int) -> Iterator[Maker]:
        from ridgeline.bench.makers import OwnMaker

        maker: Maker
        if isinstance(side, FunctionSide):
            maker = _FunctionMaker(side, self._session)
        else:
            request = {
                "operator": side.problem.operator,
                "problem": side.problem.to_dict(),
                "threads": self.threads,
                "cache": "cold" if cold else "warm",
                "cache_bytes": self.cache_bytes,
                "seed": seed,
                "config": side.config,
            }
            maker = OwnMaker(request, side.implementation.name, self._session)
        try:
            yield maker
        finally:
            maker.close()


def _leg(side: TimedSide, count: int) -> float:
    """Seconds per launch of one leg."""
    side.begin(count + 1)
    seconds = side.leg(count) / count
    side.end()
    return seconds


class _FunctionMaker:
    """Makes a side of callables; their buffers are the check's own, so every arrangement is the same."""

    def __init__(self, side: FunctionSide, session: Session) -> None:
        from ridgeline.bench.callables import CallableLaunches

        self._session = session
        self._launches = CallableLaunches(operator.call, [(function,) for function in side.functions])

    def make(self, arrangement: int) -> TimedSide:
        from ridgeline.bench.quads import OwnSide

        if arrangement == 0:
            self._launches.launch(2)
            self._session.synchronize()
        return OwnSide(self._launches, self._session)

    def check(self, when: str) -> None:
        """There is no reference."""

    def facts(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """Nothing is held."""


@contextlib.contextmanager
def open_lab(device: str | None = None, threads: int | None = None, seed: int = 0) -> Iterator[Lab]:
    """A lab on a unit of this machine, in this process; kernels are loaded.

    Args:
        device: the unit, as for ``ridgeline run --device``.
        threads: host threads that kernels may use; all by default.
        seed: of all random values.

    Raises:
        UnitError: for a unit that is not here.
    """
    import torch

    from ridgeline.bench.devices.choose import choose_unit
    from ridgeline.kernels.registry import load

    load()
    unit = choose_unit(device)
    with unit.session() as session:
        session.use(threads or unit.threads)
        torch.manual_seed(seed)
        yield Lab(session, threads or unit.threads, unit.last_level_cache_bytes, seed)
