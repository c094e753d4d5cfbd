"""Published times on their device's roofline: what is drawn, what is left out, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_pages import open_page

from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.limits import limits
from ridgeline.analytical.operators import gemm_work
from ridgeline.dashboard.published_points import by_software, points_of, spread_out
from ridgeline.results.importers.source_file import store_import
from ridgeline.results.published import Published
from ridgeline.results.store import Store

H100, A100 = (catalogue()[name] for name in ("nvidia-h100-sxm5-80gb", "nvidia-a100-sxm4-80gb"))


def published(m: int, seconds: float, precision: str = "bfloat16", **more: str) -> Published:
    return Published(
        run_id="20261101T000000Z-00000000-published", record_id=f"{m}-{precision}-{more.get('tool', '')}",
        started_at="2026-11-01T00:00:00Z", source="tables 1", source_file="t.parquet", source_row=m, licence="Apache-2.0",
        tool_version="1.0", device_id=H100.id, device_text="H100", operator="gemm",
        problem={"m": m, "n": 4096, "k": 4096, "precision": precision}, problem_label=f"{m}x4096x4096 {precision}",
        seconds=seconds, **{"tool": "vllm", **more},
    )  # fmt: skip


def test_a_time_is_a_share_of_its_devices_bound() -> None:
    found = points_of([published(1, 20e-6), published(8192, 500e-6)], H100)
    decode, prefill = found.frame.to_dict("records")
    assert (decode["bound_by"], prefill["bound_by"]) == ("HBM", "matrix bfloat16")
    bound_s = float(limits(gemm_work(8192.0, 4096.0, 4096.0, "bfloat16"), H100).overlapped_s)
    assert prefill["share"] == pytest.approx(bound_s / 500e-6)
    assert prefill["flop_per_s"] == pytest.approx(2 * 8192 * 4096 * 4096 / 500e-6)
    assert {key.label for key in found.keys} == {"matrix bfloat16"}
    assert found.left_out == ()


def test_what_cannot_be_drawn_is_counted_and_says_why() -> None:
    records = [published(64, 1e-4), published(64, 1e-4, "float8_e4m3fn"), published(0, 1e-4)]
    found = points_of(records, A100)
    assert len(found.frame) == 1
    zero, eight = found.left_out
    assert zero == "1 in bfloat16 with a size of zero"
    assert eight.startswith("1 in float8_e4m3fn: nvidia-a100-sxm4-80gb has no matrix float8_e4m3fn rate")
    assert len(points_of(records, H100).frame) == 2


def test_each_software_has_a_line_that_counts_its_violations() -> None:
    records = [published(1, 1e-6), published(1, 20e-6, tool="sglang"), published(8192, 500e-6)]
    lines = {
        (row["software"], row["bound by"]): row
        for row in by_software(points_of(records, H100).frame).to_dict("records")
    }
    assert lines["vllm 1.0", "HBM"]["under the bound"] == 1  # 34 MB in a microsecond
    assert lines["sglang 1.0", "HBM"]["under the bound"] == 0
    assert lines["vllm 1.0", "matrix bfloat16"]["times"] == 1


def test_too_many_are_thinned_evenly() -> None:
    records = [published(m, 1e-5) for m in range(1, 12)]
    assert [r.source_row for r in spread_out(records[:10], 5)] == [1, 3, 5, 7, 9]
    assert len(spread_out(records, 5)) <= 5
    assert spread_out([], 5) == []


def test_the_page_draws_a_devices_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    records = [published(1, 20e-6), published(8192, 500e-6, tool="sglang"), published(64, 1e-3, quarantined="jitter")]
    store_import(
        store, run_id=records[0].run_id, tool="tables", identity="1", records=records, device=None, name=H100.name
    )
    app = open_page("published", store.path, monkeypatch)
    names = [trace.get("name") for trace in json.loads(app.get("plotly_chart")[0].proto.spec)["data"]]
    assert {"sglang 1.0", "vllm 1.0"} <= set(names)
    table = app.dataframe[0].value
    assert table["times"].sum() == 2  # the quarantined one is left out until it is asked for
    assert "not measured by Ridgeline" in app.markdown[0].value
    app.toggle(key="quarantined").set_value(True).run()
    assert app.dataframe[0].value["times"].sum() == 3


def test_a_store_without_published_times_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    odd = published(1, 20e-6).model_copy(update={"device_id": ""})
    store_import(store, run_id=odd.run_id, tool="tables", identity="1", records=[odd], device=None, name="unknown")
    app = open_page("published", store.path, monkeypatch)
    assert "ridgeline store import aiconfigurator" in app.info[0].value
