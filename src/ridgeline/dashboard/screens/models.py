"""Models: what a step of a model takes at least on devices of the catalogue, operator by operator."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from ridgeline.analytical.architectures import Architecture, builtin_models
from ridgeline.analytical.architectures.operations import operations
from ridgeline.analytical.architectures.step import operation_times
from ridgeline.analytical.catalogue import DeviceError, catalogue
from ridgeline.analytical.device import Device
from ridgeline.analytical.layout import Layout, Precisions
from ridgeline.analytical.memory import fit, largest_batch, memory
from ridgeline.analytical.phases import Phase
from ridgeline.dashboard.figures.look import PLOT_CONFIG
from ridgeline.dashboard.figures.step import step_bars
from ridgeline.dashboard.quantity_text import MISSING, engineering, plain

MODEL, DEVICES = "llama-3-8b", ["nvidia-h100-sxm5-80gb", "nvidia-a100-sxm4-80gb"]
PRECISIONS = ("bfloat16", "float16", "float8_e4m3fn", "int8", "int4", "float4_e2m1fn", "float32")
MOST_DEVICES = 6


def phase_of(name: str, architecture: Architecture, batch: int, length: int) -> Phase:
    """The step that was asked for; an encoder works on the size that its config states."""
    if name == "encoder":
        return Phase.encoder(batch, architecture.encoder_length or length)
    source = (architecture.encoder_length or length) if architecture.encoder is not None else 0
    if name == "prefill":
        return Phase.prefill(batch, length, source_length=source)
    return Phase.decode(batch, length, source_length=source)


def operators_of(
    architecture: Architecture, phase: Phase, precisions: Precisions, layout: Layout, device: Device
) -> pd.DataFrame:
    """A row per operator that is a kernel of its own; what rides along with a neighbour costs nothing in a bound.

    Raises:
        ValueError: one line for what the device or the layout cannot do.
    """
    timed = operation_times(operations(architecture, phase, precisions, layout), device)
    return pd.DataFrame(
        [
            {
                "operator": each.operation.name,
                "block": each.operation.block,
                "count": each.operation.count,
                "operations": float(each.operation.work.flop) * each.operation.count,
                "bytes": float(each.operation.work.bytes) * each.operation.count,
                "seconds": float(each.total_s),
                "bound_by": str(each.bound_by),
            }
            for each in timed
            if not each.operation.fusible
        ]
    )


def readable(rows: pd.DataFrame) -> pd.DataFrame:
    """The same for people."""
    total = float(rows["seconds"].sum())
    intensity = [o / b if b else None for o, b in zip(rows["operations"], rows["bytes"], strict=True)]
    return pd.DataFrame(
        {
            "block": rows["block"],
            "operator": rows["operator"],
            "runs": rows["count"],
            "operations": [engineering(v, "FLOP") for v in rows["operations"]],
            "bytes": [engineering(v, "B") for v in rows["bytes"]],
            "intensity": [plain(v, "FLOP/B") for v in intensity],
            "bound by": rows["bound_by"],
            "time": [engineering(v, "s") for v in rows["seconds"]],
            "share": [f"{v / total:.1%}" for v in rows["seconds"]],
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
    phases = (["prefill", "decode"] if architecture.decoder is not None else []) + (
        ["encoder"] if architecture.encoder is not None else []
    )
    phase_name = st.selectbox("Phase", phases, key="phase", bind="query-params")
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
    f"{architecture.main.layer_count} layers · bounds from data sheets: no implementation is faster, real ones are slower"
)
if not chosen:
    st.info("Choose a device in the sidebar.", icon=":material/memory:")
    st.stop()
tables: dict[str, pd.DataFrame] = {}
lines = []
for device_id in chosen:
    device = known[device_id]
    try:
        precisions = Precisions(weights=weights, activations=activations, kv=kv)
        layout = Layout(tp=tp)
        phase = phase_of(phase_name, architecture, batch, length)
        rows = operators_of(architecture, phase, precisions, layout, device)
        held = memory(architecture, precisions, layout, sequences=batch, length=length, tokens=phase.tokens)
        found = fit(held, device)
        most = (
            largest_batch(architecture, found.has_bytes, precisions, layout, length=length, tokens=phase.tokens)
            if architecture.decoder is not None
            else None
        )
    except ValueError as error:
        st.warning(f"{device.name}: {error}", icon=":material/block:")
        continue
    tables[device.name] = rows
    seconds = float(rows["seconds"].sum())
    limits = rows.groupby("bound_by")["seconds"].sum()
    lines.append(
        {
            "device": device.name,
            "bound of the step": engineering(seconds, "s"),
            "tokens per second at most": engineering(float(phase.tokens) / seconds, ""),
            "mostly bound by": f"{limits.idxmax()} ({limits.max() / seconds:.0%})",
            "weights": engineering(float(held.weights_bytes), "B"),
            "KV cache": engineering(float(held.kv_bytes), "B"),
            "memory of a device": engineering(found.has_bytes, "B"),
            "fits": "yes" if found.fits else found.reason,
            "largest batch": MISSING if most is None else f"{most}",
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
