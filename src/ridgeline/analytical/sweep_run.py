"""Running a sweep: every point into a Parquet file, and the best trade-offs of each workload.

A workload is a model, a phase and a length: only points of one workload are worth comparing. The front trades the time of
a step off against its cost.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.analytical.inverse import InverseError, largest_within
from ridgeline.analytical.step_table import DeviceStep, Engine
from ridgeline.analytical.sweep import (
    Combination,
    Evidence,
    HourlyPrice,
    Refused,
    Swept,
    pareto,
    sensitivity,
    step_points,
    sweep,
)
from ridgeline.analytical.sweep_scenario import Scenario, SweepError

Workload = tuple[str, str, float]
"""Model, phase, length."""
_FIGURES = ("batch", "bound_s", "predicted_s", "memory_bytes", "tokens_per_s", "cost")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a sweep found."""

    points: int
    """Rows written: batches x lengths x prices of the combinations that can be."""
    fitting: int
    refused: Mapping[str, int]
    """Reason to combinations."""
    objectives: tuple[str, str]
    """What the fronts trade off; less is better."""
    fronts: tuple[Mapping[str, Any], ...]
    """For each workload, the fitting rows that no other row beats, fastest first, with elasticities of the prediction."""
    largest_batches: tuple[Mapping[str, Any], ...]
    """Answers to ``step_within_ms``."""


@dataclass(frozen=True)
class _Front:
    """Rows of one workload that no other row beats."""

    figures: Any
    """float64 [rows, _FIGURES]."""
    origin: Any
    """Positions in the list of origins."""

    def merged(self, other: _Front) -> _Front:
        figures = np.concatenate([self.figures, other.figures])
        origin = np.concatenate([self.origin, other.origin])
        kept = pareto([figures[:, _FIGURES.index("predicted_s")], figures[:, _FIGURES.index("cost")]])
        return _Front(figures[kept], origin[kept])


@dataclass(frozen=True)
class _Origin:
    combination: Combination
    step: DeviceStep
    price: HourlyPrice | None
    evidence: Evidence


def run_scenario(scenario: Scenario, out: Path, engine: Engine = "auto") -> Summary:
    """Sweep, and write every point to the Parquet file ``out`` (in one piece: a file is complete or not there).

    Raises:
        SweepError: where no combination can be, or the file cannot be written.
    """
    import pyarrow.parquet as pq

    grid = scenario.grid
    priced = all(grid.prices.get(device.id) for device in grid.devices)
    objectives = ("predicted_s", "usd_per_million_tokens" if priced else "device_s_per_token")
    refused: dict[str, int] = {}
    points = fitting = 0
    fronts: dict[Workload, _Front] = {}
    origins: list[_Origin] = []
    answers: list[Mapping[str, Any]] = []
    writer, temporary = None, ""
    try:
        handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
        os.close(handle)
        for item in sweep(grid, engine):
            if isinstance(item, Refused):
                refused[item.reason] = refused.get(item.reason, 0) + 1
                continue
            if scenario.step_within_s is not None:
                answers += _largest_batches(item, scenario.step_within_s)
            for price in grid.prices.get(item.combination.device) or (None,):
                table = _table(item, price)
                if writer is None:
                    writer = pq.ParquetWriter(temporary, table.schema, compression="zstd")
                writer.write_table(table)
                points += len(item.batch)
                fitting += int(np.count_nonzero(item.columns.fits))
                for workload, front in _fronts(item, price if priced else None, len(origins)).items():
                    fronts[workload] = fronts[workload].merged(front) if workload in fronts else front
                origins.append(_Origin(item.combination, item.step, price, item.evidence))
        if writer is None:
            raise SweepError(f"no combination of the scenario can be: {'; '.join(refused)}")
        writer.close()
        os.chmod(temporary, 0o644)  # mkstemp makes it private.
        os.replace(temporary, out)
    except OSError as error:
        raise SweepError(f"{out}: {error.strerror or error}") from None
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
    return Summary(
        points=points,
        fitting=fitting,
        refused=refused,
        objectives=objectives,
        fronts=_described(fronts, origins, objectives[1]),
        largest_batches=tuple(answers),
    )


def _labels(own: Combination) -> dict[str, Any]:
    sizes = {name: getattr(own.layout, name) for name in ("tp", "pp", "ep", "dp")}
    return {"device": own.device, "model": own.model, "phase": own.phase, "precision": own.precisions.label, **sizes}


def _table(item: Swept, price: HourlyPrice | None) -> Any:
    import pyarrow as pa

    n = len(item.batch)
    columns: dict[str, Any] = {}
    for name, value in _labels(item.combination).items():
        if isinstance(value, str):
            columns[name] = _repeated(value, n)
        else:
            columns[name] = pa.array(np.full(n, value, dtype=np.int32))
    columns["batch"], columns["length"] = (pa.array(c.astype(np.int64)) for c in (item.batch, item.length))
    columns["bound_s"] = pa.array(item.columns.bound_s)
    columns["predicted_s"] = pa.array(item.columns.predicted_s)
    columns["evidence"] = _repeated(item.evidence, n)
    columns["memory_bytes"] = pa.array(item.columns.memory_bytes)
    columns["fits"] = pa.array(item.columns.fits)
    columns["tokens_per_s"] = pa.array(item.tokens_per_s)
    if price is None:
        columns["usd_per_device_hour"] = pa.nulls(n, pa.float64())
        columns["usd_per_million_tokens"] = pa.nulls(n, pa.float64())
    else:
        columns["usd_per_device_hour"] = pa.array(np.full(n, price.usd_per_device_hour))
        columns["usd_per_million_tokens"] = pa.array(item.usd_per_million_tokens(price))
    return pa.table(columns)


def _repeated(text: str, rows: int) -> Any:
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([text]))


def _fronts(item: Swept, price: HourlyPrice | None, origin: int) -> dict[Workload, _Front]:
    """The fronts of one combination; cost in dollars where there is a price, in seconds of devices where not."""
    own, columns, per_s = item.combination, item.columns, item.tokens_per_s
    cost = own.layout.devices / per_s if price is None else item.usd_per_million_tokens(price)
    figures = np.stack(
        [item.batch, columns.bound_s, columns.predicted_s, columns.memory_bytes, per_s, cost], axis=1
    )  # in the order of _FIGURES
    found = {}
    for length in np.unique(item.length):
        at = np.flatnonzero(columns.fits & (item.length == length))
        if len(at):
            kept = at[pareto([columns.predicted_s[at], cost[at]])]
            found[own.model, own.phase, float(length)] = _Front(figures[kept], np.full(len(kept), origin))
    return found


def _described(fronts: Mapping[Workload, _Front], origins: list[_Origin], cost: str) -> tuple[Mapping[str, Any], ...]:
    """Rows as plain values, fastest first; elasticities are asked once for each origin, for all its rows together."""
    described: list[dict[str, Any]] = []
    of_origin: dict[int, list[tuple[dict[str, Any], float, float]]] = {}
    for (model, phase, length), front in fronts.items():
        rows = []
        for i in np.argsort(front.figures[:, _FIGURES.index("predicted_s")], kind="stable"):
            named = dict(zip(_FIGURES, front.figures[i].tolist(), strict=True))
            source = origins[front.origin[i]]
            row = {k: v for k, v in _labels(source.combination).items() if k not in ("model", "phase")}
            row["usd_per_device_hour"] = None if source.price is None else source.price.usd_per_device_hour
            row |= {cost if name == "cost" else name: value for name, value in named.items()}
            row["batch"] = int(named["batch"])
            row["evidence"] = source.evidence
            of_origin.setdefault(int(front.origin[i]), []).append((row, named["batch"], length))
            rows.append(row)
        described.append({"model": model, "phase": phase, "length": int(length), "rows": rows})
    for origin, entries in of_origin.items():
        own = origins[origin]
        batch, length_column = (np.array(column) for column in zip(*[entry[1:] for entry in entries], strict=True))
        found = sensitivity(own.step, step_points(own.combination.phase, own.combination.layout, batch, length_column))
        for i, (row, *_) in enumerate(entries):
            row["elasticity"] = {name: round(float(column[i]), 3) for name, column in found.items()}
    return tuple(described)


def _largest_batches(item: Swept, limit_s: float) -> list[Mapping[str, Any]]:
    """The largest batch between the smallest and the largest of the sweep that meets the limit and fits, by length."""
    own = item.combination
    least, most = int(np.min(item.batch)), int(np.max(item.batch))
    found: list[Mapping[str, Any]] = []
    for length in np.unique(item.length):

        def time_s(batch: int, length: float = float(length)) -> float:
            point = step_points(own.phase, own.layout, np.array([float(batch)]), np.array([length]))
            columns = item.step.columns(point, "numpy")
            return float(columns.predicted_s[0]) if columns.fits[0] else float("inf")

        answer: dict[str, Any] = {**_labels(own), "length": int(length), "step_within_s": limit_s}
        try:
            answer["batch"] = largest_within(time_s, limit_s, least, most)
            answer["reason"] = "the largest of the sweep" if answer["batch"] == most else ""
        except InverseError as error:
            fits = time_s(least) < float("inf")
            answer["batch"], answer["reason"] = None, str(error) if fits else "does not fit the memory"
        found.append(answer)
    return found
