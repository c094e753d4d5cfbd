"""Hardware counters and kernel times that a profiler took, joined to a kernel that was measured.

A profiler serialises kernels, replays them and holds clocks: its times explain a measurement and never replace one.
Every kernel and every launch of the profile is kept; figures of one call are derived when a record is read.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ridgeline.results.fact import Fact, StoredRecord

CounterTool = Literal["ncu", "rocprof", "rocprofv3", "proton", "torch-profiler"]


class LaunchCounters(Fact):
    """What was counted in one launch of one kernel; ``None`` where the profile does not hold it."""

    launches: int = Field(default=1, ge=1)
    """Launches that this entry sums up: more than one where the tool states sums only. Times and bytes are of all."""
    kernel_s: float | None = Field(default=None, gt=0.0)
    dram_read_bytes: float | None = Field(default=None, ge=0.0)
    dram_write_bytes: float | None = Field(default=None, ge=0.0)
    dram_bytes: float | None = Field(default=None, ge=0.0)
    """Read and written; also where the tool states only their sum."""
    l2_bytes: float | None = Field(default=None, ge=0.0)
    """Requested of L2, read and written."""
    l2_hit_percent: float | None = Field(default=None, ge=0.0, le=100.0)
    occupancy_percent: float | None = Field(default=None, ge=0.0, le=100.0)
    """Warps that were resident, of the most that can be (achieved occupancy)."""
    issue_percent: float | None = Field(default=None, ge=0.0, le=100.0)
    """Cycles in which a scheduler issued an instruction; on AMD, in which the vector ALUs were busy."""
    registers_per_thread: int | None = Field(default=None, ge=0)


class KernelCounters(Fact):
    """One kernel by the name that the tool gives it."""

    kernel: str
    launches: tuple[LaunchCounters, ...] = Field(min_length=1)

    @property
    def n_launches(self) -> int:
        """Launches that the profile holds."""
        return sum(launch.launches for launch in self.launches)


class Counters(StoredRecord):
    """A profile of one implementation on one problem."""

    kind: Literal["counters"] = "counters"
    tool: CounterTool
    source_file: str
    """Name of the file, without its folder."""
    source_digest: str
    """SHA-256 of the file."""
    case_id: str = ""
    """The case it was joined to; empty where operator, implementation and problem name the kernel."""
    operator: str
    implementation: str
    problem: dict[str, int | float | bool | str]
    problem_label: str
    device: str
    """Id of the device that the joined measurement ran on."""
    calls: int = Field(ge=1)
    """Calls of the implementation that the profile covers."""
    notes: tuple[str, ...] = ()
    """How figures came about that the tool does not state as such."""
    kernels: tuple[KernelCounters, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Counters:
        names = [kernel.kernel for kernel in self.kernels]
        if len(set(names)) != len(names):
            raise ValueError("each kernel once")
        for kernel in self.kernels:
            if kernel.n_launches % self.calls:
                raise ValueError(
                    f"{kernel.n_launches} launches of {kernel.kernel} are not a whole number in each of {self.calls} calls"
                )
        facts = set(LaunchCounters.model_fields) - {"launches"}
        if all(getattr(launch, name) is None for k in self.kernels for launch in k.launches for name in facts):
            raise ValueError("a profile without a single figure")
        return self
