"""The gate catches each defect that was found in public tables, and lets clean rows through."""

from __future__ import annotations

from typing import Any

import numpy as np

from ridgeline.analytical.calibration.gate import (
    CONTRADICTION,
    DUPLICATE,
    LABEL,
    NO_SIZE,
    NO_TIME,
    TOO_FAST,
    VERSION,
    gate,
)

CACHE = 50e6


def _table(rows: int = 100) -> dict[str, Any]:
    m = np.arange(1.0, rows + 1.0)
    return {
        "sizes": {"m": m, "n": np.full(rows, 4096.0)},
        "seconds": 2e-5 * m,
        "warm_bound_s": 1e-5 * m,
        "working_set_bytes": np.full(rows, 2.0 * CACHE),
        "cache_bytes": CACHE,
    }


def test_clean_rows_pass() -> None:
    assert gate(**_table()).counts() == {}


def test_zero_sizes_and_times_are_no_measurements() -> None:
    table = _table()
    table["sizes"]["m"] = table["sizes"]["m"].copy()
    table["sizes"]["m"][3] = 0.0
    table["seconds"][[5, 6]] = [0.0, np.nan]
    result = gate(**table)
    assert result.text(3) == NO_SIZE
    assert result.counts() == {NO_SIZE: 1, NO_TIME: 2}


def test_faster_than_physics_counts_only_where_the_cache_is_too_small() -> None:
    table = _table()
    table["seconds"][[10, 11]] = table["warm_bound_s"][[10, 11]] / 3.0
    table["working_set_bytes"] = table["working_set_bytes"].copy()
    table["working_set_bytes"][11] = CACHE / 2.0
    result = gate(**table)
    assert result.text(10) == TOO_FAST
    assert result.text(11) == ""


def test_nothing_is_clamped_and_a_row_at_the_margin_passes() -> None:
    table = _table()
    table["seconds"] = table["warm_bound_s"] / 1.04
    before = table["seconds"].copy()
    assert gate(**table).counts() == {}
    assert np.array_equal(before, table["seconds"])


def test_a_label_that_beats_physics_is_doubted_as_a_whole() -> None:
    table = _table(200)
    window = np.repeat([0, 1], 100)
    table["seconds"] = table["seconds"].copy()
    table["seconds"][:40] = table["warm_bound_s"][:40] / 2.0  # the label 0 reads less than it says
    result = gate(**table, labels=window)
    assert result.counts() == {LABEL: 100}
    assert np.array_equal(result.passed, window == 1)


def test_repeats_keep_the_first_and_contradictions_none() -> None:
    table = _table(4)
    table["sizes"] = {"m": np.array([8.0, 8.0, 9.0, 9.0]), "n": np.full(4, 64.0)}
    table["seconds"] = np.array([1.00e-3, 1.02e-3, 1.0e-3, 9.0e-3])
    result = gate(**table)
    assert [result.text(i) for i in range(4)] == ["", DUPLICATE, CONTRADICTION, CONTRADICTION]
    assert gate(**table, variant=np.array([0, 1, 0, 1])).counts() == {}


def test_rows_of_another_version_are_not_this_tables() -> None:
    result = gate(**_table(5), version_agrees=np.array([True, False, True, True, True]))
    assert result.counts() == {VERSION: 1}
