"""Whether predictions put devices in the right order: pairs of devices over workloads that both were measured on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from ridgeline.analytical.calibration.scorecard import Scored

WORKLOADS = 200
_NORMAL_90 = float(ndtri(0.95))
_EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """How often the predicted order of two devices was the measured one, and what a wrong one cost."""

    workloads: int
    pairs: int
    """Pairs of devices."""
    right: float
    """Share of (workload, pair) whose order was right."""
    regret: float
    """Mean of chosen over better measured time, less one, over all pairs and workloads."""
    reliability: tuple[tuple[float, float, float, float, int], ...]
    """(low, high, mean stated probability, share that came true, count) of each band of stated probability."""


def decide(scored: Sequence[Scored], workloads: int = WORKLOADS, seed: int = 0) -> Decisions:
    """Judge predicted times of left-out devices.

    The probability that one is faster takes both intervals as normal in logarithms and independent: each device was
    predicted without itself.

    Args:
        scored: one family, each device left out of its own prediction.
        workloads: shapes, at random of those that every device has.
        seed: of the choice.
    """

    def predicted(one: Scored, rows: Any) -> tuple[Any, Any]:
        sigma = np.log(one.high_s[rows] / one.low_s[rows]) / (2.0 * _NORMAL_90)
        return np.log(one.predicted_s[rows]), sigma

    return _judge(scored, workloads, seed, predicted)


def data_sheet_decisions(scored: Sequence[Scored], workloads: int = WORKLOADS, seed: int = 0) -> Decisions:
    """The same judged by the bound from the data sheet alone, which states no probability."""
    return _judge(scored, workloads, seed, lambda one, rows: (np.log(one.rows.bound_s[rows]), np.zeros(len(rows))))


def _judge(
    scored: Sequence[Scored], workloads: int, seed: int, predicted: Callable[[Scored, Any], tuple[Any, Any]]
) -> Decisions:
    keyed = [_by_shape(one) for one in scored]
    common = sorted(set.intersection(*(set(k) for k in keyed)))
    if not common:
        raise ValueError("no workload that every device was measured on")
    if len(common) > workloads:
        chosen = np.random.default_rng(seed).choice(len(common), workloads, replace=False)
        common = [common[i] for i in sorted(chosen)]
    measured, expected, sigma = [], [], []
    for one, rows_of in zip(scored, keyed, strict=True):
        # A workload is a shape; its rows are of several software: measured and predicted are their geometric means.
        flat = np.array([row for shape in common for row in rows_of[shape]])
        shape_of = np.repeat(np.arange(len(common)), [len(rows_of[shape]) for shape in common])
        counts = np.bincount(shape_of)
        log_time, width = predicted(one, flat)
        measured.append(np.bincount(shape_of, np.log(one.rows.seconds[flat])) / counts)
        expected.append(np.bincount(shape_of, log_time) / counts)
        sigma.append(np.bincount(shape_of, width) / counts)
    right, regret, stated, true = [], [], [], []
    for i in range(len(scored)):
        for j in range(i + 1, len(scored)):
            gap, truth = expected[j] - expected[i], measured[j] - measured[i]
            right.append((gap > 0.0) == (truth > 0.0))
            regret.append(np.where(right[-1], 0.0, np.expm1(np.abs(truth))))
            spread = np.hypot(sigma[i], sigma[j])
            if np.all(spread > 0.0):
                stated.append(ndtr(np.abs(gap) / spread))
                true.append(right[-1])
    bands = []
    if stated:
        p, came = np.concatenate(stated), np.concatenate(true)
        for low, high in itertools.pairwise(_EDGES):
            own = (p >= low) & ((p < high) | (high == 1.0))
            if np.any(own):
                bands.append((low, high, float(p[own].mean()), float(came[own].mean()), int(own.sum())))
    return Decisions(
        workloads=len(common),
        pairs=len(right),
        right=float(np.mean(np.concatenate(right))),
        regret=float(np.mean(np.concatenate(regret))),
        reliability=tuple(bands),
    )


def _by_shape(one: Scored) -> dict[tuple[float, ...], list[int]]:
    found: dict[tuple[float, ...], list[int]] = {}
    for row, key in enumerate(map(tuple, np.column_stack([one.rows.site, one.rows.load]).round(6).tolist())):
        found.setdefault(key, []).append(row)
    return found
