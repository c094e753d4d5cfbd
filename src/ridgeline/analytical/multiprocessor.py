"""Multiprocessors: what fits on one SM or compute unit at a time, and how fast it issues each kind of instruction.

A file of ``hardware/multiprocessors`` describes one compiler target (``sm_90``, ``gfx942``). Every rate has a source; a
kind of instruction that is not listed has no published rate, and nothing is made up for it.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pydantic import TypeAdapter

from ridgeline.analytical.ceilings import Kind, Source

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What limits how many programs (thread blocks, workgroups) are resident on one multiprocessor."""

    __pydantic_config__ = _STRICT

    warps: int
    blocks: int
    blocks_of_one_warp: int | None = None
    """Blocks, where a block is one warp; ``None`` where that makes no difference."""
    registers: int
    """32-bit registers of all lanes."""
    registers_per_thread: int
    register_unit: int
    """Registers of a warp are allocated in multiples of this."""
    shared_bytes: int
    shared_per_block_bytes: int
    shared_reserved_bytes: int
    """Shared memory that the system takes for itself beside each block's."""
    shared_unit_bytes: int
    source: Source
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class IssueRate:
    """How fast one kind of instruction goes through its pipe."""

    __pydantic_config__ = _STRICT

    pipe: str
    lanes_per_cycle: float
    """Results, or 4-byte words of loads and stores, per cycle of the whole multiprocessor."""
    source: Source
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class MatrixRate:
    """How fast the matrix unit is on operands of some precisions."""

    __pydantic_config__ = _STRICT

    precisions: tuple[str, ...]
    flop_per_cycle: float
    """Operations per cycle of the whole multiprocessor; a multiply-add is two."""
    source: Source
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Multiprocessor:
    """One SM or compute unit, as the compiler's target names it."""

    __pydantic_config__ = _STRICT

    name: str
    target: str
    device: str
    """Id in the catalogue of a device that has it, whose data-sheet peak the matrix rates give."""
    warp_size: int
    partitions: int
    """Parts with a scheduler and a register file of their own; a warp stays in one."""
    limits: Limits
    rates: Mapping[str, IssueRate]
    """By kind of instruction."""
    matrix: tuple[MatrixRate, ...]

    def matrix_flop_per_cycle(self, precision: str) -> float | None:
        """Dense operations per cycle on operands of ``precision``; ``None`` where the unit does not take them."""
        return next((rate.flop_per_cycle for rate in self.matrix if precision in rate.precisions), None)

    @property
    def pipes(self) -> tuple[str, ...]:
        """Names of the pipes, the matrix unit first and the schedulers' issue slots last."""
        named = dict.fromkeys(rate.pipe for rate in self.rates.values() if rate.pipe != "issue")
        return ("matrix", *named, *(["issue"] if any(r.pipe == "issue" for r in self.rates.values()) else []))


_ADAPTER = TypeAdapter(Multiprocessor)


@functools.cache
def multiprocessors() -> Mapping[str, Multiprocessor]:
    """The multiprocessors that ship with Ridgeline, by target."""
    folder = resources.files("ridgeline.analytical") / "hardware" / "multiprocessors"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".toml")), key=lambda entry: entry.name)
    read = (_resolved(tomllib.loads(entry.read_text(encoding="utf-8"))) for entry in files)
    return {values["target"]: _ADAPTER.validate_python(values) for values in read}


def _resolved(values: dict[str, Any]) -> dict[str, Any]:
    """With every key of a source replaced by what ``[sources.KEY]`` says."""
    sources = values.pop("sources")

    def cited(fact: Mapping[str, Any]) -> dict[str, Any]:
        source = dict(sources[fact["source"]])
        kind = source.pop("kind")
        return {**fact, "kind": kind, "source": source}

    return {
        **values,
        "limits": cited(values["limits"]),
        "rates": {name: cited(rate) for name, rate in values["rates"].items()},
        "matrix": [cited(rate) for rate in values["matrix"]],
    }
