"""Runs: every run of the store with its state, what is damaged and what to do about it."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from ridgeline.dashboard import data, kinds, profiles, selection
from ridgeline.results.store import RunInfo

REMEDIES = {
    "damaged": "copy the run again from where it was made, or measure again; delete its folder to drop it",
    "unfinished": "give the same `ridgeline run` command again: it continues where this run stopped",
    "running": "wait, or reload: what is measured so far is shown already",
}


def remedy(run: RunInfo) -> str:
    """What to do about a run that is not simply finished."""
    if "newer than this Ridgeline" in run.reason:
        return "upgrade ridgeline: a newer version wrote this run"
    if run.state == "finished" and run.reason:
        return "the lines set aside are kept beside the run; the rest is whole"
    return REMEDIES.get(run.state, "")


st.title("Runs")
runs = selection.all_runs_or_stop()
states = ("finished", "running", "unfinished", "damaged")
for tile, state in zip(st.columns(4), states, strict=True):
    tile.metric(state.capitalize(), sum(r.state == state for r in runs), border=True)
st.dataframe(
    pd.DataFrame(
        {
            "run": [r.run_id for r in runs],
            "state": [r.state for r in runs],
            "origin": ["–" if r.state == "damaged" else kinds.origin_of(r).text for r in runs],
            "suite": [r.suite or "–" for r in runs],
            "started": [selection.when(r.created_at) for r in runs],
            "device": [r.device_name or "–" for r in runs],
            "planned": [None if r.state == "damaged" else r.planned for r in runs],
            "measured": [None if r.state == "damaged" else r.records for r in runs],
            "ok": [None if r.state == "damaged" else r.ok for r in runs],
            "roofline": [f"/roofline?run={r.run_id}" if "measurement" in kinds.kinds_of(r) else "" for r in runs],
        }
    ),
    width="stretch",
    hide_index=True,
    key="runs",
    column_config={"roofline": st.column_config.LinkColumn("roofline", display_text="open", width="small")},
)

imported = kinds.imported_of(runs)
if imported:
    st.subheader("Timings of other tools")
    st.markdown(
        ":orange-badge[not measured by Ridgeline] The tool's own statistics; nothing here checked what was timed."
    )
    st.dataframe(profiles.imported_table(imported), width="stretch", hide_index=True, key="imported")
published = kinds.published_of(runs)
if published:
    st.subheader("Published times")
    st.markdown(
        ":orange-badge[not measured by Ridgeline] One number per call, as its source states it; quarantined rows are those "
        "that the gate would not calibrate on."
    )
    st.dataframe(profiles.published_table(published), width="stretch", hide_index=True, key="published")
served = kinds.serving_of(runs)
if served:
    st.subheader("Serving runs of other tools")
    st.markdown(":orange-badge[not measured by Ridgeline] A whole engine under load; the tool's own statistics.")
    st.dataframe(profiles.serving_table(served), width="stretch", hide_index=True, key="serving")
counted = kinds.profiles_of(runs)
if counted:
    st.subheader("Profiles")
    st.markdown(
        ":orange-badge[not measured by Ridgeline] Counters explain a measurement: figures of one call, on Kernel detail "
        "beside the modelled ones."
    )
    st.dataframe(profiles.profile_table(counted), width="stretch", hide_index=True, key="profiles")

troubled = [r for r in runs if r.state != "finished" or r.reason]
if troubled:
    st.subheader("Needs attention")
    for run in troubled:
        colour = "red" if run.state == "damaged" else "orange"
        with st.container(border=True):
            st.markdown(f":{colour}-badge[{run.state}] `{run.run_id}` {run.suite}")
            if run.reason:
                st.markdown(f"What is wrong: {run.reason}")
            st.markdown(f"What to do: {remedy(run)}")

st.subheader("Set aside", help="Lines and files that are no valid records: they are kept, named, and not counted.")
aside = [
    (r.run_id, problem) for r in runs if r.state != "damaged" and r.reason for problem in data.load_run(r).problems
]
if aside:
    st.dataframe(pd.DataFrame(aside, columns=["run", "what and why"]), width="stretch", hide_index=True, key="aside")
else:
    st.caption("Nothing: every line of every readable run is a valid record.")

st.subheader("Software and host")
readable = [r for r in runs if r.state != "damaged"]
if not readable:
    st.caption("No readable run.")
    st.stop()
chosen = st.selectbox("Run", [r.run_id for r in readable], key="run", bind="query-params")
view = data.load_run(next(r for r in readable if r.run_id == chosen))
facts = dict(sorted(view.manifest.environment.items())) if view.manifest else {}
st.dataframe(
    pd.DataFrame({"fact": list(facts), "value": list(facts.values())}),
    width="stretch",
    hide_index=True,
    key="environment",
)
