"""Derived figures: medians, rates, bounds and roof fractions, computed from the records when they are read.

A corrected work formula, ceiling or statistic therefore corrects all history. A figure that cannot be had is ``None``
(missing in a frame), never a zero; a roof fraction above one is shown as it is.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from ridgeline.analytical.ceilings import PHYSICAL, Bandwidth, Rate
from ridgeline.analytical.clock_correction import device_at_clock
from ridgeline.analytical.device import Device
from ridgeline.analytical.operators import make_problem
from ridgeline.analytical.problem import Problem, ProblemError, Structure
from ridgeline.analytical.quantities import canonical_json
from ridgeline.analytical.roofline import bound
from ridgeline.analytical.statistics import interval_ranks, summarise
from ridgeline.analytical.work import Work
from ridgeline.results.durable import SetAside, StoreError
from ridgeline.results.measurement import Measurement, RoofBeside, Status
from ridgeline.results.store import Store
from ridgeline.results.views_counters import COUNTER_NAMES, COUNTER_NUMBERS, all_counters, join_counters

if TYPE_CHECKING:
    import pandas as pd

PLACED = ("device", "unit", "ranks", "threads", "cache")
"""Columns taken out of ``placement`` and ``protocol``."""

NUMBERS = (
    "median_s",
    "interval_low_s",
    "interval_high_s",
    "n_blocks",
    "n_samples",
    "autocorrelation",
    "flop",
    "bytes",
    "flop_per_s",
    "bytes_per_s",
    "intensity_flop_per_byte",
    "bound_s",
    "roof_fraction",
    "roof_fraction_low",
    "roof_fraction_high",
    "physical_bound_s",
    "clock_mhz",
    "clock_corrected_roof_fraction",
    "speed_ratio_to_baseline",
    *COUNTER_NUMBERS,
    "algbw_bytes_per_s",
    "busbw_bytes_per_s",
)
"""Derived columns that are numbers; seconds, operations, bytes, and their quotients. ``algbw`` and ``busbw`` are those of
nccl-tests (doc/PERFORMANCE.md): of collectives only, ``busbw`` only where there is more than one rank."""

NAMES = ("level", "bound", "above_measured_roof", *COUNTER_NAMES)
"""Derived columns that are names or yes/no."""

COLUMNS = (*Measurement.model_fields, *PLACED, *NUMBERS, *NAMES)
"""Columns of :func:`rows` and :func:`frame`: the stored ones, then the derived ones."""

_STORED_NUMBERS = (
    "error_relative",
    "error_worst",
    "error_tolerance",
    "prepare_s",
    "working_set_bytes",
    "peak_memory_bytes",
    "energy_j",
)
_Ceiling = TypeVar("_Ceiling", Rate, Bandwidth)
_COMPARABLE = frozenset({"ok", "unstable"})
"""Statuses whose own time may stand beside a baseline's; an impossible time is no speed."""


def frame(store: Store, run: str | None = None) -> pd.DataFrame:
    """:func:`rows` as a table; missing numbers are NaN. ``attrs["set_aside"]`` lists what could not be read.

    Raises:
        StoreError: where the store, or the run that was asked for, cannot be read.
    """
    import pandas as pd

    found, set_aside = _rows(store, run)
    table = pd.DataFrame(found, columns=list(COLUMNS))
    numbers = [*NUMBERS, *_STORED_NUMBERS]
    table[numbers] = table[numbers].astype("float64")
    table.attrs["set_aside"] = [dataclasses.asdict(item) for item in set_aside]
    return table


def rows(store: Store, run: str | None = None) -> list[dict[str, Any]]:
    """Stored and derived columns of every record of ``run``, or of all runs, ready for JSON: ``None`` for missing.

    Raises:
        StoreError: where the store, or the run that was asked for, cannot be read.
    """
    return _rows(store, run)[0]


def summary_counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Records by status, in the order of the schema; statuses that do not occur are left out."""
    counts = Counter(str(row["status"]) for row in rows)
    return {status: counts[status] for status in get_args(Status) if counts[status]}


def _rows(store: Store, run: str | None) -> tuple[list[dict[str, Any]], list[SetAside]]:
    records, set_aside = store.records(run)
    roofs: dict[str, _Roofs] = {}
    works = _Works()
    derived = []
    for record in records:
        if not isinstance(record, Measurement):
            continue
        if record.run_id not in roofs:
            roofs[record.run_id], problem = _load_roofs(store, record.run_id)
            set_aside += problem
        derived.append(_derive(record, works.of(record), roofs[record.run_id]))
    _compare(derived)
    join_counters(derived, all_counters(store) if derived else ())
    return derived, set_aside


def _load_roofs(store: Store, run_id: str) -> tuple[_Roofs, list[SetAside]]:
    try:
        return _Roofs(store.device(run_id)), []
    except StoreError as error:
        return _Roofs(None), [SetAside(run_id, str(error))]


class _Works:
    """Problem and work by operator and parameters: a suite repeats few problems over many records."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Problem, Work] | None] = {}

    def of(self, record: Measurement) -> tuple[Problem, Work] | None:
        """``None`` where this installation does not know the operator (a user's own) or its parameters."""
        figures = record.structure_figures
        key = f"{record.tf32} {record.operator} {canonical_json(record.problem)} {canonical_json(figures)}"
        if key not in self._known:
            self._known[key] = problem_and_work(record.operator, record.problem, record.tf32, figures)
        return self._known[key]


def problem_and_work(
    operator: str, parameters: Mapping[str, Any], tf32: bool, structure_figures: Mapping[str, float] | None = None
) -> tuple[Problem, Work] | None:
    """What a record computed, from its columns of the same names; ``None`` as for an operator of the user's own.

    The work is that of the structure whose figures are stored, or else the forecast.
    """
    try:
        problem = make_problem(operator, dict(parameters))
        work = problem.known_work(Structure(structure_figures or {}))
    except (ProblemError, TypeError, ValueError):
        return None
    return problem, work.in_tfloat32() if tf32 else work


class _Roofs:
    """Ceilings of one run's device, as measured and as physical, by threads."""

    def __init__(self, device: Device | None) -> None:
        self.device = device
        self._measured: dict[int, Device] = {}
        self._physical: dict[int, Device] = {}

    def measured(self, threads: int, beside: tuple[RoofBeside, ...]) -> Device | None:
        """The measured ceilings, or those seen beside the record, at the values seen there.

        Ceilings that were not looked at beside it are left out then: in a slow moment the float64 rate of a quiet
        one would pass for a faster way to do float32.
        """
        if self.device is None:
            return None
        if threads not in self._measured:
            self._measured[threads] = self.device.select(("measured",), threads)
        selected = self._measured[threads]
        seen = {r.limit: r.values_per_s for r in beside if min(r.values_per_s) > 0.0}
        if not seen:
            return selected
        return dataclasses.replace(
            selected,
            rates=tuple(_as_seen(c, seen[c.label]) for c in selected.rates if c.label in seen),
            bandwidths=tuple(_as_seen(c, seen[c.label]) for c in selected.bandwidths if c.label in seen),
        )

    def physical(self, threads: int) -> Device | None:
        """The ceilings that no correct measurement can exceed."""
        if self.device is None:
            return None
        if threads not in self._physical:
            self._physical[threads] = self.device.select(PHYSICAL, threads)
        return self._physical[threads]


def _as_seen(ceiling: _Ceiling, values: tuple[float, ...]) -> _Ceiling:
    """The ceiling at the median of ``values`` with its order-statistic interval; the extremes where there are few."""
    ordered = sorted(values)
    low, high = interval_ranks(len(ordered)) or (1, len(ordered))
    return dataclasses.replace(
        ceiling, value_per_s=median(ordered), low_per_s=ordered[low - 1], high_per_s=ordered[high - 1]
    )


def _derive(record: Measurement, known: tuple[Problem, Work] | None, roofs: _Roofs) -> dict[str, Any]:
    row: dict[str, Any] = {
        **record.model_dump(mode="json"),
        "device": record.placement.device,
        "unit": record.placement.unit,
        "ranks": record.placement.ranks,
        "threads": record.protocol.threads,
        "cache": record.protocol.cache,
        **dict.fromkeys((*NUMBERS, *NAMES)),
    }
    row["clock_mhz"] = _clock_mhz(record)
    if known is not None:
        work = known[1]
        row["flop"], row["bytes"] = float(work.flop), float(work.bytes)
        intensity = float(work.intensity_flop_per_byte)
        row["intensity_flop_per_byte"] = intensity if math.isfinite(intensity) else None
    _derive_times(row, record)
    _derive_energy(row, record)
    if known is not None:
        _derive_bandwidths(row, *known)
    _derive_level(row, record, known[0] if known else None, roofs)
    if known is not None and row["level"] is not None:
        _derive_roofs(row, record, known[1], roofs)
    return row


def _derive_times(row: dict[str, Any], record: Measurement) -> None:
    if not record.used_samples_s:
        return
    s = summarise(record.used_samples_s)
    row["median_s"], row["interval_low_s"], row["interval_high_s"] = s.median, s.low, s.high
    row["n_blocks"], row["n_samples"], row["autocorrelation"] = s.n_blocks, s.n_samples, s.autocorrelation
    if row["flop"] is not None:
        row["flop_per_s"], row["bytes_per_s"] = row["flop"] / s.median, row["bytes"] / s.median


def _derive_energy(row: dict[str, Any], record: Measurement) -> None:
    facts = record.energy
    if facts is None:
        return
    row["energy_quality"] = facts.quality
    if facts.gross_j is not None:
        row["energy_j"], row["energy_low_j"], row["energy_high_j"] = (
            facts.gross_j.value, facts.gross_j.low, facts.gross_j.high,
        )  # fmt: skip
    for name, figure in (
        ("energy_net_j", facts.net_j),
        ("power_w", facts.power_w),
        ("energy_per_flop_j", facts.j_per_flop),
        ("energy_per_byte_j", facts.j_per_byte),
        ("energy_delay_js", facts.edp_js),
    ):
        row[name] = None if figure is None else figure.value


def _derive_bandwidths(row: dict[str, Any], problem: Problem, work: Work) -> None:
    """Bandwidths of a collective; the samples are already those of the slowest rank."""
    if row["median_s"] is None or problem.message_bytes is None:
        return
    row["algbw_bytes_per_s"] = problem.message_bytes / row["median_s"]
    if work.link_bytes > 0.0:
        row["busbw_bytes_per_s"] = float(work.link_bytes) / row["median_s"]


def _derive_level(row: dict[str, Any], record: Measurement, problem: Problem | None, roofs: _Roofs) -> None:
    if roofs.device is None:
        return
    size = record.working_set_bytes
    if size is None and problem is not None:
        size = problem.footprint_bytes()
    if size is None and record.protocol.cache != "cold":
        return
    row["level"] = roofs.device.level_for(size or 0.0, record.protocol.cache, record.protocol.threads).name


def _derive_roofs(row: dict[str, Any], record: Measurement, work: Work, roofs: _Roofs) -> None:
    threads, level = record.protocol.threads, row["level"]
    physical = roofs.physical(threads)
    limit = bound(work, physical, level) if physical is not None else None
    row["physical_bound_s"] = limit.seconds if limit else None
    _derive_at_clock(row, work, physical, level)
    measured = roofs.measured(threads, record.roofs_beside)
    limit = bound(work, measured, level) if measured is not None else None
    if limit is None:
        return
    row["bound_s"], row["bound"] = limit.seconds, limit.bound_by
    if row["median_s"] is None:
        return
    row["roof_fraction"] = limit.seconds / row["median_s"]
    if row["interval_low_s"] is not None:
        row["roof_fraction_low"] = limit.low_s / row["interval_high_s"]
        row["roof_fraction_high"] = limit.high_s / row["interval_low_s"]
        row["above_measured_roof"] = row["interval_high_s"] < limit.low_s


def _clock_mhz(record: Measurement) -> float | None:
    """Median core clock of the blocks that count; ``None`` where none tells."""
    out = {left.block for left in record.left_out}
    seen = [c.clock_mhz for i, c in enumerate(record.conditions) if i not in out and c.clock_mhz is not None]
    return median(seen) if seen else None


def _derive_at_clock(row: dict[str, Any], work: Work, physical: Device | None, level: str) -> None:
    """Fraction of the physical roof at the clock that was seen: low by a slow kernel, not by a slow clock."""
    clock_mhz, median_s = row["clock_mhz"], row["median_s"]
    if physical is None or clock_mhz is None or clock_mhz <= 0.0 or median_s is None:
        return
    moved = device_at_clock(physical, clock_mhz)
    limit = bound(work, moved, level) if moved is not None else None
    if limit is not None:
        row["clock_corrected_roof_fraction"] = limit.seconds / median_s


def _compare(derived: list[dict[str, Any]]) -> None:
    """Fill ``speed_ratio_to_baseline``: above one is faster than the baseline in the same run, protocol and process."""
    keys = [
        canonical_json([row[k] for k in ("run_id", "operator", "problem", "placement", "protocol", "process")])
        for row in derived
    ]
    # Where a case was measured again, the later record stands.
    latest = {(key, row["implementation"]): row for key, row in zip(keys, derived, strict=True)}
    for key, row in zip(keys, derived, strict=True):
        base = latest.get((key, row["baseline"]))
        if base is not None and base["status"] == "ok" and row["status"] in _COMPARABLE:
            row["speed_ratio_to_baseline"] = base["median_s"] / row["median_s"]
