"""Pages that need no store: models on devices, and the catalogue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from ridgeline.analytical.catalogue import catalogue
from ridgeline.dashboard import serve
from ridgeline.dashboard.figures.catalogue import device_map
from ridgeline.dashboard.figures.step import MOST_PARTS, REST, step_bars

H100, A100 = "nvidia-h100-sxm5-80gb", "nvidia-a100-sxm4-80gb"


@pytest.fixture(autouse=True)
def _no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIDGELINE_STORE", str(tmp_path / "none"))


def open_page(page: str, **parameters: str | list[str]) -> AppTest:
    app = AppTest.from_file(str(serve.APP), default_timeout=60)
    app.switch_page(f"screens/{page}.py")
    for name, value in parameters.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, [e.value for e in app.exception]
    assert not app.error, [e.value for e in app.error]
    return app


def figure(app: AppTest) -> dict[str, Any]:
    return dict(json.loads(app.get("plotly_chart")[0].proto.spec))


def devices_table(app: AppTest) -> pd.DataFrame:
    return app.dataframe[0].value


def test_a_prefill_of_llama_3_8b_takes_what_was_worked_out_by_hand() -> None:
    app = open_page("models", model="llama-3-8b", devices=[H100, A100], phase="prefill")
    table = devices_table(app).set_index("device")
    # 29.7 TFLOP at 989.4 TFLOP/s and 312 TFLOP/s, and the head's weights.
    assert table.loc["NVIDIA H100 SXM5 80 GB", "bound of the step"] == "30.3 ms"
    assert table.loc["NVIDIA A100 SXM4 80 GB", "bound of the step"] == "95.7 ms"
    assert table["fits"].tolist() == ["yes", "yes"]
    bars = figure(app)["data"]
    assert sum(bar["x"][0] for bar in bars) == pytest.approx(30.3e-3, rel=0.01)
    assert {"attention", "gate_up", "lm_head"} <= {bar["name"] for bar in bars}


def test_what_does_not_fit_says_by_how_much() -> None:
    app = open_page("models", model="llama-3-70b", devices=[H100], phase="decode")
    (row,) = devices_table(app).to_dict("records")
    assert row["fits"].startswith("does not fit: needs 14")
    assert row["largest batch"] == "0"


def test_what_a_device_or_a_layout_cannot_do_is_one_line_and_the_rest_is_shown() -> None:
    app = open_page("models", devices=[A100, H100], weights="float8_e4m3fn", activations="float8_e4m3fn")
    assert [w.value for w in app.warning if "A100" in w.value and "float8_e4m3fn" in w.value]
    assert devices_table(app)["device"].tolist() == ["NVIDIA H100 SXM5 80 GB"]
    nothing = open_page("models", model="whisper-large-v3", devices=[H100], phase="decode", tp="16")
    assert "20 query heads" in nothing.warning[0].value
    assert not nothing.dataframe


def test_an_encoder_has_a_page_too() -> None:
    app = open_page("models", model="vit-b-16", devices=[H100])
    assert app.sidebar.selectbox[1].options == ["encoder"]
    assert devices_table(app)["largest batch"].tolist() == ["–"]


def test_the_catalogue_with_a_device_by_its_address() -> None:
    app = open_page("hardware", device="nvidia-l40s")
    assert len(app.dataframe[0].value) == len(catalogue())
    ceilings, facts = app.dataframe[1].value, app.dataframe[2].value
    assert "matrix bfloat16" in set(ceilings["ceiling"])
    assert (ceilings["source"] != "").all()
    assert "350 W (datasheet)" in set(facts["value"])
    lost = open_page("hardware", device="tpu-v99")
    assert "tpu-v99" in lost.warning[0].value


def test_the_map_leaves_out_what_states_no_rate() -> None:
    known = list(catalogue().values())
    drawn = device_map(known, "float8_e4m3fn", {H100})
    points = [trace for trace in drawn.data if trace.mode == "markers+text"]
    assert 0 < sum(len(trace.x) for trace in points) < len(known)
    assert "NVIDIA H100 SXM5 80 GB" in [name for trace in points for name in trace.text]
    empty = device_map([catalogue()["nvidia-a100-sxm4-80gb"]], "float8_e4m3fn")
    assert not empty.data
    assert [a.name for a in empty.layout.annotations] == ["note"]


def test_bars_add_up_and_the_short_ones_are_one_part() -> None:
    rows = pd.DataFrame(
        {
            "operator": [f"o{i}" for i in range(12)],
            "seconds": [float(i + 1) for i in range(12)],
            "bound_by": ["HBM"] * 12,
        }
    )
    drawn = step_bars({"a": rows, "b": rows.assign(seconds=2.0 * rows["seconds"])})
    assert len(drawn.data) == MOST_PARTS + 1
    assert drawn.data[-1].name == REST
    assert [sum(trace.x[i] for trace in drawn.data) for i in (0, 1)] == [78.0, 156.0]
