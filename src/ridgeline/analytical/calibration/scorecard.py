"""The scorecard: predictions of what a model had not seen against what was measured, by split, device, regime and size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.analytical.calibration.across import LeftOut, leave_out
from ridgeline.analytical.calibration.errors import SIZE_BUCKETS, ErrorFigures, error_figures, size_bucket
from ridgeline.analytical.calibration.inside import base_seconds, fit_by_software, fit_inside
from ridgeline.analytical.calibration.measured import measured_rows
from ridgeline.analytical.calibration.public_tables import FILES, SYSTEMS
from ridgeline.analytical.calibration.shapes import Rows
from ridgeline.analytical.calibration.splits import group_folds, group_ids
from ridgeline.analytical.calibration.spread import fit_spread
from ridgeline.analytical.device import Device

SPLITS = ("site", "device", "architecture")
"""site: whole weight shapes or head configurations of a measured device, in every table of it. device and architecture:
nothing of it was seen."""
FOLDS = 5
CONFIDENCE = 0.9
INSIDE_SYSTEMS = ("a100_sxm", "h100_sxm", "b200_sxm")
LONG_S = 50e-6
ACROSS_ROWS: Mapping[str, int | None] = {"gemm": None, "attention prefill": 4000, "attention decode": 4000}
"""Rows of each table that models across devices learn from and are judged on, evenly over it. All of GEMM, because decisions
compare the same shape on every device."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Predictions of left-out rows of one family on one device."""

    split: str
    family: str
    precision: str
    device: str
    group: str
    rows: Rows
    predicted_s: Any
    low_s: Any
    high_s: Any

    def figures(self, where: Any = None) -> ErrorFigures | None:
        """Errors of the rows that a boolean column selects, of all without."""
        chosen = slice(None) if where is None else where
        return error_figures(
            self.rows.seconds[chosen], self.predicted_s[chosen], self.low_s[chosen], self.high_s[chosen]
        )


def score_sites(rows: Rows, device: str, precision: str = "bfloat16", seed: int = 0, **fit: Any) -> Scored:
    """Predict each fold of sites from the others; the interval of a fold comes from the errors of the other folds.

    Args:
        rows: of one family on one device.
        device: its id.
        precision: for the card.
        seed: of the folds.
        fit: passed to :func:`~ridgeline.analytical.calibration.inside.fit_inside`.
    """
    sites = group_ids(*rows.site.T)
    predicted, fold_of = np.empty(len(rows)), np.empty(len(rows), dtype=np.int64)
    for fold, (train, test) in enumerate(group_folds(sites, FOLDS, seed)):
        predicted[test] = fit_inside(rows.take(train), **fit).predict(rows.take(test))
        fold_of[test] = fold
    log_ratio = np.log(rows.seconds / predicted)
    low, high = np.empty(len(rows)), np.empty(len(rows))
    for fold in range(FOLDS):
        own, others = fold_of == fold, fold_of != fold
        spread = fit_spread(log_ratio[others], predicted[others], sites[others], device_effect=False)
        ends = spread.log_interval(predicted[own], CONFIDENCE)
        low[own], high[own] = (predicted[own] * np.exp(end) for end in ends)
    return Scored(
        split="site", family=rows.family, precision=precision, device=device, group=device, rows=rows,
        predicted_s=predicted, low_s=low, high_s=high,
    )  # fmt: skip


def long_rows(rows: Rows, shortest_s: float = 30e-6) -> Rows:
    """Rows that three constants predict to take at least ``shortest_s``: what is asked for beforehand, not measured."""
    return rows.take(base_seconds(rows, fit_by_software(rows)) >= shortest_s)


def score_hardware(
    rows: Mapping[str, Rows], devices: Mapping[str, Device], split: str, precision: str = "bfloat16"
) -> list[Scored]:
    """Predict every device from others: leave-one-device-out, or whole architectures.

    Args:
        rows: of one family, by device id.
        devices: the catalogue.
        split: ``device`` or ``architecture``.
        precision: for the card.
    """
    by = {d: devices[d].architecture if split == "architecture" else d for d in rows}

    def scored(left: LeftOut) -> Scored:
        return Scored(
            split=split, family=rows[left.device].family, precision=precision, device=left.device, group=left.group,
            rows=rows[left.device], predicted_s=left.predicted_s, low_s=left.low_s, high_s=left.high_s,
        )  # fmt: skip

    return [scored(left) for left in leave_out(rows, devices, by=by, confidence=CONFIDENCE)]


def load_hardware(root: Path, devices: Mapping[str, Device], family: str) -> dict[str, Rows]:
    """Rows of a family on every device, as many of each table as :data:`ACROSS_ROWS` says."""
    found = {}
    for system, device in SYSTEMS.items():
        rows = measured_rows(root, devices, family, system, limit=ACROSS_ROWS[family])
        if rows is not None:
            found[device] = rows
    return found


def scorecard(root: Path, devices: Mapping[str, Device], splits: Sequence[str] = SPLITS) -> list[Scored]:
    """Every split that is asked for, on the clean public tables in bfloat16.

    Args:
        root: from :func:`~ridgeline.analytical.calibration.public_tables.require_data_root`.
        devices: the catalogue.
        splits: of :data:`SPLITS`.
    """
    found = []
    if "site" in splits:
        for system in INSIDE_SYSTEMS:
            rows = measured_rows(root, devices, "gemm", system)
            if rows is not None:
                found.append(score_sites(rows, SYSTEMS[system]))
        for family in ("attention prefill", "attention decode"):
            rows = measured_rows(root, devices, family, "h100_sxm")
            if rows is not None:
                found.append(score_sites(long_rows(rows), SYSTEMS["h100_sxm"]))
    hardware = [s for s in splits if s != "site"]
    for family in FILES if hardware else ():
        by_device = load_hardware(root, devices, family)
        for split in hardware:
            found += score_hardware(by_device, devices, split)
    return found


def card_rows(scored: Iterable[Scored]) -> list[dict[str, Any]]:
    """A line for each device, size bucket and regime of every split, ready for JSON."""
    found = []
    for one in scored:
        bucket = size_bucket(one.rows.seconds)
        compute = one.rows.compute_s >= one.rows.memory_s
        slices = [("all", "all", np.ones(len(one.rows), dtype=bool)), ("> 50 us", "all", one.rows.seconds > LONG_S)]
        slices += [(name, "all", bucket == i) for i, (name, _, _) in enumerate(SIZE_BUCKETS)]
        slices += [("all", "compute-bound", compute), ("all", "memory-bound", ~compute)]
        for size, regime, where in slices:
            figures = one.figures(where)
            if figures is not None:
                found.append(
                    {
                        "split": one.split, "family": one.family, "precision": one.precision, "device": one.device,
                        "left_out": one.group, "size": size, "regime": regime, **asdict(figures),
                    }
                )  # fmt: skip
    return found


def pooled(scored: Sequence[Scored], shortest_s: float = LONG_S) -> ErrorFigures | None:
    """Errors of the rows of all of them that took longer than ``shortest_s``."""
    return error_figures(*_stack(scored, shortest_s)) if scored else None


def by_group(scored: Sequence[Scored], shortest_s: float = LONG_S) -> dict[str, ErrorFigures]:
    """:func:`pooled` of each left-out group."""
    groups = sorted({s.group for s in scored})
    found = {g: pooled([s for s in scored if s.group == g], shortest_s) for g in groups}
    return {g: figures for g, figures in found.items() if figures is not None}


def _stack(scored: Sequence[Scored], shortest_s: float) -> list[Any]:
    keep = [s.rows.seconds > shortest_s for s in scored]
    columns = [
        [getattr(s, n)[k] for s, k in zip(scored, keep, strict=True)] for n in ("predicted_s", "low_s", "high_s")
    ]
    return [np.concatenate(c) for c in ([s.rows.seconds[k] for s, k in zip(scored, keep, strict=True)], *columns)]


def markdown(rows: Sequence[Mapping[str, Any]], source: str) -> str:
    """The card as a page."""
    lines = [
        "# Scorecard of the predictions",
        "",
        f"Written by `ridgeline model scorecard --write`, over {source}, bfloat16, rows past the gate. Every row was left",
        "out of what predicted it: `site` leaves out whole weight shapes or head configurations of a measured device (5",
        "folds), `device` and `architecture` all that was measured on it. Errors are of the measured time; `covered` is the",
        "share inside the 90 % interval, `width` the median of its upper over its lower end.",
        "",
        "| split | family | device | size | regime | rows | median % | p90 % | WAPE % | bias % | covered % | width |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        numbers = [f"{100.0 * r[n]:.1f}" for n in ("median", "p90", "wape", "bias", "coverage")]
        lines.append(
            f"| {r['split']} | {r['family']} | {r['device']} | {r['size']} | {r['regime']} | {r['count']} | "
            f"{' | '.join(numbers)} | {r['width']:.2f} |"
        )
    return "\n".join(lines) + "\n"
