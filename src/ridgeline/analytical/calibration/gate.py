"""The gate that rows of a table pass before anything is fitted on them.

A row that fails is quarantined with its reason; no time is ever raised to the bound, since a clamped row hides both its own
fault and what caused it. Reasons are listed in the order in which they are looked for; a row has the first that holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.roofline import IMPOSSIBLE_MARGIN

NO_SIZE = "a size is zero or negative"
NO_TIME = "no positive, finite time"
DUPLICATE = "the same problem again: the first of them is kept"
CONTRADICTION = "the same problem with times that differ by more than 25 %"
LABEL = "rows of this label beat physics alike: less is done than the label says"
TOO_FAST = "faster than physics, even if the cache held all that it can of a working set larger than it"
VERSION = "the rows state another version than the table"
REASONS = (NO_SIZE, NO_TIME, VERSION, DUPLICATE, CONTRADICTION, LABEL, TOO_FAST)

_CONTRADICTS = 0.25
_LABEL_SHARE = 0.02
"""Share of the rows of a label, of those larger than the cache, that must beat physics before the label is doubted. Clean
tables have at most 0.1 %; the decode table of TensorRT-LLM 1.0.0 on A100 has 16 %."""
_LABEL_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class Gated:
    """What the gate says of each row of a table."""

    reason: Any
    """Index into :data:`REASONS`, -1 for a row that passed; int column."""

    @property
    def passed(self) -> Any:
        """Rows that are fit to calibrate on; bool column."""
        return self.reason < 0

    def counts(self) -> dict[str, int]:
        """Rows by reason; reasons that do not occur are left out."""
        return {text: int(n) for i, text in enumerate(REASONS) if (n := np.count_nonzero(self.reason == i))}

    def text(self, row: int) -> str:
        """Why ``row`` is quarantined; empty where it passed."""
        index = int(self.reason[row])
        return REASONS[index] if index >= 0 else ""


def gate(
    sizes: Mapping[str, Any],
    seconds: Any,
    warm_bound_s: Any,
    working_set_bytes: Any,
    cache_bytes: float,
    *,
    labels: Any = None,
    variant: Any = None,
    version_agrees: Any = None,
) -> Gated:
    """Judge every row of one table: one device, one operator, one software.

    Args:
        sizes: the problem's sizes by name, columns; together with ``labels`` they name the problem.
        seconds: measured.
        warm_bound_s: bound that holds in any state of the cache: as many bytes as it holds need not come from memory.
            Tables repeat a call on the same data, and of a working set a little over the cache most of it stays there.
        working_set_bytes: bytes that one call touches.
        cache_bytes: last-level cache of the device; 0 where it has none.
        labels: what the table says of the rows beside sizes (precision, mask window, KV precision), as an int column; a
            label many of whose rows beat physics is doubted as a whole.
        variant: what tells two measurements of one problem apart (the kernel that was used), an int column.
        version_agrees: whether the row's own version is the table's; bool column.
    """
    seconds, warm = np.asarray(seconds, dtype=np.float64), np.asarray(warm_bound_s, dtype=np.float64)
    working_set = np.asarray(working_set_bytes, dtype=np.float64)
    rows = len(seconds)
    label = np.zeros(rows, dtype=np.int64) if labels is None else np.asarray(labels)
    kind = np.zeros(rows, dtype=np.int64) if variant is None else np.asarray(variant)
    reason = np.full(rows, -1)

    def mark(text: str, where: Any) -> None:
        reason[(reason < 0) & where] = REASONS.index(text)

    mark(NO_SIZE, np.any([np.asarray(v, dtype=np.float64) <= 0.0 for v in sizes.values()], axis=0))
    mark(NO_TIME, ~(np.isfinite(seconds) & (seconds > 0.0)))
    if version_agrees is not None:
        mark(VERSION, ~np.asarray(version_agrees, dtype=bool))
    usable = reason < 0
    if np.any(usable):
        keys = np.stack([np.asarray(v, dtype=np.float64) for v in sizes.values()] + [label, kind], axis=1)[usable]
        repeats, contradicts = _repeats(keys, seconds[usable])
        for text, where in ((CONTRADICTION, contradicts), (DUPLICATE, repeats)):
            full = np.zeros(rows, dtype=bool)
            full[usable] = where
            mark(text, full)
    large = (reason < 0) & (working_set > cache_bytes)
    fast = large & (seconds < warm / IMPOSSIBLE_MARGIN)
    for value in np.unique(label[fast]):
        of_label = large & (label == value)
        n_fast = np.count_nonzero(fast & of_label)
        if n_fast >= _LABEL_ROWS and n_fast > _LABEL_SHARE * np.count_nonzero(of_label):
            mark(LABEL, label == value)
    mark(TOO_FAST, fast)
    return Gated(reason=reason)


def _repeats(keys: Any, seconds: Any) -> tuple[Any, Any]:
    """(rows that repeat an earlier one, rows of problems whose times contradict each other)."""
    order = np.lexsort((np.arange(len(seconds)), *keys.T[::-1]))
    same = np.zeros(len(seconds), dtype=bool)
    same[1:] = np.all(keys[order][1:] == keys[order][:-1], axis=1)
    group = np.cumsum(~same) - 1
    ordered = seconds[order]
    low, high = np.full(group[-1] + 1, np.inf), np.zeros(group[-1] + 1)
    np.minimum.at(low, group, ordered)
    np.maximum.at(high, group, ordered)
    ratio = (high / low)[group]
    repeats, contradicts = np.zeros(len(seconds), dtype=bool), np.zeros(len(seconds), dtype=bool)
    contradicts[order] = ratio > 1.0 + _CONTRADICTS
    repeats[order] = same & (ratio <= 1.0 + _CONTRADICTS)
    return repeats, contradicts
