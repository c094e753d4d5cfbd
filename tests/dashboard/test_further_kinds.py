"""Pages over comparisons, blocks left out, several processes, energy, scripted times and what others measured."""

from __future__ import annotations

import math
from pathlib import Path

import further_kinds
import pandas as pd
import pytest
import showcase
from test_pages import figure, open_page, values, words

from ridgeline.dashboard import energy, kinds, processes, profiles
from ridgeline.dashboard.figures.comparison import forest, quad_ratios
from ridgeline.dashboard.figures.conditions import conditions_chart
from ridgeline.dashboard.figures.distribution import distribution
from ridgeline.dashboard.figures.points import hover_text
from ridgeline.results import views
from ridgeline.results.comparison import derived
from ridgeline.results.store import Store


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = showcase.make_showcase(Path(tmp_path_factory.mktemp("further")))
    return further_kinds.add_further(store).path


def test_comparisons_show_verdicts_ratios_and_failures(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("comparisons", full, monkeypatch)
    table = app.dataframe[0].value.set_index(app.dataframe[0].value["detail"].str.split("=").str[-1])
    assert dict(table["verdict"]) == {
        "c-faster": "faster", "c-slower": "slower", "c-same": "same", "c-unclear": "unclear", "c-left-out": "faster",
        "c-replay": "faster, replay", "c-failed": "incorrect",
    }  # fmt: skip
    assert table.loc["c-failed", "ratio B/A [interval]"] == "–", "a failure is no number"
    assert "tolerance" in table.loc["c-failed", "reason"]
    assert table.loc["c-left-out", "left out"] == "3: 2 other processes, 1 power limit"
    assert (table.loc["c-left-out", "quads"], table.loc["c-failed", "quads"]) == ("61", "–")
    assert table.loc["c-slower", "B"] == "native_avx512@0123456789ab"
    assert "scripted, not measured" in table.loc["c-replay", "protocol"]
    drawn = [t for t in figure(app)["data"] if t.get("meta") == "ratio"]
    assert sum(len(t["x"] if not isinstance(t["x"], dict) else values(t["x"])) for t in drawn) == 6


def test_comparison_is_found_by_its_record_and_follows_the_choice(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("comparisons", full, monkeypatch, comparison="c-slower")
    assert app.selectbox(key="chosen_comparison").value == "c-slower"
    facts = pd.concat([t.value for t in app.table])["value"]
    assert "native_avx512@0123456789ab" in facts["B"]
    app.selectbox(key="chosen_comparison").set_value("c-replay").run()
    assert not app.exception
    assert app.query_params["comparison"] == "c-replay"
    assert kinds.REPLAY in words(app)
    app = open_page("comparisons", full, monkeypatch, comparison="c-failed")
    assert "relative error 0.5" in app.error[0].value
    app = open_page("comparisons", full, monkeypatch, comparison="nowhere")
    assert "No comparison `nowhere`" in words(app)


def test_comparisons_are_filtered_by_the_address(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("comparisons", full, monkeypatch, operator="attention", verdict="unclear")
    assert list(app.dataframe[0].value["verdict"]) == ["unclear"]
    app.multiselect(key="verdict").set_value(["slower"]).run()
    assert "Nothing matches" in words(app)


def test_without_comparisons_the_page_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("comparisons", showcase.make_showcase(tmp_path).path, monkeypatch)
    assert "`ridgeline compare A B`" in words(app)
    assert not app.dataframe


def test_forest_has_an_interval_and_a_margin_for_every_ratio() -> None:
    rows = [derived(further_kinds.comparison(i)) for i in range(6)]
    chart = forest(rows)
    assert sum(shape.name == "margin" for shape in chart.layout.shapes) == 6
    traces = {t.name: t for t in chart.data}
    slower = next(r for r in rows if r["verdict"] == "slower")
    assert traces["slower"].x[0] + traces["slower"].error_x.array[0] == pytest.approx(slower["ratio_high"])
    assert traces["slower"].x[0] - traces["slower"].error_x.arrayminus[0] == pytest.approx(slower["ratio_low"])
    few = derived(further_kinds.comparison(0).model_copy(update={
        name: getattr(further_kinds.comparison(0), name)[:3] for name in ("a_s", "b_s", "a_first", "arrangement")
    }))  # fmt: skip
    (alone,) = forest([few]).data
    assert alone.error_x.array == (None,), "without an interval there is no bar"


def test_quads_left_out_have_their_own_symbol_and_cause() -> None:
    row = derived(further_kinds.comparison(4))
    traces = {t.name: t for t in quad_ratios(row).data}
    assert list(traces["left out"].x) == [6, 18, 41]
    assert "power limit" in traces["left out"].text[1]
    assert len(traces["A B B A"].x) + len(traces["B A A B"].x) == 61
    assert not set(traces["left out"].x) & {*traces["A B B A"].x, *traces["B A A B"].x}


def test_left_out_blocks_are_marked_and_in_no_figure_of_the_median(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("kernel", full, monkeypatch, run=further_kinds.CONTRIBUTED, record="p-0")
    facts = pd.concat([t.value for t in app.table if "value" in t.value.columns])["value"]
    record = further_kinds.loaded(0)
    n = len(record.samples_s)
    assert facts["blocks left out, by cause"] == f"2 of {n}: 1 other processes, 1 power limit"
    chart = figure(app)
    out = next(t for t in chart["data"] if t.get("meta") == "left out")
    assert set(out["text"]) == {"block 4 left out: other processes", "block 9 left out: power limit"}
    counted = next(t for t in chart["data"] if t.get("meta") == "histogram")
    assert len(values(counted["y"])) == sum(len(b) for b in record.used_samples_s)
    medians = next(t for t in chart["data"] if t.get("meta") == "block medians")
    assert sum(y is not None and not math.isnan(y) for y in values(medians["y"])) == 2 * (n - 2)


def test_conditions_are_drawn_where_recorded_only(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("kernel", full, monkeypatch, run=further_kinds.CONTRIBUTED, record="p-0")
    drawn = {t["meta"] for t in figure(app, 1)["data"]}
    assert drawn == {"load_other", "power_w", "temperature_c", "limited_s"}, "no clock was recorded, so none is drawn"
    assert len(open_page("kernel", full, monkeypatch, run=showcase.RUN).get("plotly_chart")) == 2
    assert conditions_chart([], {}, "black") is None
    assert conditions_chart([{"clock_mhz": None}, {"clock_mhz": math.nan}], {}, "black") is None
    chart = conditions_chart([{"clock_mhz": 2000.0}, {"clock_mhz": None}], {1: "thermal limit"}, "black")
    assert chart is not None
    assert list(chart.data[0].y) == [2000.0, None], "what was not seen is a gap, not a zero"


def test_a_distribution_without_left_out_blocks_has_no_such_trace() -> None:
    assert "left out" not in {t.meta for t in distribution([[1e-3], [2e-3]], 1e-3, None, None, None).data}


def test_each_process_is_shown_with_its_interval(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("kernel", full, monkeypatch, run=further_kinds.CONTRIBUTED, record="p-1")
    table = next(d.value for d in app.dataframe if "process" in d.value.columns)
    assert list(table["process"]) == [0, 1, 2]
    assert table["time [interval]"].str.contains(r"\[.+, .+\]").all()
    over = open_page("overview", full, monkeypatch, run=further_kinds.CONTRIBUTED)
    (line,) = next(d.value for d in over.dataframe if "processes" in d.value.columns).to_dict("records")
    assert line["processes"] == 3
    assert line["process: time [interval]"].count("[") == 3
    assert processes.spread(pd.Series([1.0])) == "–"
    assert processes.spread(pd.Series([0.99, 1.0, 1.01])) == "2.00 %"


def test_a_contributed_run_is_marked(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = open_page("runs", full, monkeypatch).dataframe[0].value.set_index("run")
    assert runs.loc[further_kinds.CONTRIBUTED, "origin"] == "contributed"
    assert runs.loc[showcase.RUN, "origin"] == "measured here"
    assert runs.loc[further_kinds.TIMED_ELSEWHERE, "origin"] == "imported from pytest-benchmark"
    assert runs.loc[further_kinds.COMPARED, "roofline"] == ""
    assert "measured by somebody else" in words(open_page("overview", full, monkeypatch, run=further_kinds.CONTRIBUTED))
    assert "measured by somebody else" not in words(open_page("overview", full, monkeypatch, run=showcase.RUN))


def test_the_pages_of_measurements_open_on_a_run_that_has_some(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = open_page("overview", full, monkeypatch).selectbox(key="run")
    assert choice.value == showcase.RUN, "newer runs hold comparisons and other tools' numbers only"
    assert further_kinds.COMPARED not in choice.options


def test_other_tools_numbers_stand_apart(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("runs", full, monkeypatch)
    timed = next(d.value for d in app.dataframe if "benchmark" in d.value.columns)
    assert list(timed["median (min to max)"]) == ["1.20 ms (1.10 ms to 1.60 ms)"]
    profile = next(d.value for d in app.dataframe if "DRAM bytes" in d.value.columns)
    assert list(profile["DRAM bytes"]) == ["25.2 MB"]
    assert words(app).count("not measured by Ridgeline") == 2


def test_counted_bytes_stand_beside_modelled_ones(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("kernel", full, monkeypatch, run=showcase.RUN, record="20261121-000")
    table = next(t.value for t in app.table if "DRAM bytes, counted" in t.value.index)["value"]
    assert (table["DRAM bytes, counted"], table["compulsory bytes, modelled"]) == ("25.2 MB", "12.6 MB")
    assert table["counted over modelled"] == "2.00"
    assert "occupancy" not in table.index, "what was not counted is no line"
    assert profiles.counter_facts(pd.Series({"bytes": 1.0})) == []


def test_scripted_times_are_marked_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, run = Store(tmp_path), further_kinds.CONTRIBUTED
    with store.create(showcase.manifest(run, planned=2), showcase.make_device()) as writer:
        for process, timer in ((0, "replay"), (1, "perf_counter")):
            writer.append(further_kinds.loaded(process, timer))
        writer.finish()
    assert f"{kinds.REPLAY} (1 of 2 records)" in words(open_page("overview", tmp_path, monkeypatch))
    assert f"violet-badge[{kinds.REPLAY}]" in words(open_page("kernel", tmp_path, monkeypatch, record="p-0"))
    assert f"violet-badge[{kinds.REPLAY}]" not in words(open_page("kernel", tmp_path, monkeypatch, record="p-1"))
    marked = [kinds.REPLAY in hover_text(row) for row in views.frame(store, run).itertuples(index=False)]
    assert marked == [True, False]
    points = [t for t in figure(open_page("roofline", tmp_path, monkeypatch))["data"] if t.get("meta") == "case"]
    assert [kinds.REPLAY in text for t in points for text in t["text"]].count(True) == 1


def test_energy_is_shown_or_its_reason(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("kernel", full, monkeypatch, run=showcase.RUN)
    assert "No figure: no meter: /sys/class/powercap has no readable counter" in words(app)
    assert "Energy per launch" not in {m.label for m in app.metric}
    store = Store(full)
    run = "20261122T000000Z-000000e0"
    with store.create(showcase.manifest(run), showcase.make_device()) as writer:
        writer.append(showcase.measurement(0, run).model_copy(update={"energy_j": 0.5, "energy_reason": ""}))
        writer.finish()
    metrics = {m.label: m.value for m in open_page("kernel", full, monkeypatch, run=run).metric}
    assert metrics["Energy per launch"].startswith("500")
    assert metrics["Work per joule"] == "4.29 GFLOP/J"


def test_energy_columns_that_are_missing_mean_no_figure() -> None:
    assert energy.energy_facts(pd.Series({"flop": 1.0})) == []
    assert energy.energy_facts(pd.Series({"energy_j": math.nan, "energy_low_j": 1.0})) == []
    assert energy.reason_of(pd.Series({"energy_reason": math.nan})) == "not measured"
    row = pd.Series({
        "energy_j": 0.5, "energy_low_j": 0.45, "energy_high_j": 0.56, "energy_net_j": 0.3, "power_w": 61.0,
        "flop": 1e9, "energy_quality": "whole package",
    })  # fmt: skip
    assert dict(energy.energy_facts(row)) == {
        "Energy per launch": "500 [450, 560] mJ", "Above idle": "300 mJ", "Power": "61.0 W",
        "Work per joule": "2.00 GFLOP/J",
    }  # fmt: skip
    assert energy.quality_of(row) == "whole package"
