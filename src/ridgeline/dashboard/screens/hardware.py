"""Hardware: the catalogue of devices, what each could do at most, and where every figure is from."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from ridgeline.analytical.catalogue import DeviceError, catalogue
from ridgeline.analytical.device import Device
from ridgeline.dashboard import tables
from ridgeline.dashboard.figures.catalogue import device_map
from ridgeline.dashboard.figures.look import PLOT_CONFIG
from ridgeline.dashboard.quantity_text import MISSING, engineering

PRECISIONS = ("bfloat16", "float16", "float8_e4m3fn", "int8", "float4_e2m1fn", "float32")
NAMED = (
    "nvidia-a100-sxm4-80gb",
    "nvidia-h100-sxm5-80gb",
    "nvidia-l40s",
    "nvidia-b200-sxm-180gb",
    "amd-instinct-mi300x",
)


def table_of(devices: list[Device]) -> pd.DataFrame:
    """A line per device; numbers, so that columns sort."""

    def rate(device: Device, precision: str) -> float | None:
        found = device.peak(precision)
        return found.value_per_s / 1e12 if found else None

    def rent(device: Device) -> str:
        found = [p for p in device.prices if p.basis == "rent_per_hour"]
        return ", ".join(f"{p.low_usd:.2f} to {p.high_usd:.2f} ({p.date})" for p in found) or MISSING

    def bandwidth(device: Device) -> float | None:
        found = device.bandwidth(device.main_memory.name)
        return found.value_per_s / 1e9 if found else None

    return pd.DataFrame(
        {
            "detail": [f"/hardware?device={d.id}" for d in devices],
            "device": [d.name for d in devices],
            "kind": [d.kind for d in devices],
            "architecture": [d.architecture for d in devices],
            "released": [d.released for d in devices],
            "memory, GB": [d.main_memory.capacity_bytes / 1e9 for d in devices],
            "bandwidth, GB/s": [bandwidth(d) for d in devices],
            **{f"{p}, TFLOP/s": [rate(d, p) for d in devices] for p in PRECISIONS},
            "TDP, W": [next((p.tdp_w for p in d.power if p.tdp_w), None) for d in devices],
            "rent, $/h": [rent(d) for d in devices],
        }
    )


def facts_of(device: Device) -> pd.DataFrame:
    """What is no ceiling: clocks, links, power and prices, with sources."""
    facts: list[tuple[str, str, str]] = []
    if device.unit_count:
        facts.append(("units (multiprocessors, compute units, cores)", f"{device.unit_count}", ""))
    for name, clock in (("base clock", device.base_clock_mhz), ("boost clock", device.boost_clock_mhz)):
        if clock:
            facts.append((name, f"{clock:g} MHz", ""))
    facts += [(f"{m.name} capacity", engineering(m.capacity_bytes, "B"), "") for m in device.memory]
    for link in device.links:
        facts.append(
            (f"{link.name}, one direction", engineering(link.per_direction_bytes_per_s, "B/s"), link.source.title)
        )
    for power in device.power:
        for name, value in (("TDP", power.tdp_w), ("idle", power.idle_w), ("sustained", power.sustained_w)):
            if value:
                facts.append((f"{name} power of the {power.scope}", f"{value:g} W ({power.kind})", power.source.title))
    for price in device.prices:
        basis = "rent, $/h" if price.basis == "rent_per_hour" else "purchase, $"
        facts.append((basis, f"{price.low_usd:,.2f} to {price.high_usd:,.2f} ({price.date})", price.source.title))
    return pd.DataFrame(facts, columns=["quantity", "value", "source"])


st.title("Hardware")
try:
    known = catalogue()
except DeviceError as error:
    st.error(f"{error}", icon=":material/error:")
    st.stop()
with st.sidebar:
    st.markdown("**Filter**")
    kinds = st.multiselect(
        "Kind", sorted({d.kind for d in known.values()}), key="kind", bind="query-params", placeholder="all kinds"
    )
    families = st.multiselect(
        "Architecture", sorted({d.architecture for d in known.values()}), key="architecture", bind="query-params",
        placeholder="all architectures",
    )  # fmt: skip
    precision = st.selectbox("Precision of the chart", PRECISIONS, key="precision", bind="query-params")
devices = [d for d in known.values() if (not kinds or d.kind in kinds) and (not families or d.architecture in families)]
if not devices:
    st.info("Nothing matches the filter.", icon=":material/filter_alt_off:")
    st.stop()

wanted = st.query_params.get("device", "")
if st.session_state.get("chosen_device") not in {d.id for d in devices}:
    # The address presets the choice; afterwards the reader's own stands and is written back.
    there = {d.id for d in devices}
    st.session_state["chosen_device"] = next((i for i in (wanted, *NAMED) if i in there), devices[0].id)
    if wanted and wanted not in there:
        st.warning(f"No device `{wanted}` here: choose one below.", icon=":material/help:")
st.plotly_chart(
    device_map(devices, precision, {*NAMED, st.session_state["chosen_device"]}), theme=None, key="device_map",
    config=PLOT_CONFIG, alt=f"Arithmetic over bandwidth of {len(devices)} devices; the table has the same figures.",
)  # fmt: skip
st.caption(
    "Dense rates that data sheets state, or that were derived or assumed where they do not; none is measured here. The tables "
    "below say which. Dotted: equal ridge points; below a line a device is bound by arithmetic sooner."
)
st.dataframe(
    table_of(devices), width="stretch", hide_index=True, key="devices",
    column_config={"detail": st.column_config.LinkColumn("detail", display_text="open", width=56, pinned=True)},
)  # fmt: skip

st.subheader("One device")
chosen = st.selectbox("Device", [d.id for d in devices], key="chosen_device", format_func=lambda i: known[i].name)
st.query_params["device"] = chosen
device = known[chosen]
st.dataframe(tables.ceilings_of(device, 1), width="stretch", hide_index=True, key="ceilings")
st.dataframe(facts_of(device), width="stretch", hide_index=True, key="facts")
if device.note:
    st.caption(device.note)
