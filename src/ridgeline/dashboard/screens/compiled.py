"""Compiled code: what the compiler made of each Triton kernel for GPUs that need not be here."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from ridgeline.dashboard import kinds, selection
from ridgeline.dashboard.figures.issue import issue_bars
from ridgeline.dashboard.figures.look import PLOT_CONFIG
from ridgeline.dashboard.quantity_text import MISSING, plain
from ridgeline.results.compile import CompiledCode, derived, newest_by_identity

FIRST = ("sm_90", "sm_100")  # what is shown until the reader chooses
COMMAND = "`ridgeline compile`"


def percent(share: float | None) -> str:
    """A share as people read it."""
    return MISSING if share is None else f"{share:.0%}"


def table_of(records: Sequence[CompiledCode]) -> pd.DataFrame:
    """A line per kernel and target."""
    lines = []
    for record in records:
        fits, (bound, reason) = record.occupancy, record.bound
        lines.append(
            {
                "target": record.target,
                "kernel": record.label,
                "roof, overlapped": percent(bound.overlapped_share if bound else None),
                "roof, serial": percent(bound.serial_share if bound else None),
                "bound by": bound.bound_by if bound else reason,
                "registers": record.registers,
                "spilled, B": record.spills_bytes,
                "shared, KiB": None if record.shared_bytes is None else record.shared_bytes / 1024,
                "occupancy": percent(fits.fraction if fits else None),
                "limited by": ", ".join(fits.limited_by) if fits else MISSING,
                "matrix instructions": ", ".join(record.matrix_instructions) or MISSING,
                "async copies": ", ".join(f"{k} {v}" for k, v in record.asynchronous_copies.items()) or MISSING,
                "cycles a turn": plain(bound.overlapped_cycles, "") if bound else MISSING,
                "cycles, serial": plain(bound.serial_cycles, "") if bound else MISSING,
                "compiled": record.started_at[:10],
            }
        )
    return pd.DataFrame(lines)


st.title("Compiled code")
st.markdown(
    ":orange-badge[compiled, not run] Machine code as the compiler made it, read without a GPU. The bounds count issue "
    "slots only: no latency, no bank conflict, no cache miss. No real kernel is faster; most are slower."
)
code = kinds.compiled_of(reversed(selection.all_runs_or_stop()))
if not code:
    st.info(f"No compiled code in this store: {COMMAND} makes some.", icon=":material/code_off:")
    st.stop()
newest = sorted(newest_by_identity(code).values(), key=lambda r: (r.label, r.target))
known = list(dict.fromkeys(record.target for record in sorted(newest, key=lambda r: r.target)))
operators = sorted({record.label.split()[0] for record in newest})
with st.sidebar:
    st.markdown("**Filter**")
    targets = st.multiselect(
        "Architecture", known, default=[t for t in FIRST if t in known], key="target", bind="query-params",
        placeholder="all architectures",
    )  # fmt: skip
    chosen = st.multiselect("Operator", operators, key="operator", bind="query-params", placeholder="all operators")
shown = [
    record
    for record in newest
    if (not targets or record.target in targets) and (not chosen or record.label.split()[0] in chosen)
]
if not shown:
    st.info("Nothing matches the filter.", icon=":material/filter_alt_off:")
    st.stop()

spilling = [record for record in shown if record.spills_bytes]
unfit = [
    (record, f"does not fit: too much of {' and '.join(fits.limited_by)}")
    for record in shown
    if (fits := record.occupancy) is not None and not fits.blocks
]
failed = [record for record in shown if record.status == "failed"]
tiles = (("Kernels", len(shown)), ("Spill registers", len(spilling)), ("Do not fit", len(unfit)), ("Fail", len(failed)))
for column, (name, count) in zip(st.columns(4), tiles, strict=True):
    column.metric(name, count, border=True)
st.plotly_chart(
    issue_bars(shown), theme=None, key="issue", config=PLOT_CONFIG,
    alt=f"Cycles of a turn of the main loop of {len(shown)} kernels by pipe; the table has the same figures.",
)  # fmt: skip
st.caption(
    "One turn of the main loop of one program on one multiprocessor. The bar is the serial bound: every pipe waits for the "
    "others. The mark is the overlapped bound: the busiest pipe. The matrix unit's part over either is the largest share of "
    "the matrix roof that such a schedule can reach."
)
st.dataframe(table_of(shown), width="stretch", hide_index=True, key="code")
for record, said in [*((record, record.reason) for record in failed), *unfit]:
    st.markdown(f":red-badge[{record.target}] {record.label}: {said}")

st.subheader("One kernel")
names = [f"{record.target} {record.label}, {record.asked_warps} warps, {record.num_stages} stages" for record in shown]
position = st.selectbox("Kernel", range(len(shown)), format_func=lambda i: names[i], key="kernel")
facts = derived(shown[position])
left, right = st.columns(2)
for column, key, title in ((left, "main_loop", "main loop"), (right, "instructions", "whole kernel")):
    mix = sorted(facts[key].items(), key=lambda pair: -pair[1])
    column.markdown(f"**Instructions of the {title}**")
    column.dataframe(pd.DataFrame(mix, columns=["opcode", "count"]), hide_index=True, key=key, height=300)
if facts["not_counted"]:
    st.caption(f"Not in the bound, because no rate is published: {', '.join(facts['not_counted'])}.")
st.download_button(
    "Data (CSV)", lambda: pd.DataFrame([derived(record) for record in shown]).to_csv(index=False),
    file_name="compiled-code.csv", mime="text/csv", icon=":material/download:", key="csv", on_click="ignore",
)  # fmt: skip
