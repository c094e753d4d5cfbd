"""Figures: what is drawn, on which axes, with which intervals; nothing clamped, nothing lost."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
import showcase

from ridgeline.analytical.device import Device
from ridgeline.dashboard.figures.against_roof import against_roof, steps_of
from ridgeline.dashboard.figures.bandwidth import bandwidth_strip
from ridgeline.dashboard.figures.ceiling_labels import Box, Plane
from ridgeline.dashboard.figures.distribution import distribution
from ridgeline.dashboard.figures.look import styles_of
from ridgeline.dashboard.figures.points import MANY
from ridgeline.dashboard.figures.roofline import on_axes, pure_movement, roofline
from ridgeline.dashboard.quantity_text import engineering, percent, percent_interval, plain, with_interval
from ridgeline.results import views


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    store = showcase.make_showcase(Path(tmp_path_factory.mktemp("store")))
    table = views.frame(store, showcase.RUN)
    return table[(table["role"] == "case") & (table["threads"] == 2)]


@pytest.fixture(scope="module")
def device() -> Device:
    return showcase.make_device()


def traces(figure: go.Figure, meta: str) -> list[go.Scatter]:
    return [t for t in figure.data if t.meta == meta]


def test_roofline_is_log_log_with_units(frame: pd.DataFrame, device: Device) -> None:
    layout = roofline(frame, device, threads=2).layout
    assert (layout.xaxis.type, layout.yaxis.type) == ("log", "log")
    assert "FLOP/byte" in layout.xaxis.title.text
    assert "FLOP/s" in layout.yaxis.title.text
    assert layout.yaxis.scaleanchor == "x"


def test_slope_names_lie_along_the_slopes_and_not_on_each_other(frame: pd.DataFrame, device: Device) -> None:
    figure = roofline(frame, device, threads=2)
    names = [a for a in figure.layout.annotations if a.name == "ceiling label" and a.textangle]
    assert len(names) == 8
    # One decade to the right is one decade up, and scaleratio times as many pixels.
    angle = -math.degrees(math.atan(figure.layout.yaxis.scaleratio))
    assert [a.textangle for a in names] == pytest.approx([angle] * 8)
    plane = Plane(figure.layout.xaxis.range, figure.layout.yaxis.range, 100.0, 100.0 * figure.layout.yaxis.scaleratio)
    centres = [plane.along(a.x, a.y) for a in names]
    assert len({(round(c), round(across)) for c, across in centres}) == 8


def test_levels_of_one_ceiling_share_a_name(frame: pd.DataFrame, device: Device) -> None:
    same = dataclasses.replace(
        device,
        bandwidths=tuple(
            dataclasses.replace(b, value_per_s=5e11, low_per_s=5e11, high_per_s=5e11) if b.kind == "derived" else b
            for b in device.bandwidths
        ),
    )
    for figure in (roofline(frame, same, threads=2), bandwidth_strip(pure_movement(frame), same, threads=2)):
        texts = [a.text for a in figure.layout.annotations]
        assert texts.count("L1, L2, L3, DRAM 500 GB/s · physical") == 1


def test_names_on_near_lines_move_apart() -> None:
    first, second = Box(100.0, 0.0, 80.0), Box(150.0, 5.0, 80.0)
    assert first.overlaps(second)
    assert not first.overlaps(Box(150.0, 20.0, 80.0))
    assert not first.overlaps(Box(200.0, 0.0, 80.0))


def test_roofline_draws_every_timed_case_where_it_was_measured(frame: pd.DataFrame, device: Device) -> None:
    drawn = {
        record: (x, y)
        for trace in traces(roofline(frame, device, threads=2), "case")
        for (record,), x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
    }
    expected = frame[frame["median_s"].notna() & (frame["flop"] > 0)]
    assert set(drawn) == set(expected["record_id"])
    for row in expected.itertuples():
        assert drawn[row.record_id] == (row.intensity_flop_per_byte, row.flop / row.median_s)


def test_a_point_above_the_roof_stays_above_it(frame: pd.DataFrame, device: Device) -> None:
    above = frame[frame["roof_fraction"] > 1.1].iloc[0]
    roof = device.select(["measured"], 2).rates[0].value_per_s
    figure = roofline(frame, device, threads=2)
    point = next(
        (y, colour, text)
        for t in traces(figure, "case")
        for (record,), y, colour, text in zip(t.customdata, t.y, t.marker.line.color, t.text, strict=True)
        if record == above["record_id"]
    )
    assert point[0] > 1.1 * roof
    assert point[1] == "#b42318"
    assert "measure the roofs again" in point[2]


def test_error_bars_reach_the_ends_of_the_interval(frame: pd.DataFrame, device: Device) -> None:
    rows = frame.set_index("record_id")
    seen = missing = 0
    for trace in traces(roofline(frame, device, threads=2), "case"):
        bars = trace.error_y
        for (record,), y, plus, minus in zip(trace.customdata, trace.y, bars.array, bars.arrayminus, strict=True):
            row = rows.loc[record]
            if math.isnan(row["interval_low_s"]):
                assert plus is None or math.isnan(plus)
                missing += 1
            else:
                assert y + plus == pytest.approx(row["flop"] / row["interval_low_s"])
                assert y - minus == pytest.approx(row["flop"] / row["interval_high_s"])
                seen += 1
    assert seen > 5
    assert missing


def test_the_axes_hold_both_ends_of_every_interval(frame: pd.DataFrame, device: Device) -> None:
    median = frame["median_s"]
    wide = frame.assign(interval_low_s=median / 300, interval_high_s=median * 300)
    low, high = roofline(wide, device, threads=2).layout.yaxis.range
    rates = on_axes(wide)["flop_per_s"]
    assert 10.0**low < rates.min() / 300
    assert 10.0**high > rates.max() * 300


def test_hover_names_everything(frame: pd.DataFrame, device: Device) -> None:
    figure = roofline(frame, device, threads=2)
    text = next(
        t.text[0] for t in traces(figure, "case") if t.legendgroup == "attention" and "unstable" in "".join(t.text)
    )
    texts = [text for t in traces(figure, "case") for text in t.text]
    unstable = next(text for text in texts if "unstable" in text)
    for part in ("attention", "torch_sdpa", "T1024", "ms", "FLOP/s", "B/s", "FLOP/B", "roof fraction", "bound by"):
        assert part in unstable
    assert "cold cache, 2 threads" in unstable
    assert "needs about 42 s" in unstable
    assert "[" in unstable
    assert all(t.hovertemplate == "%{text}<extra></extra>" for t in traces(figure, "case"))
    assert text


def test_measured_ceilings_have_bands_and_physical_ones_are_dashed(frame: pd.DataFrame, device: Device) -> None:
    figure = roofline(frame, device, threads=2)
    measured, physical = traces(figure, "measured ceiling"), traces(figure, "physical ceiling")
    assert {t.name for t in measured} == {"L1", "L2", "L3", "DRAM", "vector float32", "integer int8"}
    assert {t.name for t in physical} == {t.name for t in measured}
    assert all(t.line.dash == "dash" for t in physical)
    assert all(t.line.dash == "solid" for t in measured)
    bands = {t.name.removesuffix(" interval"): t for t in traces(figure, "interval band")}
    assert set(bands) == {t.name for t in measured}
    assert min(bands["vector float32"].y) == pytest.approx(0.94 * 176e9)
    assert max(bands["vector float32"].y) == pytest.approx(1.03 * 176e9)
    assert "measured by ridgeline" in measured[0].text[0]
    without = roofline(frame, device, threads=2, show_physical=False)
    assert not traces(without, "physical ceiling")


def test_slopes_meet_the_highest_rate_at_labelled_ridge_points(frame: pd.DataFrame, device: Device) -> None:
    figure = roofline(frame, device, threads=2)
    (ridges,) = traces(figure, "ridge point")
    assert list(ridges.x) == pytest.approx([660e9 / b for b in (620e9, 260e9, 84e9, 22e9)])
    dram = next(t for t in traces(figure, "measured ceiling") if t.name == "DRAM")
    assert max(dram.x) == pytest.approx(30.0)
    assert max(dram.y) == pytest.approx(660e9)
    labels = [a.text for a in figure.layout.annotations]
    assert "DRAM ridge 30.0 FLOP/B" in labels
    assert {"<i>memory-bound</i>", "<i>compute-bound</i>"} <= set(labels)
    assert {s.name for s in figure.layout.shapes} >= {"memory-bound region", "compute-bound region"}


def test_only_the_ceilings_that_the_cases_use_unless_chosen(frame: pd.DataFrame, device: Device) -> None:
    floats = frame[frame["operator"] == "attention"]
    names = {t.name for t in traces(roofline(floats, device, threads=2), "measured ceiling")}
    assert "integer int8" not in names
    assert "vector float32" in names
    chosen = roofline(floats, device, threads=2, ceilings=["integer int8"])
    names = {t.name for t in traces(chosen, "measured ceiling")}
    assert "integer int8" in names
    assert "vector float32" not in names


def test_ceilings_of_other_thread_counts_are_not_drawn(frame: pd.DataFrame, device: Device) -> None:
    one = roofline(frame, device, threads=1)
    vector = next(t for t in traces(one, "measured ceiling") if t.name == "vector float32")
    assert set(vector.y) == {88e9}


@pytest.mark.parametrize("missing", ["no device", "no ceilings"])
def test_without_ceilings_the_points_are_drawn_and_the_chart_says_so(
    frame: pd.DataFrame, device: Device, missing: str
) -> None:
    figure = roofline(frame, None if missing == "no device" else showcase.without_ceilings(device), threads=2)
    assert traces(figure, "case")
    assert any("ridgeline roofs" in a.text for a in figure.layout.annotations)


def test_an_empty_frame_gives_a_figure_that_says_so(frame: pd.DataFrame, device: Device) -> None:
    figure = roofline(frame.iloc[:0], device, threads=2)
    assert any("no timed case" in a.text for a in figure.layout.annotations)
    assert not traces(figure, "case")


def test_many_points_are_drawn_with_webgl(frame: pd.DataFrame, device: Device) -> None:
    timed = on_axes(frame)
    many = pd.concat([timed] * (MANY // len(timed) + 1), ignore_index=True)
    kinds = {t.type for t in traces(roofline(many, device, threads=2), "case")}
    assert kinds == {"scattergl"}


def test_an_operator_keeps_its_colour_when_others_are_filtered_away(frame: pd.DataFrame, device: Device) -> None:
    styles = styles_of(frame)
    all_of_it = roofline(frame, device, threads=2, styles=styles)
    some = roofline(frame[frame["operator"] == "weight_only_gemm"], device, threads=2, styles=styles)
    (only,) = traces(some, "case")
    same = next(t for t in traces(all_of_it, "case") if t.legendgroup == "weight_only_gemm")
    assert (only.marker.color, only.marker.symbol) == (same.marker.color, same.marker.symbol)
    assert len(set(styles.colours.values())) == len(styles.colours)


def test_cases_without_arithmetic_are_on_the_bandwidth_strip(frame: pd.DataFrame, device: Device) -> None:
    copies = pure_movement(frame)
    assert list(copies["operator"]) == ["stream"]
    assert not set(copies["record_id"]) & set(on_axes(frame)["record_id"])
    figure = bandwidth_strip(copies, device, threads=2)
    (points,) = traces(figure, "case")
    assert points.x[0] == copies["bytes"].iloc[0] / copies["median_s"].iloc[0]
    assert points.error_x.array[0] > 0
    assert figure.layout.xaxis.type == "log"
    texts = " ".join(a.text for a in figure.layout.annotations)
    assert "DRAM 22.0 GB/s" in texts
    assert "physical" in texts


def test_work_that_is_unknown_is_on_neither_chart(frame: pd.DataFrame) -> None:
    unknown = frame.assign(flop=math.nan, bytes=math.nan)
    assert on_axes(unknown).empty
    assert pure_movement(unknown).empty


def test_an_operator_of_a_newer_version_is_still_drawn(frame: pd.DataFrame, device: Device) -> None:
    renamed = frame.assign(operator="from-the-future")
    assert len(traces(roofline(renamed, device, threads=2), "case")) > 1


def test_distribution_shows_all_blocks_median_interval_and_bound(frame: pd.DataFrame) -> None:
    row = frame.iloc[0]
    figure = distribution(
        row["samples_s"], row["median_s"], row["interval_low_s"], row["interval_high_s"], row["bound_s"], to_bound=True
    )
    (samples,) = traces(figure, "samples")
    assert len(samples.x) == row["n_samples"]
    (medians,) = traces(figure, "block medians")
    assert sum(y is not None and not math.isnan(y) for y in medians.y) == 2 * row["n_blocks"]
    assert len(traces(figure, "histogram")[0].y) == row["n_samples"]
    assert max(traces(figure, "cumulative share")[0].x) == pytest.approx(100.0)
    assert {"interval", "median", "bound"} <= {s.name for s in figure.layout.shapes}
    assert "time per launch (ms)" in figure.layout.yaxis.title.text
    low, high = figure.layout.yaxis.range
    assert low < row["bound_s"] * 1e3 < high


def test_distribution_names_a_bound_that_is_out_of_sight(frame: pd.DataFrame) -> None:
    row = frame.iloc[0]
    figure = distribution(row["samples_s"], row["median_s"], None, None, row["median_s"] / 4)
    assert any(a.text.startswith("↓ bound") for a in figure.layout.annotations)
    assert "interval" not in {s.name for s in figure.layout.shapes}
    assert distribution([[1e-3]], 1e-3, None, None, None).data


def test_against_roof_goes_from_the_ideal_to_the_measured(frame: pd.DataFrame) -> None:
    from ridgeline.analytical.roofline import Term

    terms = (Term("DRAM", 2e-3, 1.8e-3, 2.2e-3), Term("vector float32", 5e-3, 4.8e-3, 5.2e-3))
    steps = steps_of(3e-3, terms, 5e-3, "vector float32", (6e-3, 5.9e-3, 6.1e-3), "#0072B2")
    assert [s.name for s in steps] == ["physical bound", "DRAM", "bound: vector float32", "measured"]
    figure = against_roof(steps, 5 / 6)
    assert list(figure.data[0].x) == pytest.approx([3.0, 2.0, 5.0, 6.0])
    assert any("1.20x the bound" in a.text for a in figure.layout.annotations)
    alone = against_roof(steps_of(None, (), None, None, (6e-3, None, None), "#0072B2"), None)
    assert list(alone.data[0].y) == ["measured"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4.23e-5, "s", "42.3 µs"),
        (1.82e11, "FLOP/s", "182 GFLOP/s"),
        (999.9e-6, "s", "1.00 ms"),
        (0.0, "FLOP/s", "0 FLOP/s"),
        (1e-12, "J", "1.00 pJ"),
        (None, "s", "–"),
        (math.nan, "s", "–"),
        (math.inf, "s", "–"),
    ],
)
def test_engineering_prefixes(value: float | None, unit: str, text: str) -> None:
    assert engineering(value, unit) == text


def test_quantities_with_intervals() -> None:
    assert with_interval(4.23e-5, 4.19e-5, 4.3e-5, "s") == "42.3 [41.9, 43.0] µs"
    assert with_interval(4.23e-5, math.nan, math.nan, "s") == "42.3 µs (no interval)"
    assert with_interval(None, None, None, "s") == "–"
    assert percent(1.18) == "118 %"
    assert percent_interval(0.731, 0.71, 0.752) == "73.1 % [71.0, 75.2]"
    assert percent_interval(0.731, None, None) == "73.1 %"
    assert plain(0.4995, "FLOP/B") == "0.499 FLOP/B"


def test_a_ceiling_without_an_interval_has_no_band(frame: pd.DataFrame, device: Device) -> None:
    exact = dataclasses.replace(
        device,
        rates=tuple(dataclasses.replace(r, low_per_s=r.value_per_s, high_per_s=r.value_per_s) for r in device.rates),
    )
    bands = {t.name for t in traces(roofline(frame, exact, threads=2), "interval band")}
    assert bands == {"L1 interval", "L2 interval", "L3 interval", "DRAM interval"}
