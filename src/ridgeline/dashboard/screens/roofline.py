"""Roofline: cases against the measured and the physical ceilings, with filters and exports."""

from __future__ import annotations

from typing import Any

import streamlit as st

from ridgeline.dashboard import selection, tables
from ridgeline.dashboard.figures.bandwidth import bandwidth_strip
from ridgeline.dashboard.figures.ceilings import rate_labels
from ridgeline.dashboard.figures.look import PLOT_CONFIG, styles_of
from ridgeline.dashboard.figures.roofline import on_axes, pure_movement, roofline

view = selection.pick_run("Roofline")
selection.show_problems(view)
if view.frame.empty:
    st.info("This run has no measurement yet.", icon=":material/hourglass_empty:")
    st.stop()
with st.sidebar:
    with_roofs = st.toggle(
        "Roof measurements too",
        key="roofs",
        bind="query-params",
        help="The stream and fma cases that found the ceilings.",
    )
everything = view.frame if with_roofs or view.cases.empty else view.cases
selected = selection.filter_cases(everything)
if selected.empty:
    st.info("Nothing matches the filter.", icon=":material/filter_alt_off:")
    st.stop()
threads = selection.pick_threads(selected)
selected = selected[selected["threads"] == threads]
with st.sidebar:
    ceilings = st.multiselect(
        "Arithmetic ceilings",
        rate_labels(view.device, threads) if view.device else [],
        key="ceilings",
        bind="query-params",
        placeholder="those the cases use",
    )
    show_physical = st.toggle("Physical ceilings", value=True, key="physical", bind="query-params")

styles = styles_of(view.frame)
info = view.info
title = f"{info.device_name}, {threads} thread{'s' if threads != 1 else ''} · run {info.run_id}"
options: dict[str, Any] = {"threads": threads, "show_physical": show_physical, "styles": styles}
figure = roofline(selected, view.device, ceilings=ceilings, **options)
st.plotly_chart(
    figure,
    theme=None,
    key="roofline_chart",
    config=PLOT_CONFIG,
    alt=f"Roofline of {len(on_axes(selected))} cases on {info.device_name}; the table below has the same figures.",
)
st.caption(
    "Solid: measured ceilings with their interval as a band. Dashed: physical ceilings. Diamonds: ridge points. "
    "Error bars: 95 % interval of the median. Open symbol: not ok (see status); red rim: above a roof."
)

exported = roofline(selected, view.device, ceilings=ceilings, title=title, **options)
name = f"roofline-{info.run_id}"
left, right, note = st.columns([1, 1, 4], vertical_alignment="center")
left.download_button(
    "Data (CSV)",
    lambda: tables.csv_of(selected),
    file_name=f"{name}.csv",
    mime="text/csv",
    icon=":material/download:",
    key="csv",
    on_click="ignore",
)
right.download_button(
    "Chart (HTML)",
    lambda: exported.to_html(include_plotlyjs=True, config=PLOT_CONFIG),
    file_name=f"{name}.html",
    mime="text/html",
    icon=":material/download:",
    key="html",
    on_click="ignore",
)
note.caption("PNG: the camera above the chart. The address of this page holds the selection: copy it to share it.")

movement = pure_movement(selected)
if not movement.empty:
    st.subheader("Pure data movement", help="Cases without arithmetic have no intensity: their bandwidth is shown.")
    st.plotly_chart(
        bandwidth_strip(movement, view.device, **options),
        theme=None,
        key="bandwidth_chart",
        config=PLOT_CONFIG,
        alt=f"Bandwidth of {len(movement)} cases without arithmetic against the memory ceilings.",
    )
unplaced = selected[selected["median_s"].notna() & selected["flop"].isna()]
if not unplaced.empty:
    names = ", ".join(sorted(unplaced["operator"].unique()))
    st.warning(f"Work unknown to this Ridgeline, in the table only: {names}.", icon=":material/help:")
if view.device is not None:
    with st.expander(f"Ceilings for {threads} thread{'s' if threads != 1 else ''}, with their sources"):
        st.dataframe(tables.ceilings_of(view.device, threads), width="stretch", hide_index=True, key="ceiling_table")
tables.show_failures(selected, key="failures")
st.subheader("Measurements")
tables.show_measurements(selected, key="measurements")
