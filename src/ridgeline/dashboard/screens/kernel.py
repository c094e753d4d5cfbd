"""Kernel detail: one measurement, its samples, its distance from the roof, its correctness and its circumstances."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
import streamlit as st

from ridgeline.analytical.roofline import Term, bound
from ridgeline.dashboard import data, energy, kinds, processes, profiles, selection, tables
from ridgeline.dashboard.figures.against_roof import against_roof, steps_of
from ridgeline.dashboard.figures.conditions import conditions_chart
from ridgeline.dashboard.figures.distribution import distribution
from ridgeline.dashboard.figures.look import PLOT_CONFIG, styles_of
from ridgeline.dashboard.quantity_text import (
    MISSING,
    engineering,
    is_number,
    percent,
    percent_interval,
    with_interval,
)
from ridgeline.results.views import problem_and_work


def protocol_text(row: Any) -> str:
    """How the number was taken, in words; unique among the measurements of a case in its run with the process."""
    plural = "s" if row.threads != 1 else ""
    return f"{row.cache} cache, {row.threads} thread{plural}, process {row.process}"


def pick_record(frame: pd.DataFrame) -> pd.Series:
    """One measurement, by narrowing down; ``?record=`` presets every choice."""
    wanted = st.query_params.get("record", "")
    preset = frame[frame["record_id"] == wanted]
    if wanted and preset.empty:
        st.warning(f"This run has no measurement `{wanted}`: choose one below.", icon=":material/help:")
    columns = st.columns(4)
    for column, label, name in zip(
        columns,
        ("Operator", "Problem", "Implementation", "Protocol"),
        ("operator", "problem_label", "implementation", "protocol_text"),
        strict=True,
    ):
        options = sorted(frame[name].unique())
        index = options.index(preset[name].iloc[0]) if len(preset) and preset[name].iloc[0] in options else 0
        key = {"problem_label": "problem", "protocol_text": "protocol"}.get(name, name)
        chosen = column.selectbox(label, options, index=index, key=key, bind="query-params")
        frame = frame[frame[name] == chosen]
    # A case that was measured again in one process leaves several: the later one stands.
    same = frame[frame["record_id"] == wanted]
    return (same if len(same) else frame).iloc[-1]


def terms_of(view: data.RunView, row: pd.Series) -> tuple[Term, ...]:
    """What each measured ceiling of the run asks for; empty where work or ceilings are unknown."""
    if view.device is None or not isinstance(row["level"], str):
        return ()
    known = problem_and_work(row["operator"], row["problem"], bool(row["tf32"]), row["structure_figures"])
    if known is None:
        return ()
    found = bound(known[1], view.device.select(["measured"], int(row["threads"])), row["level"])
    return found.terms if found else ()


def show_numbers(row: pd.Series) -> None:
    """The figures that a reader looks for first."""
    tiles = st.columns(4)
    tiles[0].metric("Time per launch", engineering(row["median_s"], "s"), border=True)
    tiles[1].metric("Roof fraction", percent(row["roof_fraction"]), border=True)
    tiles[2].metric("Arithmetic", engineering(row["flop_per_s"], "FLOP/s"), border=True)
    tiles[3].metric("Bandwidth", engineering(row["bytes_per_s"], "B/s"), border=True)


def facts_of(row: pd.Series) -> list[tuple[str, str]]:
    """Everything else that is known, name and text."""
    protocol = row["protocol"]
    error, tolerance = row["error_relative"], row["error_tolerance"]
    share = f" ({percent(error / tolerance)} of it)" if is_number(error) and is_number(tolerance) and tolerance else ""
    ratio = row["speed_ratio_to_baseline"]
    joules = engineering(row.get("energy_j"), "J per launch")
    if not is_number(row.get("energy_j")):
        joules = f"none: {energy.reason_of(row)}"
    return [
        (
            "time, median with 95 % interval",
            with_interval(row["median_s"], row["interval_low_s"], row["interval_high_s"], "s"),
        ),
        (
            "blocks, samples",
            f"{row['n_blocks']:.0f}, {row['n_samples']:.0f}" if is_number(row["n_blocks"]) else MISSING,
        ),
        ("blocks left out, by cause", left_out_text(row)),
        (
            "autocorrelation of blocks",
            f"{row['autocorrelation']:.2f}" if is_number(row["autocorrelation"]) else MISSING,
        ),
        (
            "roof fraction",
            percent_interval(row["roof_fraction"], row["roof_fraction_low"], row["roof_fraction_high"]),
        ),
        ("bound by", f"{row['bound']}, data in {row['level']}" if isinstance(row["bound"], str) else MISSING),
        (
            "speed against the baseline",
            f"{ratio:.3f}x of {row['baseline']}"
            if is_number(ratio)
            else f"{MISSING} (baseline {row['baseline'] or 'none'})",
        ),
        ("error against the reference", f"{error:.2e}, tolerance {tolerance:.2e}{share}" if share else MISSING),
        ("worst element", f"{row['error_worst']:.2e}" if is_number(row["error_worst"]) else MISSING),
        ("rows checked", f"{row['rows_checked']}"),
        ("prepare (pack, quantise, compile)", engineering(row["prepare_s"], "s")),
        ("energy", joules),
        ("working set", engineering(row["working_set_bytes"], "B")),
        ("peak memory of the worker", engineering(row["peak_memory_bytes"], "B")),
        (
            "protocol",
            f"{protocol['timer']}, {protocol['cache']} cache, {protocol['threads']} threads, "
            f"version {protocol['version']}",
        ),
        ("launches per sample", f"{row['launches_per_sample']}"),
        ("process", f"{row['process']}"),
        ("stolen by the hypervisor", engineering(_stolen_s(row), "s")),
        ("papers", ", ".join(row["papers"]) or MISSING),
        ("measured at", selection.when(row["started_at"])),
        ("record, case", f"{row['record_id']}, {row['case_id']}"),
    ]


def left_out_of(row: pd.Series) -> dict[int, str]:
    """Cause by index of the blocks that do not count."""
    return {left["block"]: left["cause"] for left in row["left_out"]}


def left_out_text(row: pd.Series) -> str:
    """``2 of 12: 1 other processes, 1 power limit``."""
    causes = Counter(left_out_of(row).values())
    if not causes:
        return "none" if len(row["samples_s"]) else MISSING
    named = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
    return f"{sum(causes.values())} of {len(row['samples_s'])}: {named}"


def show_conditions(row: pd.Series, colour: str) -> None:
    """What the machine did in each block; nothing where nothing was recorded."""
    chart = conditions_chart(list(row["conditions"]), left_out_of(row), colour)
    if chart is None:
        return
    st.subheader("Conditions of each block", help="Crosses: blocks left out. What no meter told is not shown.")
    st.plotly_chart(
        chart,
        theme=None,
        key="conditions_chart",
        config=PLOT_CONFIG,
        alt="Clock, load, power, temperature and limits per block, as far as they were recorded.",
    )


def show_energy(row: pd.Series) -> None:
    """Energy per launch, or the reason why there is none."""
    st.subheader("Energy")
    found = energy.energy_facts(row)
    if not found:
        st.caption(f"No figure: {energy.reason_of(row)}")
        return
    for tile, (name, text) in zip(st.columns(4), found, strict=False):
        tile.metric(name, text, border=True)
    if quality := energy.quality_of(row):
        st.caption(f"Quality of the figure: {quality}")


def show_counters(row: pd.Series) -> None:
    """Measured beside modelled bytes; nothing where no profile was imported."""
    found = profiles.counter_facts(row)
    if not found:
        return
    st.subheader("Counted by a profiler")
    st.markdown(f":orange-badge[from {row['counter_tools']}: not measured by Ridgeline]")
    st.table(pd.DataFrame(found, columns=["quantity of one call", "value"]).set_index("quantity of one call"))


def show_processes(frame: pd.DataFrame, row: pd.Series) -> None:
    """Each process's median with interval, where there are several."""
    same = processes.siblings(frame, row)
    if len(same) < 2:
        return
    st.subheader("Processes", help="Fresh processes are the outer statistical blocks; addresses and layout differ.")
    table = processes.per_process(same)
    table.insert(0, "detail", [tables.kernel_link(row["run_id"], record) for record in table["record"]])
    st.dataframe(
        table,
        width="stretch",
        hide_index=True,
        key="processes",
        column_config={"detail": st.column_config.LinkColumn("detail", display_text="open", width=56)},
    )
    st.caption(f"Medians of the processes lie {processes.spread(same['median_s'])} apart.")


def _stolen_s(row: pd.Series) -> float | None:
    """CPU time that the hypervisor gave to others during all blocks; records of schema 1 have only the sum."""
    known = [block["steal_s"] for block in row["conditions"] if block["steal_s"] is not None]
    return sum(known) if known else row["interference"].get("steal_s")


view = selection.pick_run("Kernel detail")
selection.show_problems(view)
if view.frame.empty:
    st.info("This run has no measurement yet.", icon=":material/hourglass_empty:")
    st.stop()
# Measurements that only looked for a ceiling are shown when a link names one.
is_case = st.query_params.get("record", "") not in set(view.frame.loc[view.frame["role"] == "roof", "record_id"])
frame = view.cases if is_case and not view.cases.empty else view.frame
frame = frame.assign(protocol_text=[protocol_text(r) for r in frame.itertuples()])
row = pick_record(frame)
colour = styles_of(view.frame).colour(row["operator"])
if kinds.is_replay(row["protocol"]) and not all(map(kinds.is_replay, view.frame["protocol"])):
    # Of a run that is scripted as a whole the head says so.
    st.markdown(f":violet-badge[{kinds.REPLAY}]")
if row["status"] != "ok":
    st.error(f"**{row['status'].replace('_', ' ')}**: {row['reason']}", icon=":material/error:")
if row["above_measured_roof"] is True:
    st.warning("Above the measured roof, below physics: measure the roofs again.", icon=":material/warning:")

if is_number(row["median_s"]):
    show_numbers(row)
    head, switch = st.columns([4, 1], vertical_alignment="bottom")
    head.subheader("Distribution of samples")
    to_bound = switch.toggle("Scale to the bound", key="to_bound", bind="query-params")
    st.plotly_chart(
        distribution(
            row["samples_s"],
            row["median_s"],
            row["interval_low_s"],
            row["interval_high_s"],
            row["bound_s"],
            left_out=left_out_of(row),
            to_bound=to_bound,
            colour=colour,
        ),
        theme=None,
        key="distribution_chart",
        config=PLOT_CONFIG,
        alt="Samples per block, histogram and cumulative share; the table below has median and interval.",
    )
    if len(row["left_out"]):
        st.caption(f"Crosses: blocks left out ({left_out_text(row)}); they are in no median, histogram or share.")
    show_conditions(row, colour)
    st.subheader(
        "From the ideal to the measured", help="Bound: the longest of the limits, at the ceilings seen beside it."
    )
    measured = (row["median_s"], row["interval_low_s"], row["interval_high_s"])
    steps = steps_of(row["physical_bound_s"], terms_of(view, row), row["bound_s"], row["bound"], measured, colour)
    st.plotly_chart(
        against_roof(steps, row["roof_fraction"]),
        theme=None,
        key="against_chart",
        config=PLOT_CONFIG,
        alt="Physical bound, time of each limit, and measured time.",
    )
else:
    st.info("No samples: a case that is not right or did not run is not timed.", icon=":material/timer_off:")

show_processes(view.frame, row)
show_counters(row)
show_energy(row)
st.subheader("All that is known")
facts = pd.DataFrame(facts_of(row), columns=["quantity", "value"])
half = (len(facts) + 1) // 2
left, right = st.columns(2)
# Tables, not data frames: a long reason wraps instead of being cut off.
left.table(facts.iloc[:half].set_index("quantity"))
right.table(facts.iloc[half:].set_index("quantity"))
