"""A unit: one physical card or host that cases run on, and a session on it inside the worker.

The runner, the plan, the statistics and the store know only these four small classes. A new kind of hardware is one
subclass of each: :class:`Unit` in the process that plans, :class:`Session`, :class:`Timer` and :class:`Watch` in the
worker that measures.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ridgeline.analytical.device import Device
from ridgeline.analytical.problem import Problem
from ridgeline.results.measurement import Conditions, Placement

if TYPE_CHECKING:
    from ridgeline.kernels.registry import Run, Tensors


class UnitError(ValueError):
    """A unit that does not exist or cannot be used. One line: what, why, what to do."""


class UnitLostError(RuntimeError):
    """The unit went away while it was used: a card that fell off the bus, a driver that was replaced."""


class Timer(ABC):
    """A clock for launches."""

    name: str
    """Name of the protocol's timer; times of different timers are never compared."""

    @abstractmethod
    def time(self, launch: Callable[[int], None], launches: int) -> float:
        """Seconds that ``launches`` launches took together."""

    def block(self, launch: Callable[[int], None], launches: int, samples: int) -> list[float]:
        """Seconds of each of ``samples`` samples of ``launches`` launches; a timer that can overlaps them."""
        return [self.time(launch, launches) for _ in range(samples)]


@dataclass(frozen=True)
class Observed:
    """What was seen of the machine during a block."""

    conditions: Conditions = field(default_factory=Conditions)
    cause: str = ""
    """What else than the kernel shaped the block, so that it must not count; empty for none."""


class Watch(ABC):
    """Looks at the machine from the beginning of a block to its end."""

    @abstractmethod
    def begin(self) -> None:
        """Called just before the first launch of a block."""

    @abstractmethod
    def end(self) -> Observed:
        """Called just after the last one."""

    def end_among(self, total: Callable[[float], float]) -> Observed:
        """As :meth:`end`, for one rank of several; every rank calls it.

        Args:
            total: processor seconds of all ranks during the block, from those of this process.
        """
        return self.end()


class Unwatched(Watch):
    """For where nothing is to be seen: a loop under test, or a probe of a few milliseconds."""

    def begin(self) -> None:
        """Nothing to note."""

    def end(self) -> Observed:
        """Nothing was seen."""
        return Observed()


class Session(ABC):
    """A unit as the worker uses it: where tensors live, what times launches, what watches the machine."""

    torch_device: str
    """torch device type: ``cpu`` or ``cuda``; the session has made its own card the current one."""
    timer: Timer
    watch: Watch
    no_meter: str = ""
    """Why no meter of this host speaks of this unit; empty where one may."""
    card_uuid: str | None = None
    """UUID of the card, by which its energy meter is found; ``None`` for a host."""

    @abstractmethod
    def use(self, threads: int, rank: int = 0) -> None:
        """Get ready for a case that may use ``threads`` host threads in each rank, as its rank ``rank``."""

    @abstractmethod
    def place(self, tensors: Tensors) -> Tensors:
        """The tensors, made on the CPU, in the memory of the unit."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until everything launched has ended.

        Raises:
            UnitLostError: where the unit is gone.
        """

    def settle(self) -> None:
        """Before something is timed: as :meth:`synchronize`, and wait for host threads that would take its processors."""
        self.synchronize()

    def clock(self) -> float:
        """Seconds, for budgets."""
        import time

        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait, so that a disturbance can pass."""
        import time

        time.sleep(seconds)

    def peak_memory_bytes(self) -> float | None:
        """Largest allocation on the unit since :meth:`use`; ``None`` where that is the worker's resident size."""
        return None

    def free_bytes(self) -> float | None:
        """Memory of the unit that is free; ``None`` where it is the host's own."""
        return None

    def interruption(self) -> str:
        """What else than the kernels shaped what was timed since the last call, for samples too short to be watched.

        One cause; empty for none.
        """
        return ""

    def begin_case(self, operator: str, implementation: str, seed: int) -> None:  # noqa: B027  (a card does not ask)
        """Told before a case is prepared."""

    def bind(self, run: Run) -> Run:
        """A prepared ``run`` as this unit executes it; nearly always itself."""
        return run

    def unattended(self, launch: Callable[[int], None], launch_s: float, rotation: int) -> Callable[[int], None]:
        """``launch`` in a form that keeps the unit busy however slow the host is, for long loads that are not timed.

        Args:
            launch: launches so many times.
            launch_s: seconds of one.
            rotation: launches after which the same buffers come again.
        """
        return launch

    def check_present(self, losses: int) -> None:
        """Look whether the unit can be used, after a fault.

        Args:
            losses: how often this run has lost it.

        Raises:
            UnitLostError: where it is gone.
        """
        import torch

        self.place({"present": torch.ones(1)})
        self.synchronize()

    def close(self) -> None:  # noqa: B027  (most have nothing to put back)
        """Leave the process as the session found it."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def profile(self, launch: Callable[[int], None]) -> Mapping[str, Any]:
        """Fields of the record that a profiler gives (``kernel_s``, ``kernels_per_launch``); empty without one."""
        return {}


@dataclass(frozen=True)
class RoofSpec:
    """A case that measures a ceiling of a unit."""

    problem: Problem
    implementation: str
    threads: int = field(default=1)


@dataclass(frozen=True)
class Member:
    """What one rank of a placement runs on."""

    spec: str
    """:attr:`Unit.spec` that its worker opens."""
    unit: str
    """Hash of the card or host: its lock."""
    threads: int
    """Host threads that the rank may use."""


class Unit(ABC):
    """A card or host as the planning process sees it. It imports no torch and touches no card."""

    spec: str
    """What the worker opens the same unit by, and a user chooses it by: ``cpu``, ``cuda:1``, ``replay:trace.json``."""
    device: Device
    threads: int
    """Host threads that cases may use."""
    torch_device: str
    timer: str
    """Name of the timer that its sessions use."""

    @property
    @abstractmethod
    def placement(self) -> Placement:
        """One rank on this unit."""

    def members(self, ranks: int) -> Sequence[Member]:
        """What each of ``ranks`` ranks runs on, the leader first.

        Raises:
            UnitError: where there is not enough for all of them.
        """
        if ranks > 1:
            raise UnitError(f"{ranks} ranks: {self.spec} runs one rank only")
        return (Member(self.spec, self.placement.unit, self.threads),)

    def placement_of(self, ranks: int) -> Placement:
        """``ranks`` ranks on this unit and, where each needs a card of its own, on those beside it.

        Raises:
            UnitError: as :meth:`members`.
        """
        units = sorted({member.unit for member in self.members(ranks)})
        together = hashlib.sha256(f"ridgeline units {' '.join(units)}".encode()).hexdigest()[:12]
        unit = units[0] if len(units) == 1 else together
        return self.placement.model_copy(update={"ranks": ranks, "unit": unit})

    @property
    @abstractmethod
    def last_level_cache_bytes(self) -> float:
        """Capacity of the outermost cache: what a cold protocol passes through."""

    def cache_bytes_per_rank(self, ranks: int) -> float:
        """What a cold rank passes through of :attr:`last_level_cache_bytes`: ranks on one unit pass through it together.

        Raises:
            UnitError: as :meth:`members`.
        """
        units = {member.unit for member in self.members(ranks)}
        return self.last_level_cache_bytes * len(units) / ranks

    @abstractmethod
    def roofs(self) -> Sequence[RoofSpec]:
        """The cases whose fastest results are the measured ceilings, all with a warm cache."""

    @abstractmethod
    def session(self) -> Session:
        """Open the unit in this process, which must be a worker's.

        Raises:
            UnitError: where it cannot be opened.
        """

    def facts(self) -> Mapping[str, str]:
        """What else decides a number here, such as driver and power cap; part of the content key and the manifest."""
        return {}
