"""Violations: measurements that lie under their bound, and the likely cause, over whole columns.

A bound is physics, so a time under it says that something is not as its label says. Each candidate cause has a bound of
its own (the operands were in the cache, the sparse peak, a narrower precision); the first whose bound the time respects
is the likely one. Nothing is clamped and no row is dropped: a violation is a finding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.ceilings import PHYSICAL
from ridgeline.analytical.clock_correction import raised_to_clock
from ridgeline.analytical.device import Device
from ridgeline.analytical.limits import LimitError, limits
from ridgeline.analytical.quantities import bits
from ridgeline.analytical.roofline import IMPOSSIBLE_MARGIN
from ridgeline.analytical.work import Work, fma_key

FINE = ""
BAD_SIZE = "bad row: a size is not a positive number"
BAD_TIME = "bad row: the time is not a positive number"
IN_CACHE = "operands in cache"
SPARSE = "2:4 sparse peak, or a narrower precision"
"""Half the width has twice the rate, as half the values have: a time cannot tell the two apart."""
UNEXPLAINED = "wrong label: the row names more work than was done, or its time is in another unit"

WorkOf = Callable[[str], Work]
"""Work of the rows (float64 columns) if their operands were in the precision that is passed."""


@dataclass(frozen=True)
class Verdicts:
    """One verdict per row."""

    causes: tuple[str, ...]
    """What the codes mean; the first is "fine"."""
    code: Any
    """Index into :attr:`causes`, an int8 column."""

    @property
    def violations(self) -> Any:
        """Rows under their bound, and rows that cannot be judged because a size or the time is none: booleans."""
        return self.code != 0

    @property
    def impossible(self) -> Any:
        """Violations that a warm cache does not explain: booleans."""
        cached = self.causes.index(IN_CACHE) if IN_CACHE in self.causes else -1
        return (self.code != 0) & (self.code != cached)

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each cause that occurs, fine rows included."""
        totals = np.bincount(self.code, minlength=len(self.causes))
        return {cause: int(n) for cause, n in zip(self.causes, totals, strict=True) if n}

    def cause(self, row: int) -> str:
        """The cause of one row; empty where it is fine."""
        return self.causes[int(self.code[row])]


def judge(
    measured_s: Any,
    bound_s: Any,
    *,
    sizes: Sequence[Any] = (),
    explanations: Mapping[str, Any] | None = None,
    margin: float = IMPOSSIBLE_MARGIN,
) -> Verdicts:
    """Hold times against their bounds.

    Args:
        measured_s: seconds, a float64 column.
        bound_s: seconds of the physical bound with operands in main memory.
        sizes: columns that must be positive numbers (m, n, k, batch ...).
        explanations: cause to the bound that would hold if it were so, likeliest first (:func:`explanations`).
        margin: a time is a violation when it is shorter than the bound divided by this.
    """
    measured, bound = np.broadcast_arrays(
        np.atleast_1d(np.asarray(measured_s, dtype=np.float64)), np.asarray(bound_s, dtype=np.float64)
    )
    candidates = dict(explanations or {})
    causes = (FINE, BAD_SIZE, BAD_TIME, *candidates, UNEXPLAINED)
    code = np.zeros(measured.shape, dtype=np.int8)
    with np.errstate(invalid="ignore"):
        below = measured * margin < bound
        code[below] = len(causes) - 1
        for index, explained in reversed(list(enumerate(candidates.values(), start=3))):
            code[below & (measured * margin >= explained)] = index
        code[~(np.isfinite(measured) & (measured > 0.0))] = causes.index(BAD_TIME)
        for size in sizes:
            code[np.broadcast_to(~(np.isfinite(size) & (np.asarray(size) > 0.0)), code.shape)] = causes.index(BAD_SIZE)
    return Verdicts(causes, code)


def physical(device: Device) -> Device:
    """``device`` with the ceilings that no correct measurement exceeds, at the highest clock that it can run at.

    A data sheet states the matrix rates of an H100 at 1830 MHz, and the card runs at up to 1980 MHz.
    """
    selected = device.select(PHYSICAL, threads=device.unit_count or 1)
    return selected if device.boost_clock_mhz is None else raised_to_clock(selected, device.boost_clock_mhz)


def bound_s(work: Work, device: Device) -> Any:
    """The shortest time that the ceilings of ``device`` allow, with every byte from main memory, in seconds."""
    return limits(work, device, end="high").overlapped_s


def explanations(
    work_of: WorkOf, precision: str, device: Device, others: Mapping[str, Work] | None = None
) -> dict[str, Any]:
    """Bounds that would hold if a row's label were wrong in one way, likeliest first: cause to seconds.

    Operands in the last-level cache as far as they fit; the causes of ``others`` with the work that each would mean;
    structured sparsity; then each narrower precision whose products the device has a rate for, the widest first. All
    but the first let the operands be in the cache, too: a label is rarely wrong alone.
    """
    found = {IN_CACHE: limits(work_of(precision), device, cache="warm", end="high").overlapped_s}
    candidates = {**(others or {}), SPARSE: _sparse(work_of(precision))}
    for other in _narrower(precision, device):
        candidates[f"wrong precision: possible in {other}"] = (
            work_of(precision).in_tfloat32() if other == "tfloat32" else work_of(other)
        )
    for cause, work in candidates.items():
        try:
            found[cause] = limits(work, device, cache="warm", end="high").overlapped_s
        except LimitError:
            continue  # The device has no such unit: it cannot be the cause.
    return found


def unit_factor(measured_s: Any, bound_s: Any) -> float | None:
    """What all times must be multiplied by if the table is in another unit as a whole; ``None`` where it seems right.

    Too short: of the rows that take long, four in five are impossible, and with the factor at most one in ten still
    is. Too long: the fastest twentieth of them takes 200 times its bound, and with the factor at most one in ten is
    impossible. Rows of more than 20 us count, where there are five of them: shorter ones sit on the cost of a launch,
    which is no evidence of a unit.
    """
    measured, bound = np.asarray(measured_s, dtype=np.float64), np.asarray(bound_s, dtype=np.float64)
    usable = np.isfinite(measured) & (measured > 0.0) & np.isfinite(bound) & (bound > 20e-6)
    if usable.sum() < 5:
        return None
    times = measured[usable] / bound[usable]

    def impossible(factor: float) -> float:
        return float(np.mean(times * factor * IMPOSSIBLE_MARGIN < 1.0))

    if impossible(1.0) >= 0.8:
        return next((f for f in (1e3, 1e6, 1e9) if impossible(f) <= 0.1), None)
    if np.quantile(times, 0.05) >= 200.0:
        return next((f for f in (1e-9, 1e-6, 1e-3) if impossible(f) <= 0.1), None)
    return None


def _sparse(work: Work) -> Work:
    operations = {
        dataclasses.replace(key, sparsity="2:4") if key.unit == "matrix" else key: count
        for key, count in work.operations.items()
    }
    return dataclasses.replace(work, operations=operations)


def _narrower(precision: str, device: Device) -> list[str]:
    own = fma_key(precision)
    stated = {r.a for r in device.rates if r.unit == "matrix" and r.a == r.b and r.sparsity == "dense"}

    def narrower(other: str) -> bool:
        if other == "tfloat32":
            return precision == "float32"
        return other != own.a and bits(other) < bits(precision)

    return sorted((p for p in stated if narrower(p)), key=lambda p: (-bits(p), p.startswith("int"), p))
