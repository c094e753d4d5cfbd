"""Comparisons: which of two ways is faster, by interleaved quads, with verdict, interval and what it rests on."""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from ridgeline.dashboard import kinds, selection
from ridgeline.dashboard.figures.comparison import MOST, VERDICTS, forest, quad_ratios, ratio_text, side_name
from ridgeline.dashboard.figures.look import PLOT_CONFIG
from ridgeline.dashboard.quantity_text import MISSING, engineering, is_number

COLOURS = {"faster": "green", "same": "blue", "slower": "red", "unclear": "orange"}


def left_out_text(row: dict[str, Any]) -> str:
    """``3: 2 other processes, 1 power limit``."""
    causes = Counter(left["cause"] for left in row["left_out"])
    if not causes:
        return "none" if row["a_s"] else MISSING
    return f"{len(row['left_out'])}: " + ", ".join(f"{n} {cause}" for cause, n in causes.most_common())


def said_of(row: dict[str, Any]) -> str:
    """Verdict, or how the comparison failed."""
    return row["verdict"] or row["status"].replace("_", " ")


def label_of(row: dict[str, Any]) -> str:
    """One comparison in one line; the record tells equal ones apart."""
    sides = f"{side_name(row['side_b'])} over {side_name(row['side_a'])}"
    return f"{row['operator']} {row['problem_label']}: {sides} · {said_of(row)} · {row['record_id']}"


def table_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A line per comparison."""
    return pd.DataFrame(
        {
            "detail": ["/comparisons?" + urlencode({"comparison": r["record_id"]}) for r in rows],
            "verdict": [said_of(r) + (", replay" if kinds.is_replay(r["protocol"]) else "") for r in rows],
            "operator": [r["operator"] for r in rows],
            "problem": [r["problem_label"] for r in rows],
            "A": [side_name(r["side_a"]) for r in rows],
            "B": [side_name(r["side_b"]) for r in rows],
            "ratio B/A [interval]": [ratio_text(r) for r in rows],
            "margin": [f"{r['margin'] * 100:g} %" for r in rows],
            "quads": [MISSING if r["n_quads"] is None else f"{r['n_quads']}" for r in rows],
            "left out": [left_out_text(r) for r in rows],
            "protocol": [
                f"{r['protocol']['cache']}, {r['protocol']['threads']} thread{'s' if r['protocol']['threads'] != 1 else ''}"
                + (f" · {kinds.REPLAY}" if kinds.is_replay(r["protocol"]) else "")
                for r in rows
            ],
            "reason": [r["reason"] for r in rows],
            "started": [selection.when(r["started_at"]) for r in rows],
            "run": [r["run_id"] for r in rows],
        }
    )


def facts_of(row: dict[str, Any]) -> list[tuple[str, str]]:
    """What else is known of one comparison."""
    facts = []
    for name in ("a", "b"):
        side = row[f"side_{name}"]
        error = MISSING
        if is_number(side["error_relative"]) and is_number(side["error_tolerance"]):
            error = f"error {side['error_relative']:.2e}, tolerance {side['error_tolerance']:.2e}"
        facts.append((name.upper(), f"{side_name(side)}; {error}; {side['rows_checked']} rows checked"))
    return [
        *facts,
        ("ratio, time of B over A", ratio_text(row)),
        ("confidence of the interval", f"{row['confidence'] * 100:g} %, all looks together"),
        ("margin", f"{row['margin'] * 100:g} %"),
        ("quads that count", f"{row['n_quads']}" if is_number(row["n_quads"]) else MISSING),
        ("quads left out", left_out_text(row)),
        ("inflation by dependence", f"{row['inflation']:.2f}" if is_number(row["inflation"]) else MISSING),
        ("arrangements of buffers", f"{len(set(row['arrangement']))}" if row["arrangement"] else MISSING),
        ("processes", "both in one" if row["processes"] == "one" else "one each"),
        ("time taken, allowed", f"{engineering(row['measured_s'], 's')}, {engineering(row['budget_s'], 's')}"),
        ("protocol", f"{row['protocol']['timer']}, {row['protocol']['cache']}, {row['protocol']['threads']} threads"),
        ("measured at", selection.when(row["started_at"])),
        ("record, run", f"{row['record_id']}, {row['run_id']}"),
    ]


def show_one(row: dict[str, Any]) -> None:
    """The chosen comparison."""
    if row["verdict"] is None:
        st.error(f"**{said_of(row)}**: {row['reason']}", icon=":material/error:")
    else:
        badge = f":{COLOURS[row['verdict']]}-badge[{row['verdict']}]"
        if kinds.is_replay(row["protocol"]):
            badge += f" :violet-badge[{kinds.REPLAY}]"
        st.markdown(
            f"{badge} B `{side_name(row['side_b'])}` takes **{row['ratio']:.4f}** times the time of "
            f"A `{side_name(row['side_a'])}`"
        )
        st.plotly_chart(
            quad_ratios(row), theme=None, key="quads_chart", config=PLOT_CONFIG,
            alt=f"Ratio of {len(row['a_s'])} quads over time; {ratio_text(row)}.",
        )  # fmt: skip
        st.caption(
            "Dark band: interval of the ratio. Blue band: margin, within which both count as the same. Dashed: planned "
            "looks. Crosses: quads left out, with their cause; they do not count."
        )
    facts = pd.DataFrame(facts_of(row), columns=["quantity", "value"])
    half = (len(facts) + 1) // 2
    left, right = st.columns(2)
    left.table(facts.iloc[:half].set_index("quantity"))
    right.table(facts.iloc[half:].set_index("quantity"))


st.title("Comparisons")
runs = selection.all_runs_or_stop()
damaged = sum(r.state == "damaged" for r in runs)
if damaged:
    st.warning(f"{damaged} damaged runs are not read; the page Runs names what is wrong.", icon=":material/warning:")
everything = kinds.comparisons_of(runs)
if not everything:
    st.info("No comparison in this store yet.", icon=":material/compare_arrows:")
    st.markdown("Compare two implementations, or two revisions of one: `ridgeline compare A B`, then reload this page.")
    st.stop()
with st.sidebar:
    st.markdown("**Filter**")
    operators = st.multiselect(
        "Operator", sorted({r["operator"] for r in everything}), key="operator", bind="query-params",
        placeholder="all operators",
    )  # fmt: skip
    verdicts = st.multiselect(
        "Verdict", sorted({said_of(r) for r in everything}), key="verdict", bind="query-params",
        placeholder="all verdicts",
    )  # fmt: skip
rows = [
    r for r in everything if (not operators or r["operator"] in operators) and (not verdicts or said_of(r) in verdicts)
]
if not rows:
    st.info("Nothing matches the filter.", icon=":material/filter_alt_off:")
    st.stop()
counts = Counter(said_of(r) for r in rows)
st.markdown(" ".join(f":{COLOURS.get(said, 'red')}-badge[{n} {said}]" for said, n in counts.most_common()))
placed = [r for r in rows if r["verdict"] in VERDICTS]
if placed:
    st.plotly_chart(
        forest(placed[:MOST]), theme=None, key="forest_chart", config=PLOT_CONFIG,
        alt=f"Ratios of {len(placed[:MOST])} comparisons with their intervals; the table below has the same figures.",
    )  # fmt: skip
    cut = f" The newest {MOST} of {len(placed)} are drawn." if len(placed) > MOST else ""
    st.caption(f"Bars: interval of the ratio. Blue: the margin of each, within which both count as the same.{cut}")
st.dataframe(
    table_of(rows),
    width="stretch",
    hide_index=True,
    key="comparisons",
    column_config={"detail": st.column_config.LinkColumn("detail", display_text="open", width=56, pinned=True)},
)

st.subheader("One comparison")
by_id = {r["record_id"]: r for r in rows}
wanted = st.query_params.get("comparison", "")
if st.session_state.get("chosen_comparison") not in by_id:
    # The address presets the choice; afterwards the reader's own stands and is written back.
    st.session_state["chosen_comparison"] = wanted if wanted in by_id else next(iter(by_id))
    if wanted and wanted not in by_id:
        st.warning(f"No comparison `{wanted}` here: choose one below.", icon=":material/help:")
chosen = st.selectbox(
    "Comparison", list(by_id), key="chosen_comparison", format_func=lambda record: label_of(by_id[record])
)
st.query_params["comparison"] = chosen
show_one(by_id[chosen])
