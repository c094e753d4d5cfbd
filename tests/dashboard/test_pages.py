"""Pages over a full, an empty, a damaged and an unfinished store: what they show, and never an exception."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import showcase
from streamlit.testing.v1 import AppTest

from ridgeline.dashboard import data, serve, tables
from ridgeline.results import views

PAGES = ("overview", "roofline", "kernel", "comparisons", "runs")
OF_ONE_RUN = ("overview", "roofline", "kernel")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return showcase.make_showcase(Path(tmp_path_factory.mktemp("full"))).path


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = showcase.make_showcase(Path(tmp_path_factory.mktemp("damaged")))
    showcase.damage(store)
    return store.path


def open_page(page: str, store: Path, monkeypatch: pytest.MonkeyPatch, **parameters: str | list[str]) -> AppTest:
    monkeypatch.setenv("RIDGELINE_STORE", str(store))
    app = AppTest.from_file(str(serve.APP), default_timeout=60)
    if page != "overview":
        app.switch_page(f"screens/{page}.py")
    for name, value in parameters.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, [e.value for e in app.exception]
    assert not any("This page failed" in e.value for e in app.error), [e.value for e in app.error]
    return app


def figure(app: AppTest, position: int = 0) -> dict[str, Any]:
    return json.loads(app.get("plotly_chart")[position].proto.spec)


def values(array: Any) -> list[float]:
    """A Plotly array, which may be encoded."""
    if isinstance(array, dict):
        return list(np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"]))
    return list(array)


def words(app: AppTest) -> str:
    kinds = ("markdown", "caption", "info", "warning", "error", "title", "subheader")
    return "\n".join(str(element.value) for kind in kinds for element in getattr(app, kind))


@pytest.mark.parametrize("page", PAGES)
def test_every_page_over_a_full_store(page: str, full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page(page, full, monkeypatch)
    assert app.title[0].value
    assert not app.error
    assert not app.warning


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("made", [False, True])
def test_every_page_over_an_empty_store(page: str, made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "nothing"
    if made:
        (store / "runs").mkdir(parents=True)
    text = words(open_page(page, store, monkeypatch))
    assert "No runs in" in text
    assert "make run" in text
    assert "ridgeline run quick" in text


@pytest.mark.parametrize("page", PAGES)
def test_every_page_over_a_damaged_store(page: str, damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page(page, damaged, monkeypatch)
    if page in OF_ONE_RUN:
        assert app.dataframe or app.get("plotly_chart")


@pytest.mark.parametrize("page", PAGES)
def test_a_store_that_is_a_file(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "file"
    store.write_text("not a folder")
    app = open_page(page, store, monkeypatch)
    assert "cannot be read" in words(app)


@pytest.mark.parametrize("page", PAGES)
def test_only_damaged_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "runs" / showcase.RUN
    run.mkdir(parents=True)
    (run / "run.json").write_text("{")
    assert "damaged" in words(open_page(page, tmp_path, monkeypatch))


@pytest.mark.parametrize("page", PAGES)
def test_a_run_without_results_or_device(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = showcase.make_showcase(tmp_path)
    shutil.rmtree(tmp_path / "runs" / showcase.OLD_RUN)
    (tmp_path / "runs" / showcase.RUN / "device.json").write_text("{}")
    app = open_page(page, tmp_path, monkeypatch)
    if page in OF_ONE_RUN:
        assert "device.json" in words(app)
    with store.create(showcase.manifest("20261122T000000Z-00000001"), showcase.make_device()):
        pass
    app = open_page(page, tmp_path, monkeypatch, run="20261122T000000Z-00000001")
    if page in OF_ONE_RUN:
        assert "no measure" in words(app) or "no measured case" in words(app)


def test_overview_counts_failures_and_presets(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("overview", full, monkeypatch)
    metrics = {m.label: m.value for m in app.metric}
    assert metrics["Ok"] == "13 of 17"
    assert metrics["Operators"] == "4"
    best, failed, everything = (d.value for d in app.dataframe)
    assert list(best["operator"]) == sorted(best["operator"])
    assert best.set_index("operator").loc["gemm", "implementation"] == "native_avx512"
    assert best["share"].max() > 100.0
    assert set(failed["status"]) == {"unsupported", "unstable", "incorrect", "timeout"}
    assert failed["reason"].str.len().min() > 5
    assert list(everything["operator"]) == sorted(everything["operator"])
    links = [link.proto.query_string for link in app.get("page_link")]
    assert any("operator=gemm" in link for link in links)
    assert any("record=" in link for link in links)


def test_overview_prefers_a_certain_figure_to_a_higher_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = showcase.make_showcase(tmp_path)
    run = "20261122T000000Z-0000000e"
    with store.create(showcase.manifest(run), showcase.make_device()) as writer:
        for index, status in ((0, "ok"), (1, "unstable"), (9, "unstable")):
            more = {"run_id": run, "status": status, "reason": "" if status == "ok" else "too noisy"}
            writer.append(showcase.measurement(index, run).model_copy(update=more))
        writer.finish()
    best = open_page("overview", tmp_path, monkeypatch, run=run).dataframe[0].value.set_index("operator")
    assert best.loc["gemm", "implementation"] == "torch_matmul"
    assert best.loc["attention", "status"] == "unstable"


def test_overview_finds_a_newer_run_when_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = showcase.make_showcase(tmp_path)
    app = open_page("overview", tmp_path, monkeypatch)
    newer = "20261122T000000Z-0000000f"
    with store.create(showcase.manifest(newer), showcase.make_device()) as writer:
        writer.append(showcase.measurement(0, newer))
        writer.finish()
    app.run()
    assert newer in app.selectbox(key="run").options


def test_roofline_draws_the_cases_on_log_axes(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("roofline", full, monkeypatch)
    chart = figure(app)
    assert chart["layout"]["xaxis"]["type"] == chart["layout"]["yaxis"]["type"] == "log"
    cases = [t for t in chart["data"] if t.get("meta") == "case"]
    assert sum(len(values(t["x"])) for t in cases) == 12
    assert len(app.get("plotly_chart")) == 2, "the copy has its own chart"
    assert app.get("plotly_chart")[0].proto.theme != "streamlit"
    config = json.loads(app.get("plotly_chart")[0].proto.config)
    assert config["toImageButtonOptions"] == {"format": "png", "scale": 2, "filename": "ridgeline"}


def test_roofline_reads_its_filters_from_the_address(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("roofline", full, monkeypatch, operator="gemm", precision="int8", threads="2", physical="false")
    assert app.multiselect(key="operator").value == ["gemm"]
    chart = figure(app)
    cases = [t for t in chart["data"] if t.get("meta") == "case"]
    assert [t["name"] for t in cases] == ["native_vnni"]
    assert not [t for t in chart["data"] if t.get("meta") == "physical ceiling"]
    assert {t["name"] for t in chart["data"] if t.get("meta") == "measured ceiling"} >= {"integer int8"}


def test_roofline_filters_and_says_when_nothing_is_left(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("roofline", full, monkeypatch)
    app.multiselect(key="operator").set_value(["attention"]).run()
    assert {t["legendgroup"] for t in figure(app)["data"] if t.get("meta") == "case"} == {"attention"}
    app.multiselect(key="precision").set_value(["int8"]).run()
    assert not app.exception
    assert "Nothing matches" in words(app)


def test_roofline_of_one_thread_uses_its_own_ceilings(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("roofline", full, monkeypatch, threads="1")
    chart = figure(app)
    vector = next(t for t in chart["data"] if t["name"] == "vector float32" and t["meta"] == "measured ceiling")
    assert set(values(vector["y"])) == {88e9}
    assert sum(len(values(t["x"])) for t in chart["data"] if t.get("meta") == "case") == 1


def test_roof_measurements_are_shown_when_asked_for(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("roofline", full, monkeypatch, roofs="true")
    assert "stream" in {t["legendgroup"] for t in figure(app)["data"] if t.get("meta") == "case"}


def test_kernel_is_found_by_its_record(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("kernel", full, monkeypatch, record="20261121-003")
    assert app.selectbox(key="implementation").value == "native_avx512"
    assert app.selectbox(key="problem").value == "256x256x256 float32"
    assert "measure the roofs again" in words(app)
    metrics = {m.label: m.value for m in app.metric}
    assert metrics["Roof fraction"] == "118 %"
    facts = pd.concat([t.value for t in app.table])["value"]
    assert "no meter" in facts["energy"]
    assert "tolerance 1.00e-05" in facts["error against the reference"]
    assert facts["prepare (pack, quantise, compile)"] == "48.0 ms"
    assert facts["speed against the baseline"].endswith("x of torch_matmul")
    assert len(app.get("plotly_chart")) == 2


def test_kernel_that_failed_says_why(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("kernel", full, monkeypatch, record="20261121-010")
    assert "relative error 3.1e-02" in app.error[0].value
    assert not app.get("plotly_chart")


def test_kernel_shows_a_roof_measurement_that_a_link_names(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("kernel", full, monkeypatch, record="20261121-016")
    assert app.selectbox(key="problem").value.startswith("triad")
    assert not app.warning


def test_kernel_follows_the_choice(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("kernel", full, monkeypatch, operator="weight_only_gemm")
    assert app.selectbox(key="implementation").value == "native_int4"
    app.selectbox(key="operator").set_value("gemm").run()
    assert not app.exception
    assert app.selectbox(key="problem").value.endswith(("float32", "int8"))
    app = open_page("kernel", full, monkeypatch, record="nowhere")
    assert "no measurement `nowhere`" in words(app)


def test_runs_names_damage_and_remedy(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("runs", damaged, monkeypatch)
    assert {m.label: m.value for m in app.metric} == {
        "Finished": "1",
        "Running": "0",
        "Unfinished": "1",
        "Damaged": "3",
    }
    text = words(app)
    assert "run.json: damaged" in text
    assert "upgrade ridgeline" in text
    assert "records.parquet: damaged" in text
    assert "it continues where this run stopped" in text
    aside = next(d.value for d in app.dataframe if "what and why" in d.value.columns)
    assert list(aside["run"]) == [showcase.OLD_RUN]
    assert "line 2" in aside["what and why"].iloc[0]


def test_csv_keeps_stored_names_and_all_rows(full: Path, tmp_path: Path) -> None:
    frame = views.frame(data.Store(full), showcase.RUN)
    file = tmp_path / "out.csv"
    file.write_text(tables.csv_of(frame), encoding="utf-8")
    back = pd.read_csv(file)
    assert set(back.columns) == set(views.COLUMNS) - {"samples_s"}
    assert len(back) == len(showcase.CASES)
    assert json.loads(back["problem"][0])["m"] == 1024
    assert back["median_s"].isna().sum() == 3, "a failure is no number"


def test_the_store_may_be_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIDGELINE_STORE", "/from/environment")
    assert data.store_path([]) == Path("/from/environment")
    assert data.store_path(["--store", "/a"]) == Path("/a")
    assert data.store_path(["--store=/b"]) == Path("/b")


def test_the_dashboard_does_not_import_torch() -> None:
    code = """
import pkgutil, sys, importlib, ridgeline.dashboard as d
for m in pkgutil.walk_packages(d.__path__, "ridgeline.dashboard."):
    if not m.name.endswith(".app") and ".screens." not in m.name:
        importlib.import_module(m.name)
from streamlit.testing.v1 import AppTest
from ridgeline.dashboard.serve import APP
for page in ("", "roofline", "kernel", "comparisons", "runs"):
    app = AppTest.from_file(str(APP), default_timeout=60)
    if page:
        app.switch_page(f"screens/{page}.py")
    assert not app.run().exception
heavy = sorted({m.split(".")[0] for m in sys.modules} & {"torch", "triton", "numba"})
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
