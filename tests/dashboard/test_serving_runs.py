"""Serving runs that others measured are shown on Runs, and no page stumbles over them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_pages import open_page

from ridgeline.results.importers.inferencex import import_inferencex
from ridgeline.results.store import Store


def test_serving_runs_have_a_table_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "hw": "h200", "tp": 8, "conc": 64, "model": "deepseek-ai/DeepSeek-R1", "framework": "sglang", "precision": "fp8",
        "isl": 1024, "osl": 1024, "tput_per_gpu": 520.0, "median_ttft": 0.8, "median_tpot": 0.028, "mean_e2el": 29.0,
    }  # fmt: skip
    path = tmp_path / "agg.json"
    path.write_text(json.dumps(row))
    store = Store(tmp_path / "store")
    import_inferencex(store, path)
    app = open_page("runs", store.path, monkeypatch)
    (line,) = next(t.value for t in app.dataframe if "tpot" in t.value.columns).to_dict("records")
    assert (line["model"], line["users"], line["tpot"], line["e2el"]) == (
        "deepseek-ai/DeepSeek-R1", "64", "28.0 ms", "mean 29.0 s",
    )  # fmt: skip
    for page in ("overview", "roofline", "comparisons"):
        assert not open_page(page, store.path, monkeypatch).exception
