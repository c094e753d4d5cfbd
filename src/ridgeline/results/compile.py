"""The compile record: what a compiler made of one kernel for one architecture. It was compiled, not run.

Only what was read of the machine code is stored. Occupancy and issue bound are derived when a record is read
(:func:`derived`), so that a corrected rate corrects all history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from ridgeline.analytical.issue_bound import IssueBound, issue_bound
from ridgeline.analytical.multiprocessor import multiprocessors
from ridgeline.analytical.occupancy import Occupancy, occupancy
from ridgeline.results.fact import StoredRecord

CompileStatus = Literal["ok", "failed"]
Identity = tuple[str, str, int, int]


class CompiledCode(StoredRecord):
    """One kernel with its types, constants and configuration, compiled for one target."""

    kind: Literal["compile"] = "compile"
    target: str
    """The compiler's name of the architecture: sm_90, gfx942."""
    label: str
    """Operator, precision and tile."""
    kernel: str
    """Name of the function that was compiled."""
    asked_warps: int = Field(ge=1)
    """Warps of a program that the configuration asks for."""
    num_stages: int = Field(ge=0)
    """Depth of the software pipeline that the configuration asks for."""
    compiler: str
    """The compiler with its version, such as ``triton 3.8.0``."""
    status: CompileStatus
    reason: str = ""
    """Why it does not compile; one line."""
    num_warps: int | None = Field(default=None, ge=1)
    """Warps of a program as compiled, those included that specialisation adds."""
    registers: int | None = Field(default=None, ge=0)
    """Vector registers of a thread; on AMD of a lane, accumulation registers included."""
    spills_bytes: int | None = Field(default=None, ge=0)
    """Spilled registers of a thread."""
    shared_bytes: int | None = Field(default=None, ge=0)
    """Shared memory (LDS) of a program."""
    code_bytes: int | None = Field(default=None, ge=0)
    matrix_instructions: tuple[str, ...] = ()
    """Distinct opcodes of the matrix unit, with their modifiers."""
    asynchronous_copies: dict[str, int] = {}
    """Count by opcode of copies from global to shared memory past the registers."""
    instructions: dict[str, int] = {}
    """Count by opcode over the whole kernel."""
    main_loop: dict[str, int] = {}
    """The same over the main loop."""
    loop_results: dict[str, float] = {}
    """Results of one turn of the main loop by kind of instruction, over all lanes and warps of a program."""
    loop_matrix_flop: dict[str, float] = {}
    """Operations of the matrix unit in one turn by precision of the operands."""
    loop_reason: str = ""
    """Why the two above are incomplete; empty where they are not."""

    @model_validator(mode="after")
    def _consistent(self) -> CompiledCode:
        figures = (self.num_warps, self.registers, self.spills_bytes, self.shared_bytes, self.code_bytes)
        if self.status == "ok" and any(figure is None for figure in figures):
            raise ValueError("a kernel that compiled has warps, registers, spills, shared memory and a length")
        if self.status == "failed":
            if not self.reason:
                raise ValueError("status failed needs a reason")
            if any(figure is not None for figure in figures) or self.matrix_instructions or self.instructions:
                raise ValueError("status failed must not carry figures")
        return self

    @property
    def identity(self) -> Identity:
        """What is the same from night to night: the kernel with its configuration, and the target."""
        return (self.label, self.target, self.asked_warps, self.num_stages)

    @property
    def occupancy(self) -> Occupancy | None:
        """Programs that fit on one multiprocessor; ``None`` for a target without limits in the catalogue, or a failure."""
        unit = multiprocessors().get(self.target)
        if unit is None or self.registers is None or self.shared_bytes is None or self.num_warps is None:
            return None
        return occupancy(unit, registers=self.registers, shared_bytes=self.shared_bytes, warps=self.num_warps)

    @property
    def bound(self) -> tuple[IssueBound | None, str]:
        """Issue bound of the main loop, or ``None`` and why there is none."""
        unit = multiprocessors().get(self.target)
        if self.status != "ok":
            return None, "it does not compile"
        if self.loop_reason:
            return None, self.loop_reason
        if unit is None:
            return None, f"no rates of {self.target} are known"
        try:
            found = issue_bound(unit, self.loop_results, self.loop_matrix_flop)
        except ValueError as error:
            return None, str(error)
        return found, "" if found else "the main loop uses no pipe whose rate is known"


def derived(record: CompiledCode) -> dict[str, Any]:
    """A record as stored, with what follows from it: occupancy, what limits it, and the issue bound."""
    fits = record.occupancy
    bound, reason = record.bound
    return {
        **record.model_dump(mode="json"),
        "blocks_per_multiprocessor": fits.blocks if fits else None,
        "occupancy": fits.fraction if fits else None,
        "occupancy_limited_by": list(fits.limited_by) if fits else [],
        "loop_cycles": dict(bound.cycles) if bound else {},
        "overlapped_cycles": bound.overlapped_cycles if bound else None,
        "serial_cycles": bound.serial_cycles if bound else None,
        "issue_bound_by": bound.bound_by if bound else None,
        "overlapped_share": bound.overlapped_share if bound else None,
        "serial_share": bound.serial_share if bound else None,
        "not_counted": dict(bound.not_counted) if bound else {},
        "bound_reason": reason,
    }


# --- from night to night ----------------------------------------------------------------------------------------------

BOUND_MARGIN = 0.01
"""A bound that is worse by less is how the compiler happened to schedule."""


def newest_by_identity(records: Iterable[CompiledCode]) -> dict[Identity, CompiledCode]:
    """The last record of each kernel, configuration and target; ``records`` from the oldest to the newest."""
    return {record.identity: record for record in records}


def regressions(before: CompiledCode, after: CompiledCode) -> list[str]:
    """What got worse from one compilation of a kernel to the next; a few words each, with both figures."""
    if after.status == "failed":
        return [f"does not compile any more: {after.reason}"] if before.status == "ok" else []
    if before.status == "failed":
        return []
    found = []
    if (after.spills_bytes or 0) > (before.spills_bytes or 0):
        found.append(f"spills {after.spills_bytes} bytes per thread, was {before.spills_bytes}")
    for name, was, now in (
        ("matrix instruction", before.matrix_instructions, after.matrix_instructions),
        ("asynchronous copy", before.asynchronous_copies, after.asynchronous_copies),
    ):
        lost = sorted(set(was) - set(now))
        if lost:
            found.append(f"{name} {', '.join(lost)} is gone" + (f", now {', '.join(sorted(now))}" if now else ""))
    if _allocated(after) > _allocated(before):
        found.append(f"{after.registers} registers, was {before.registers}")
    fits, fitted = after.occupancy, before.occupancy
    if fits and fitted and fits.fraction < fitted.fraction:
        limits = " and ".join(fits.limited_by)
        found.append(f"occupancy {fits.fraction:.0%} by {limits}, was {fitted.fraction:.0%}")
    found += _worse_bound(before.bound, after.bound)
    return found


def _allocated(record: CompiledCode) -> int:
    """Registers of a warp as the hardware hands them out: fewer more than that make no difference."""
    unit = multiprocessors().get(record.target)
    if unit is None or record.registers is None:
        return record.registers or 0
    step = unit.limits.register_unit // unit.warp_size
    return -(-record.registers // step) * step


def _worse_bound(before: tuple[IssueBound | None, str], after: tuple[IssueBound | None, str]) -> list[str]:
    was, now = before[0], after[0]
    if was is None:
        return []
    if now is None:
        return [f"no issue bound any more: {after[1]}"]
    found = []
    for name in ("overlapped", "serial"):
        share: Mapping[str, float | None] = {"was": getattr(was, f"{name}_share"), "now": getattr(now, f"{name}_share")}
        if share["was"] is not None and share["now"] is not None:
            if share["now"] < share["was"] * (1.0 - BOUND_MARGIN):
                found.append(f"{name} issue bound {share['now']:.1%} of the matrix roof, was {share['was']:.1%}")
        elif share["was"] is None:
            old, new = getattr(was, f"{name}_cycles"), getattr(now, f"{name}_cycles")
            if new > old * (1.0 + BOUND_MARGIN):
                found.append(f"{name} issue bound {new:.4g} cycles a turn, was {old:.4g}")
    return found
