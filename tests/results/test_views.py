"""Derived figures against known answers: a device with known ceilings and records with constructed samples."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from synthetic import SHEET, bandwidth, blocks, make_device, make_manifest, make_measurement, make_store, rate

from ridgeline.analytical.device import Device
from ridgeline.analytical.statistics import summarise
from ridgeline.results.measurement import Measurement
from ridgeline.results.store import Store
from ridgeline.results.views import COLUMNS, NAMES, NUMBERS, frame, rows, summary_counts

FLOP = 2.0 * 512**3
BYTES = 3.0 * 512 * 512 * 4


def derive(tmp_path: Path, *overrides: dict[str, Any], device: Device | None = None) -> list[dict[str, Any]]:
    """Rows of a finished run of one record per entry of ``overrides``."""
    store = Store(tmp_path)
    manifest = make_manifest()
    with store.create(manifest, device or make_device()) as writer:
        for o in overrides or ({},):
            writer.append(make_measurement(run_id=manifest.run_id, **o))
        writer.finish()
    return rows(store, manifest.run_id)


def test_a_compute_bound_case(tmp_path: Path) -> None:
    (row,) = derive(tmp_path)
    s = summarise(blocks(0.01))
    assert (row["flop"], row["bytes"], row["intensity_flop_per_byte"]) == (FLOP, BYTES, FLOP / BYTES)
    assert (row["median_s"], row["interval_low_s"], row["interval_high_s"]) == (s.median, s.low, s.high)
    assert row["median_s"] == pytest.approx(0.01)
    assert (row["n_blocks"], row["n_samples"], row["autocorrelation"]) == (7, 21, s.autocorrelation)
    assert (row["flop_per_s"], row["bytes_per_s"]) == (FLOP / s.median, BYTES / s.median)
    # 2.7e8 operations at 1e11/s take 2.7 ms; 3.1e6 bytes at 1e10/s only 0.3 ms.
    assert (row["level"], row["bound"]) == ("DRAM", "vector float32")
    assert row["bound_s"] == FLOP / 1e11
    assert row["physical_bound_s"] == FLOP / 2e11
    assert row["roof_fraction"] == FLOP / 1e11 / s.median
    assert row["roof_fraction_low"] == pytest.approx(FLOP / 1.1e11 / s.high)  # type: ignore[operator]
    assert row["roof_fraction_high"] == pytest.approx(FLOP / 0.9e11 / s.low)  # type: ignore[operator]
    assert row["roof_fraction_low"] < row["roof_fraction"] < row["roof_fraction_high"]
    assert row["above_measured_roof"] is False
    assert (row["device"], row["unit"], row["threads"], row["cache"]) == ("synthetic-cpu", "unit0", 2, "cold")


SPARSE = {
    "operator": "block_sparse_attention",
    "problem": {
        "batch": 1,
        "q_heads": 2,
        "kv_heads": 1,
        "length": 64,
        "head_dim": 16,
        "block": 16,
        "density": 0.5,
    },
}


def test_what_was_realised_counts_where_it_is_stored(tmp_path: Path) -> None:
    figures = {"kept_blocks": 9.0, "kept_pairs": 1500.0, "kept_keys": 64.0}
    forecast, found, partial = derive(
        tmp_path,
        SPARSE,
        {**SPARSE, "structure_figures": figures, "structure_digest": "abc"},
        {**SPARSE, "structure_figures": {"kept_blocks": 9.0}},
    )
    # 4 diagonal blocks of 136 pairs and half of the 6 below, for each head.
    assert forecast["flop"] == 2 * (4 * 136 + 3 * 256) * 64
    assert found["flop"] == 1500 * 64
    assert found["intensity_flop_per_byte"] < forecast["intensity_flop_per_byte"]
    assert (found["structure_figures"], found["structure_digest"]) == (figures, "abc")
    assert partial["flop"] is None  # no figure is made up for one that is missing


COPY = {
    "operator": "stream",
    "role": "roof",
    "problem": {"operation": "copy", "elements": 10**5, "passes": 10},
    "working_set_bytes": 8e5,
}
WARM = {"timer": "perf_counter", "cache": "warm", "threads": 2, "version": 1}


def test_the_level_follows_from_cache_and_working_set(tmp_path: Path) -> None:
    one_thread = {**WARM, "threads": 1}
    cold, warm, small, one, unknown = derive(
        tmp_path,
        COPY,
        {**COPY, "protocol": WARM},
        {**COPY, "protocol": WARM, "working_set_bytes": 65536.0},
        {**COPY, "protocol": one_thread, "working_set_bytes": 65536.0},
        {**COPY, "protocol": WARM, "working_set_bytes": None},
    )
    assert [r["level"] for r in (cold, warm, small, one, unknown)] == ["DRAM", "L2", "L1", "L2", "L2"]
    assert (cold["bound"], cold["bound_s"]) == ("DRAM", 8e6 / 1e10)
    assert (warm["bound"], warm["bound_s"]) == ("L2", 8e6 / 1e11)
    assert cold["intensity_flop_per_byte"] == 0.0
    assert small["bound_s"] is None, "no ceiling of L1 was measured and a copy computes nothing"
    assert one["bound_s"] is None, "ceilings of two threads say nothing of one"
    assert one["physical_bound_s"] == 8e6 / 2e11, "physical ones of the whole device still do"


def test_above_the_roof_is_shown_and_not_clamped(tmp_path: Path) -> None:
    above, within, no_interval = derive(
        tmp_path,
        {"samples_s": blocks(0.002)},
        {"samples_s": blocks(0.0026)},
        {"samples_s": blocks(0.002, n_blocks=3)},
    )
    assert above["roof_fraction"] == pytest.approx(FLOP / 1e11 / 0.002)
    assert above["roof_fraction"] > 1.3
    assert above["above_measured_roof"] is True
    # 2.6 ms is above the median ceiling (2.68 ms) but not above its upper end (2.44 ms).
    assert within["roof_fraction"] > 1.0
    assert within["above_measured_roof"] is False
    assert no_interval["roof_fraction"] == pytest.approx(FLOP / 1e11 / 0.002)
    assert no_interval["n_blocks"] == 3
    for column in ("interval_low_s", "roof_fraction_low", "roof_fraction_high", "above_measured_roof"):
        assert no_interval[column] is None, "three blocks say nothing certain"


def test_roofs_seen_beside_the_case_are_used(tmp_path: Path) -> None:
    beside = (
        {"limit": "vector float32", "values_per_s": (4e10, 5e10, 6e10)},
        {"limit": "no such ceiling", "values_per_s": (1.0,)},
    )
    (row,) = derive(tmp_path, {"roofs_beside": beside})
    assert row["bound_s"] == FLOP / 5e10
    assert row["roof_fraction"] == pytest.approx(FLOP / 5e10 / 0.01)
    assert row["roof_fraction_low"] == pytest.approx(FLOP / 6e10 / row["interval_high_s"])
    assert row["roof_fraction_high"] == pytest.approx(FLOP / 4e10 / row["interval_low_s"])
    assert row["physical_bound_s"] == FLOP / 2e11, "physics does not move"
    slow_memory = ({"limit": "DRAM", "values_per_s": (1e8, 1e8)}, {"limit": "vector float32", "values_per_s": (0.0,)})
    (row,) = derive(tmp_path, {"roofs_beside": slow_memory})
    assert (row["bound"], row["bound_s"]) == ("DRAM", BYTES / 1e8)


TF32 = {"unit": "matrix", "a": "tfloat32", "b": "tfloat32"}


def test_the_roof_of_a_product_in_tf32_is_that_of_tf32(tmp_path: Path) -> None:
    device = make_device(
        rates=(rate(1e11), rate(8e11, **TF32), rate(2e11, kind="datasheet"), rate(9e11, kind="datasheet", **TF32))
    )
    times = {"samples_s": blocks(0.002)}
    exact, rounded = derive(tmp_path, times, {**times, "tf32": True, "implementation": "triton_tf32"}, device=device)
    assert (exact["bound"], exact["bound_s"], exact["physical_bound_s"]) == ("vector float32", FLOP / 1e11, FLOP / 2e11)
    assert (rounded["bound"], rounded["bound_s"]) == ("matrix tfloat32", FLOP / 8e11)
    assert rounded["physical_bound_s"] == FLOP / 9e11
    assert (exact["above_measured_roof"], rounded["above_measured_roof"]) == (True, False)
    assert exact["flop"] == rounded["flop"]


def test_without_measured_ceilings_there_is_no_fraction(tmp_path: Path) -> None:
    bare = make_device(rates=(), bandwidths=(bandwidth("DRAM", 2e10, kind="datasheet"),))
    (row,) = derive(tmp_path, device=bare)
    assert row["median_s"] == pytest.approx(0.01)
    assert row["physical_bound_s"] == BYTES / 2e10
    for column in ("bound_s", "bound", "roof_fraction", "above_measured_roof"):
        assert row[column] is None


@pytest.mark.parametrize("status", ["unsupported", "incorrect", "out_of_memory", "timeout", "crashed"])
def test_a_failure_is_never_a_number(tmp_path: Path, status: str) -> None:
    (row,) = derive(tmp_path, {"status": status, "baseline": "torch-matmul"})
    work = {"flop", "bytes", "intensity_flop_per_byte", "bound_s", "physical_bound_s"}
    assert [c for c in NUMBERS if c not in work and row[c] is not None] == []
    assert row["above_measured_roof"] is None
    assert row["bound_s"] == FLOP / 1e11, "what the device could have done is known all the same"
    assert row["reason"] == f"synthetic {status}"


def test_an_operator_of_the_user_keeps_its_times(tmp_path: Path) -> None:
    mine, wrong = derive(tmp_path, {"operator": "my_softmax", "problem": {"rows": 3}}, {"problem": {"rows": 3}})
    for row in (mine, wrong):
        assert row["median_s"] == pytest.approx(0.01)
        assert row["level"] == "DRAM"
        for column in ("flop", "bytes", "flop_per_s", "bound_s", "roof_fraction", "physical_bound_s"):
            assert row[column] is None


def case(implementation: str, time_s: float, **more: Any) -> dict[str, Any]:
    return {"implementation": implementation, "baseline": "torch", "samples_s": blocks(time_s), **more}


def test_speed_against_the_baseline(tmp_path: Path) -> None:
    other = {"m": 64, "n": 64, "k": 64, "precision": "float32"}
    failed = {"samples_s": (), "status": "crashed"}
    found = derive(
        tmp_path,
        case("torch", 0.010),
        case("fast", 0.005),
        case("slow", 0.020, status="unstable"),
        case("wrong", 0.001, status="impossible"),
        case("crashes", 0.010, **failed),
        case("other protocol", 0.005, protocol=WARM),
        case("other problem", 0.005, problem=other),
        case("torch", 0.012, process=1),
        case("fast", 0.004, process=1),
        case("torch", 0.010, process=2, **failed),
        case("fast", 0.004, process=2),
        case("torch", 0.010, process=3, status="unstable"),
        case("fast", 0.004, process=3),
        {"implementation": "no baseline named"},
    )
    ratios = [r["speed_ratio_to_baseline"] for r in found]
    expected = [1.0, 2.0, 0.5, None, None, None, None, 1.0, 3.0, None, None, None, None, None]
    assert ratios == [e if e is None else pytest.approx(e) for e in expected]
    assert summary_counts(found) == {"ok": 9, "impossible": 1, "unstable": 2, "crashed": 2}
    assert list(summary_counts(found)) == ["ok", "impossible", "unstable", "crashed"]


def test_baselines_are_not_shared_between_runs(tmp_path: Path) -> None:
    derive(tmp_path, case("torch", 0.010))
    assert derive(tmp_path, case("fast", 0.005))[0]["speed_ratio_to_baseline"] is None
    assert [r["speed_ratio_to_baseline"] for r in rows(Store(tmp_path))] == [1.0, None]


def test_rows_are_json_and_frames_have_the_same_columns(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    found = rows(store)
    assert len(found) == 12
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert all(set(row) == set(COLUMNS) for row in found)
    assert set(COLUMNS) == set(Measurement.model_fields) | {
        "device",
        "unit",
        "ranks",
        "threads",
        "cache",
        *NUMBERS,
        *NAMES,
    }
    table = frame(store)
    assert list(table.columns) == list(COLUMNS)
    assert table.attrs["set_aside"] == []
    assert table.roof_fraction.tolist()[0] == found[0]["roof_fraction"]
    assert math.isnan(table.roof_fraction[table.status == "crashed"].iloc[0])
    assert (table.dtypes[list(NUMBERS)] == "float64").all()
    assert len(frame(store, "latest")) == 6
    assert table.speed_ratio_to_baseline[table.implementation == "native-gemm"].iloc[0] == pytest.approx(1.25)
    empty = frame(Store(tmp_path / "empty"))
    assert list(empty.columns) == list(COLUMNS)
    assert (empty.dtypes[list(NUMBERS)] == "float64").all()


def test_a_run_with_a_damaged_device_keeps_its_times(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    bad = store.runs()[0].run_id
    (tmp_path / "runs" / bad / "device.json").write_text("{")
    table = frame(store)
    hurt = table[(table.run_id == bad) & (table.status == "ok")]
    assert hurt.median_s.notna().all()
    assert hurt.flop_per_s.notna().all()
    assert hurt.roof_fraction.isna().all()
    assert table[(table.run_id != bad) & (table.status == "ok")].roof_fraction.notna().all()
    assert [s["where"] for s in table.attrs["set_aside"]] == [bad]


def test_five_thousand_records(tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifest = make_manifest()
    samples = blocks(0.01, n_blocks=10)
    with store.create(manifest, make_device()) as writer:
        # Straight into the list that `finish` writes: 5000 fsyncs are not what this test is about.
        writer.records.extend(
            make_measurement(run_id=manifest.run_id, samples_s=samples, case_id=f"c{i}") for i in range(5000)
        )
        writer.finish()
    rows(make_store(tmp_path / "warm up", 1))
    start = time.process_time()
    assert len(rows(store)) == 5000
    # Seconds of CPU time, so that other work on the machine does not fail it; more than half is `summarise`.
    assert time.process_time() - start < 6.0


def test_the_roof_at_the_clock_that_was_seen(tmp_path: Path) -> None:
    """The data sheet's rate holds at 2000 MHz and the kernel ran at 1000: half of it was the roof."""
    physical = rate(2e11, kind="datasheet", source=SHEET, clock_mhz=2000.0)
    device = make_device(rates=(rate(1e11, threads=2), physical))
    clocks = [{"clock_mhz": 1000.0}] * 6 + [{"clock_mhz": 400.0}]
    slow_clock = {"conditions": clocks, "left_out": [{"block": 6, "cause": "clock ramp"}]}
    corrected, unknown = derive(tmp_path, slow_clock, {}, device=device)
    assert corrected["clock_mhz"] == 1000.0, "the block that was left out does not tell"
    assert corrected["physical_bound_s"] == FLOP / 2e11
    assert corrected["clock_corrected_roof_fraction"] == pytest.approx(FLOP / 1e11 / corrected["median_s"])
    assert (unknown["clock_mhz"], unknown["clock_corrected_roof_fraction"]) == (None, None)


def test_a_device_without_a_nominal_clock_has_no_corrected_roof(tmp_path: Path) -> None:
    (row,) = derive(tmp_path, {"conditions": [{"clock_mhz": 3000.0}] * 7})
    assert (row["clock_mhz"], row["clock_corrected_roof_fraction"]) == (3000.0, None)
