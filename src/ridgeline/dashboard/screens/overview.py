"""Overview: how fresh the results are, how the newest run went, and where to look next."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from ridgeline.dashboard import processes, selection, tables
from ridgeline.dashboard.quantity_text import engineering, percent, percent_interval
from ridgeline.results.views import summary_counts


def best_by_operator(cases: pd.DataFrame) -> pd.DataFrame:
    """The measurement nearest to its roof, of each operator; an unstable one only where there is no other."""
    placed = cases[cases["roof_fraction"].notna() & cases["status"].isin(["ok", "unstable"])]
    has_ok = placed["operator"].isin(placed.loc[placed["status"] == "ok", "operator"])
    placed = placed[(placed["status"] == "ok") | ~has_ok]
    return placed.loc[placed.groupby("operator")["roof_fraction"].idxmax()].sort_values("operator")


view = selection.pick_run("Overview")
selection.show_problems(view)
cases = view.cases
if cases.empty:
    st.info("This run has no measured case yet.", icon=":material/hourglass_empty:")
    st.stop()

counts = summary_counts([{"status": status} for status in cases["status"]])
best = best_by_operator(cases)
tiles = st.columns(4)
tiles[0].metric("Run started", selection.age_of(view.info.created_at), border=True)
tiles[1].metric(
    "Ok", f"{counts.get('ok', 0)} of {len(cases)}", help="Measurements of cases; roofs are not counted.", border=True
)
tiles[2].metric("Operators", f"{cases['operator'].nunique()}", border=True)
typical = cases.loc[cases["status"] == "ok", "roof_fraction"].median()
tiles[3].metric(
    "Median roof fraction",
    percent(typical),
    help="Over all ok cases, against measured ceilings.",
    border=True,
)
st.markdown(
    " ".join(f":{'green' if s == 'ok' else 'orange'}-badge[{n} {s.replace('_', ' ')}]" for s, n in counts.items())
)

st.subheader("Nearest to the roof", help="For each operator the measurement with the highest fraction of its bound.")
if best.empty:
    st.info("No roof fraction: this run has no measured ceilings. `ridgeline roofs` measures them.")
else:
    st.dataframe(
        pd.DataFrame(
            {
                "operator": best["operator"],
                "status": tables.status_of(best),
                "implementation": best["implementation"],
                "problem": best["problem_label"],
                "share": 100.0 * best["roof_fraction"],
                "roof fraction (interval)": [
                    percent_interval(v, low, high)
                    for v, low, high in zip(
                        best["roof_fraction"], best["roof_fraction_low"], best["roof_fraction_high"], strict=True
                    )
                ],
                "arithmetic": [engineering(v, "FLOP/s") for v in best["flop_per_s"]],
                "bandwidth": [engineering(v, "B/s") for v in best["bytes_per_s"]],
                "bound by": best["bound"],
            }
        ),
        width="stretch",
        hide_index=True,
        key="best",
        column_config={
            "share": st.column_config.ProgressColumn(
                "roof fraction (%)",
                format="%.1f",
                min_value=0.0,
                max_value=max(100.0, 100.0 * best["roof_fraction"].max()),
            )
        },
    )
    st.markdown("**Look at**")
    links = st.columns(min(4, len(best)) or 1)
    for position, row in enumerate(best.itertuples()):
        with links[position % len(links)]:
            st.page_link(
                "screens/roofline.py",
                label=f"Roofline of {row.operator}",
                icon=":material/show_chart:",
                query_params={"run": view.info.run_id, "operator": str(row.operator)},
            )
            st.page_link(
                "screens/kernel.py",
                label=f"{row.operator}: {row.implementation}",
                icon=":material/query_stats:",
                query_params={"run": view.info.run_id, "record": str(row.record_id)},
            )

tables.show_failures(cases, key="failures")
repeated = processes.several(cases)
if not repeated.empty:
    st.subheader("Several processes", help="Median with interval of each fresh process; addresses and layout differ.")
    st.dataframe(processes.per_case(repeated), width="stretch", hide_index=True, key="processes")
st.subheader("All measurements")
tables.show_measurements(cases, key="measurements")
