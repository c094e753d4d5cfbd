"""Any callable of the user's own, measured with the rigour of a registered kernel, without registering anything.

``ridgeline.measure(fn)`` times it in this process; ``ridgeline measure FILE.py:function`` does it in a worker, where a
crash, a hang or too much memory is a status. Nothing checks its results: there is no reference. Importing this module
needs no torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ridgeline.analytical.device import Device
from ridgeline.analytical.roofline import Bound, bound
from ridgeline.analytical.work import Work
from ridgeline.bench.timing import Timing
from ridgeline.bench.timing import measure as time_blocks
from ridgeline.results.measurement import Conditions, LeftOutBlock
from ridgeline.workloads.suite import Settings

if TYPE_CHECKING:
    from ridgeline.bench.devices.unit import Session

TARGET_RELATIVE = 0.02
BUDGET_S = 5.0


class CallableLaunches:
    """Launches of a callable, with its argument tuples used in turn."""

    def __init__(self, function: Callable[..., object], arguments: Sequence[tuple[Any, ...]]) -> None:
        self._function = function
        self._cycle = itertools.cycle(arguments or [()])

    def launch(self, count: int) -> None:
        """Call ``count`` times."""
        function = self._function
        for arguments in itertools.islice(self._cycle, count):
            function(*arguments)

    def before_block(self, count: int) -> None:
        """Nothing is renewed: the arguments are the user's."""

    def after_block(self) -> None:
        """Nothing is checked: there is no reference."""


@dataclass(frozen=True)
class Measured:
    """How fast a callable is."""

    median_s: float
    """Seconds per call: median of the block medians."""
    interval_low_s: float | None
    interval_high_s: float | None
    """Ends of the 95 % interval on the median; ``None`` where there are too few independent blocks."""
    unstable_reason: str
    """Empty when the interval met its target; else why not, and how many more seconds it would take."""
    samples_s: tuple[tuple[float, ...], ...]
    """Seconds per call, a sequence per block. Nothing is dropped."""
    calls_per_sample: int
    conditions: tuple[Conditions, ...]
    """What the machine was doing, one per block."""
    left_out: tuple[LeftOutBlock, ...]
    """Blocks that do not count, each with its cause."""
    device: str
    """Id of the SKU."""
    timer: str
    threads: int
    flop_per_s: float | None = None
    bytes_per_s: float | None = None
    """From ``work``; ``None`` without it, or where it counts none."""
    bound_s: float | None = None
    bound_by: str | None = None
    roof_fraction: float | None = None
    """Against the measured ceilings that were given."""

    @property
    def half_width_relative(self) -> float | None:
        """Half of the interval's width over the median."""
        if self.interval_low_s is None or self.interval_high_s is None:
            return None
        return (self.interval_high_s - self.interval_low_s) / 2.0 / self.median_s


def measure(
    function: Callable[..., object],
    *,
    arguments: Sequence[tuple[Any, ...]] = (),
    work: Work | None = None,
    target_relative: float = TARGET_RELATIVE,
    budget_s: float = BUDGET_S,
    threads: int | None = None,
    device: str | None = None,
    roofs: Device | None = None,
) -> Measured:
    """Time a callable in this process.

    Args:
        function: what to call; on a GPU it must launch on the current stream.
        arguments: tuples of positional arguments, used in turn from call to call. Give several, on buffers of their
            own, so that addresses change; together more than three times the last-level cache for a cold cache.
        work: what one call does, for rates and the bound.
        target_relative: stop when half the interval's width over the median is below this.
        budget_s: seconds after which it stops anyway.
        threads: host threads it may use; the process is pinned to as many processors while it is measured.
        device: the unit, as for ``ridgeline run --device``.
        roofs: a device with measured ceilings (``Store().device("latest")``), for the bound.

    Raises:
        UnitError: for a unit that is not here.
        ValueError: for more threads than there are, or a target or a budget that cannot be.
    """
    from ridgeline.bench.devices.choose import choose_unit

    unit = choose_unit(device)
    if threads is not None and not 1 <= threads <= unit.threads:
        raise ValueError(f"threads: {threads}: {unit.device.name} has 1 to {unit.threads}")
    settings = Settings(target_relative=target_relative, budget_s=budget_s)
    with unit.session() as session:
        session.use(threads or unit.threads)
        timing = time_in(session, CallableLaunches(function, arguments), settings)
    return describe(timing, unit.device.id, unit.timer, threads or unit.threads, work, roofs)


def time_in(session: Session, launches: CallableLaunches, settings: Settings) -> Timing:
    """Call twice, which compiles and fills caches, and then time blocks."""
    launches.launch(2)
    session.synchronize()
    return time_blocks(launches, session.timer, settings, session.watch, session.clock, session.sleep)


def describe(
    timing: Timing, device: str, timer: str, threads: int, work: Work | None, roofs: Device | None
) -> Measured:
    """A timing with the rates and the bound that follow from ``work`` and ``roofs``."""
    summary = timing.summary
    limit = bound_of(work, roofs, threads)
    flop, moved = (float(work.flop), float(work.bytes)) if work is not None else (0.0, 0.0)
    return Measured(
        median_s=summary.median,
        interval_low_s=summary.low,
        interval_high_s=summary.high,
        unstable_reason=timing.unstable_reason,
        samples_s=timing.blocks,
        calls_per_sample=timing.launches_per_sample,
        conditions=timing.conditions,
        left_out=timing.left_out,
        device=device,
        timer=timer,
        threads=threads,
        flop_per_s=flop / summary.median if flop > 0.0 else None,
        bytes_per_s=moved / summary.median if moved > 0.0 else None,
        bound_s=limit.seconds if limit else None,
        bound_by=limit.bound_by if limit else None,
        roof_fraction=limit.seconds / summary.median if limit else None,
    )


def bound_of(work: Work | None, roofs: Device | None, threads: int) -> Bound | None:
    """The bound of a call whose bytes may stay in the smallest cache that holds them; ``None`` without ceilings."""
    if work is None or roofs is None:
        return None
    level = roofs.level_for(float(work.bytes), "warm", threads)
    return bound(work, roofs.select(("measured",), threads), level.name)
