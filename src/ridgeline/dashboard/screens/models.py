"""Models: what a step of a model takes at least on devices of the catalogue, operator by operator."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from ridgeline.analytical.architectures import builtin_models
from ridgeline.analytical.catalogue import DeviceError, catalogue
from ridgeline.analytical.model_table import Request, make_table, phases_of
from ridgeline.analytical.prediction import EVIDENCE
from ridgeline.dashboard.figures.look import PLOT_CONFIG
from ridgeline.dashboard.figures.step import step_bars
from ridgeline.dashboard.quantity_text import MISSING, engineering, plain

MODEL, DEVICES = "llama-3-8b", ["nvidia-h100-sxm5-80gb", "nvidia-a100-sxm4-80gb"]
PRECISIONS = ("bfloat16", "float16", "float8_e4m3fn", "int8", "int4", "float4_e2m1fn", "float32")
MOST_DEVICES = 6


def operators_of(document: dict[str, Any]) -> pd.DataFrame:
    """A row per operator that is a kernel of its own; what rides along with a neighbour costs nothing in a bound."""
    (phase,) = document["phases"]
    return pd.DataFrame([row for row in phase["operators"] if not row["fused"]])


def readable(rows: pd.DataFrame) -> pd.DataFrame:
    """The same for people."""
    return pd.DataFrame(
        {
            "block": rows["block"],
            "operator": rows["operator"],
            "runs": rows["count"],
            "operations": [engineering(v, "FLOP") for v in rows["operations"]],
            "bytes": [engineering(v, "B") for v in rows["bytes"]],
            "intensity": [plain(v, "FLOP/B") for v in rows["intensity_flop_per_byte"]],
            "bound by": rows["bound_by"],
            "bound": [engineering(v, "s") for v in rows["seconds"]],
            "share": [f"{v:.1%}" for v in rows["share"]],
            "predicted": [MISSING if pd.isna(v) else engineering(v, "s") for v in rows["predicted_s"]],
        }
    )


st.title("Models")
try:
    known = catalogue()
except DeviceError as error:
    st.error(f"{error}", icon=":material/error:")
    st.stop()
with st.sidebar:
    names = list(builtin_models())
    name = st.selectbox("Model", names, index=names.index(MODEL), key="model", bind="query-params")
    architecture = builtin_models()[name].architecture
    # Bound to the address, which holds what an option is shown as: ids, not names.
    chosen = st.multiselect(
        "Devices", list(known), default=DEVICES, key="devices", bind="query-params", max_selections=MOST_DEVICES
    )
    phase_name = st.selectbox("Phase", phases_of(architecture), key="phase", bind="query-params")
    batch = st.number_input("Sequences", 1, 1 << 20, 1, key="batch", bind="query-params")
    length = st.number_input(
        "Tokens of each", 1, 1 << 24, 2048, key="length", bind="query-params",
        help="The prompt in prefill; the context, the new token included, in decode.",
    )  # fmt: skip
    weights = st.selectbox("Weights", PRECISIONS, key="weights", bind="query-params")
    activations = st.selectbox("Activations", PRECISIONS, key="activations", bind="query-params")
    kv = st.selectbox("KV cache", PRECISIONS, key="kv", bind="query-params")
    tp = st.selectbox("Tensor parallel", (1, 2, 4, 8, 16), key="tp", bind="query-params")

st.caption(
    f"{architecture.parameter_count / 1e9:.3g} B parameters, {architecture.attention_kind}, "
    f"{architecture.main.layer_count} layers · bounds from data sheets: no implementation is faster; predictions: what "
    "kernels of today take, norms and sums as kernels of their own"
)
if not chosen:
    st.info("Choose a device in the sidebar.", icon=":material/memory:")
    st.stop()
tables: dict[str, pd.DataFrame] = {}
lines = []
for device_id in chosen:
    device = known[device_id]
    try:
        document = make_table(
            Request(
                model=name, device=device_id, phases=(phase_name,), batch=batch, prompt=length, weights=weights,
                activations=activations, kv=kv, tp=tp, any_size=True,
            )
        )  # fmt: skip
    except ValueError as error:
        st.warning(f"{device.name}: {error}", icon=":material/block:")
        continue
    tables[device.name] = rows = operators_of(document)
    (step,), held = document["phases"], document["memory"]
    limits = rows.groupby("bound_by")["seconds"].sum()
    lines.append(
        {
            "device": device.name,
            "bound of the step": engineering(step["seconds"], "s"),
            "predicted": MISSING if step["predicted_s"] is None else engineering(step["predicted_s"], "s"),
            "prediction from": MISSING if step["evidence"] is None else EVIDENCE[step["evidence"]],
            "tokens per second at most": engineering(step["tokens_per_s"], ""),
            "mostly bound by": f"{limits.idxmax()} ({limits.max() / step['seconds']:.0%})",
            "weights": engineering(held["weights_bytes"], "B"),
            "KV cache": engineering(held["kv_bytes"], "B"),
            "memory of a device": engineering(held["capacity_bytes"], "B"),
            "fits": "yes" if held["fits"] else held["reason"],
            "largest batch": MISSING if held["largest_batch"] is None else f"{held['largest_batch']}",
        }
    )
if not tables:
    st.stop()
st.plotly_chart(
    step_bars(tables), theme=None, key="step_chart", config=PLOT_CONFIG,
    alt=f"Bound of a {phase_name} step of {name} on {len(tables)} devices by operator; the tables have the figures.",
)  # fmt: skip
st.dataframe(pd.DataFrame(lines), width="stretch", hide_index=True, key="devices_table")
for device_name, rows in tables.items():
    st.subheader(device_name)
    st.dataframe(readable(rows), width="stretch", hide_index=True, key=f"operators_{device_name}")
st.download_button(
    "Data (CSV)",
    lambda: pd.concat(tables, names=["device"]).reset_index(level=0).to_csv(index=False),
    file_name=f"{name}-{phase_name}.csv", mime="text/csv", icon=":material/download:", key="csv", on_click="ignore",
)  # fmt: skip
