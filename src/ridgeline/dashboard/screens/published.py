"""Published: kernel times that others measured, under the ceilings of their device's data sheet."""

from __future__ import annotations

import streamlit as st

from ridgeline.analytical.catalogue import catalogue
from ridgeline.dashboard import kinds, published_points, selection
from ridgeline.dashboard.figures.look import PLOT_CONFIG
from ridgeline.dashboard.figures.published import published_roofline

st.title("Published")
known = catalogue()
records = [r for r in kinds.published_of(selection.all_runs_or_stop()) if r.device_id in known]
if not records:
    st.info(
        "The store holds no published times. `ridgeline store import aiconfigurator` reads those of ten GPUs "
        "(pip install 'ridgeline[data]').",
        icon=":material/database:",
    )
    st.stop()
st.markdown(
    ":orange-badge[not measured by Ridgeline] One number per call, as its source states it; ceilings are the data sheet's."
)
with st.sidebar:
    device_id = st.selectbox(
        "Device", sorted({r.device_id for r in records}), format_func=lambda i: known[i].name, key="device",
        bind="query-params",
    )  # fmt: skip
    of_device = [r for r in records if r.device_id == device_id]
    operator = st.selectbox("Operator", sorted({r.operator for r in of_device}), key="operator", bind="query-params")
    with_quarantined = st.toggle("Quarantined rows too", key="quarantined", bind="query-params")
own = [r for r in of_device if r.operator == operator and (with_quarantined or not r.quarantined)]
shown = published_points.spread_out(own)
device = known[device_id]
found = published_points.points_of(shown, device)
points = found.frame
if points.empty:
    st.info(f"None of these {len(own)} times can be drawn: {'; '.join(found.left_out)}.", icon=":material/block:")
    st.stop()
st.plotly_chart(
    published_roofline(points, device, found.keys), theme=None, key="published_chart", config=PLOT_CONFIG,
    alt=f"Roofline of {len(points)} published times of {operator} on {device.name}; the table below sums them up.",
)  # fmt: skip
sources = ", ".join(sorted({f"{r.source} ({r.licence})" for r in own}))
thinned = (
    f" {len(shown):,} of {len(own):,} times are looked at, evenly over the tables." if len(shown) < len(own) else ""
)
missing = f" Not drawn: {'; '.join(found.left_out)}." if found.left_out else ""
st.caption(f"Dashed: physical ceilings. Source: {sources}.{thinned}{missing}")
st.dataframe(published_points.by_software(points), width="stretch", hide_index=True, key="by_software")
st.caption(
    "Share of the bound: the least time that the data sheet allows, with all bytes from main memory, over the published one. A "
    "time under the bound is usually one whose operands lay in a cache; the gate quarantines what no cache explains."
)
st.download_button(
    "Data (CSV)", lambda: points.to_csv(index=False), file_name=f"published-{device_id}-{operator}.csv", mime="text/csv",
    icon=":material/download:", key="csv", on_click="ignore",
)  # fmt: skip
