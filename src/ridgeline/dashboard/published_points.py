"""Published kernel times as points of their device's roofline: rates and shares of the data sheet's bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ridgeline.analytical.calibration.measured import SIZES
from ridgeline.analytical.calibration.shapes import work_of
from ridgeline.analytical.device import Device
from ridgeline.analytical.limits import LimitError, limits
from ridgeline.analytical.work import RateKey
from ridgeline.results.published import Published

MOST_POINTS = 20_000
"""Of a chart: more are thinned evenly over the tables, and the page says so."""
FAMILIES = {"gemm": "gemm", "attention": "attention prefill"}
"""Operator of a record to the family whose work it is; a decode is attention of one query."""


@dataclass(frozen=True)
class PublishedPoints:
    """What a chart shows of a device and an operator."""

    frame: pd.DataFrame
    """A row per time: ``software``, ``kernel``, ``problem``, ``precision``, ``seconds``, ``intensity_flop_per_byte``,
    ``flop_per_s``, ``bound_s``, ``share`` (bound over time), ``bound_by``, ``quarantined``."""
    keys: frozenset[RateKey]
    """Arithmetic that the points need."""
    left_out: tuple[str, ...]
    """Why times are not among them, one line for each reason."""


def spread_out(records: Sequence[Published], most: int = MOST_POINTS) -> list[Published]:
    """At most so many records, evenly over all."""
    return list(records[:: max(1, -(-len(records) // most))])


def points_of(records: Sequence[Published], device: Device) -> PublishedPoints:
    """The points of records of one operator on ``device``."""
    frames, left_out = [], []
    keys: set[RateKey] = set()
    for operator, precision in sorted({(r.operator, str(r.problem.get("precision", ""))) for r in records}):
        own = [r for r in records if (r.operator, str(r.problem.get("precision", ""))) == (operator, precision)]
        family = FAMILIES.get(operator)
        if family is None:
            left_out.append(f"{len(own)} of {operator}, whose work is not counted here")
            continue
        sizes = (*SIZES[family], *(("window",) if operator == "attention" else ()))
        columns = {name: np.array([float(r.problem.get(name, 0.0)) for r in own]) for name in sizes}
        if not all(np.all(columns[name] > 0.0) for name in SIZES[family]):
            whole = np.all([columns[name] > 0.0 for name in SIZES[family]], axis=0)
            left_out.append(f"{int((~whole).sum())} in {precision} with a size of zero")
            own = [r for r, fine in zip(own, whole, strict=True) if fine]
            columns = {name: values[whole] for name, values in columns.items()}
        if not own:
            continue
        work = work_of(family, columns, precision)
        try:
            terms = limits(work, device)
        except LimitError as error:
            left_out.append(f"{len(own)} in {precision}: {error}")
            continue
        keys |= {key for key in work.operations if key.unit != "special"}
        flop, moved, seconds = np.asarray(work.flop), np.asarray(work.bytes), np.array([r.seconds for r in own])
        frames.append(
            pd.DataFrame(
                {
                    "software": [f"{r.tool} {r.tool_version}" for r in own],
                    "kernel": [r.kernel for r in own],
                    "problem": [r.problem_label for r in own],
                    "precision": precision,
                    "seconds": seconds,
                    "intensity_flop_per_byte": flop / moved,
                    "flop_per_s": flop / seconds,
                    "bound_s": terms.overlapped_s,
                    "share": terms.overlapped_s / seconds,
                    "bound_by": terms.bound_by,
                    "quarantined": [r.quarantined for r in own],
                }
            )
        )
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return PublishedPoints(frame, frozenset(keys), tuple(left_out))


def by_software(points: pd.DataFrame) -> pd.DataFrame:
    """Shares of the bound of each software and limit; a share over 1 is a violation of the data sheet's bound."""
    lines = []
    for (software, bound_by), own in points.groupby(["software", "bound_by"], sort=True):
        low, middle, high = own["share"].quantile([0.1, 0.5, 0.9])
        lines.append(
            {
                "software": software,
                "bound by": bound_by,
                "times": len(own),
                "share of the bound, median": f"{middle:.0%}",
                "10 to 90 %": f"{low:.0%} to {high:.0%}",
                "under the bound": int((own["share"] > 1.0).sum()),
                "quarantined": int((own["quarantined"] != "").sum()),
            }
        )
    return pd.DataFrame(lines)
