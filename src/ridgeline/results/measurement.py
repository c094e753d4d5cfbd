"""The measurement: one implementation, on one problem, in one process, with everything needed to judge it again later.

Only what was observed is stored. Medians, intervals, bounds and roof fractions are derived when a record is read
(:mod:`ridgeline.results.views`), so that a corrected data sheet or a better statistic corrects all history. A
measurement that contradicts itself cannot be built.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from ridgeline.results.energy import EnergyFacts
from ridgeline.results.fact import Fact, StoredRecord

Status = Literal["ok", "unsupported", "incorrect", "impossible", "unstable", "out_of_memory", "timeout", "crashed"]
"""How a measurement ended. ``unstable``: right, but the interval missed its target within the time budget."""

TIMED: frozenset[str] = frozenset({"ok", "unstable", "impossible"})
"""Statuses of measurements that carry samples."""


class Protocol(Fact):
    """How a number was taken. Numbers of different protocols are never compared."""

    timer: str
    """Clock that took the samples, such as ``perf_counter``."""
    cache: Literal["cold", "warm"]
    """cold: operands come from main memory, by rotating buffers; warm: from the smallest level that holds them."""
    threads: int = Field(ge=1)
    """Threads the kernel may use, in each rank."""
    version: int = Field(ge=1)
    """Version of the measuring procedure; a change that can move numbers raises it."""


class Placement(Fact):
    """Where a case runs."""

    device: str
    """Id of the SKU."""
    torch_device: str
    """torch device type: cpu or cuda."""
    unit: str
    """Hash that tells this physical card or host, or this set of cards, from others of the same SKU."""
    ranks: int = Field(default=1, ge=1)
    """Processes that take part."""


class RoofBeside(Fact):
    """A ceiling as it was seen just before and just after a case."""

    limit: str
    """Name of the ceiling, such as ``DRAM`` or ``vector float32``."""
    values_per_s: tuple[float, ...] = Field(min_length=1)
    """Block medians of the rate, bytes or operations per second."""


class Interference(Fact):
    """What else happened on the machine while the samples were taken: schema 1, before every block had its own."""

    steal_s: float | None = None
    """CPU time the hypervisor gave to others."""
    involuntary_switches: int | None = None
    """Context switches forced on the worker."""


class Conditions(Fact):
    """What the machine was doing while one block was timed; ``None`` where nothing on it tells."""

    steal_s: float | None = None
    """CPU time the hypervisor gave to others, over all processors."""
    involuntary_switches: int | None = None
    """Context switches forced on the worker."""
    load_other: float | None = None
    """Processors that other processes kept busy, as a number of processors."""
    clock_mhz: float | None = None
    """Core clock of the CPU, or SM clock of a GPU, median of the samples taken in the block."""
    memory_clock_mhz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    limited_s: float | None = None
    """Time for which a limit (power, thermal, reliability) held the clocks down, from the driver's counters."""


class LeftOutBlock(Fact):
    """A block whose samples are stored but not used, because something else than the kernel shaped them."""

    block: int = Field(ge=0)
    """Index into ``samples_s``."""
    cause: str
    """What shaped it, such as ``other processes`` or ``power limit``."""


class Measurement(StoredRecord):
    """One implementation, on one problem, in one process."""

    kind: Literal["measurement"] = "measurement"
    role: Literal["case", "roof", "tuning"] = "case"
    """roof: a ``stream`` or ``fma`` case that was run to find a ceiling; tuning: a candidate of a search for the best
    configuration."""
    case_id: str
    """Hash of problem, implementation, placement and protocol."""
    content_key: str
    """Hash of all that decides the number: the case, the kernel's source and all it reaches, versions, flags."""
    operator: str
    implementation: str
    baseline: str = ""
    """Implementation that this one is compared with; empty where the operator names none for this precision."""
    problem: dict[str, int | float | bool | str]
    problem_label: str
    config: dict[str, int | float | bool | str] = {}
    """Tuned configuration, part of the content key; empty for the implementation's default."""
    tf32: bool = False
    """Whether float32 operands were rounded to TF32 before they were multiplied: its roof is then that of TF32."""
    papers: tuple[str, ...] = ()
    structure_figures: dict[str, float] = {}
    structure_digest: str = ""
    placement: Placement
    protocol: Protocol
    process: int = Field(default=0, ge=0)
    """Index of the fresh process; processes are the outer statistical blocks."""
    status: Status
    reason: str = ""
    """Why the status is not ``ok``; one line."""
    samples_s: tuple[tuple[float, ...], ...] = ()
    """Seconds per launch, a sequence per block; of several ranks those of the slowest in each. Nothing is dropped."""
    conditions: tuple[Conditions, ...] = ()
    """One per block; empty where none were taken."""
    left_out: tuple[LeftOutBlock, ...] = ()
    """Blocks that do not count, each with its cause."""
    launches_per_sample: int = Field(default=1, ge=1)
    """Launches timed together in one sample, where one alone is too short for the clock."""
    error_relative: float | None = None
    """||out - reference|| / ||reference||, the worst of all checks."""
    error_worst: float | None = None
    """Largest |out - reference| over the root mean square of the reference."""
    error_tolerance: float | None = None
    rows_checked: int = Field(default=0, ge=0)
    """Rows of the output compared with the reference, before, between and after the timed blocks."""
    prepare_s: float | None = None
    """Seconds to pack, quantise and compile."""
    working_set_bytes: float | None = None
    """Bytes that one launch touches."""
    peak_memory_bytes: float | None = None
    """Largest resident size of the worker while it ran the case; of several ranks the sum."""
    peak_device_memory_bytes: float | None = None
    """Largest allocation on the GPU while it ran the case."""
    kernel_s: float | None = None
    """Seconds per launch in which the GPU was busy with the launch's kernels, from the profiler."""
    kernels_per_launch: float | None = None
    """Kernels that one launch put on the GPU, from the profiler."""
    roofs_beside: tuple[RoofBeside, ...] = ()
    interference: Interference = Interference()
    energy: EnergyFacts | None = None
    """Energy of one launch with its intervals, or the meter's reason for having none."""
    energy_j: float | None = None
    """Joules per launch, gross: schema 1, and derived from ``energy`` when a record is read."""
    energy_reason: str = ""
    """Why there is no energy figure."""

    @model_validator(mode="after")
    def _consistent(self) -> Measurement:
        if self.status != "ok" and not self.reason:
            raise ValueError(f"status {self.status} needs a reason")
        if self.status in TIMED:
            if not self.samples_s or not all(self.samples_s):
                raise ValueError(f"status {self.status} needs samples in every block")
            if not all(math.isfinite(s) and s > 0.0 for block in self.samples_s for s in block):
                raise ValueError("samples must be positive times")
            if self.error_relative is None or self.error_tolerance is None or self.rows_checked == 0:
                raise ValueError(f"status {self.status} needs an error against the reference")
            if self.error_relative > self.error_tolerance:
                raise ValueError("an error above the tolerance is `incorrect`, not timed")
            if self.conditions and len(self.conditions) != len(self.samples_s):
                raise ValueError("conditions are one per block")
            out = {left.block for left in self.left_out}
            if len(out) != len(self.left_out) or any(block >= len(self.samples_s) for block in out):
                raise ValueError("a block that is left out must be one of samples_s, once")
            if len(out) == len(self.samples_s):
                raise ValueError("every block is left out: that is no measurement")
        elif self.samples_s:
            raise ValueError(f"status {self.status} must not carry samples")
        measured = self.energy_j is not None or (self.energy is not None and self.energy.gross_j is not None)
        if not measured and not self.energy_reason and self.status in TIMED:
            raise ValueError("a missing energy figure needs its reason")
        return self

    @property
    def used_samples_s(self) -> tuple[tuple[float, ...], ...]:
        """Samples of the blocks that count."""
        out = {left.block for left in self.left_out}
        return tuple(block for index, block in enumerate(self.samples_s) if index not in out)
