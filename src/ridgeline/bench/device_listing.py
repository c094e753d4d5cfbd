"""The catalogue as a table: what each device could do, what it draws and what it costs, this machine first."""

from __future__ import annotations

import sys
from typing import Any

from rich.table import Table

from ridgeline.analytical.catalogue import SHIPPED, entries
from ridgeline.analytical.ceilings import Link
from ridgeline.analytical.device import Device
from ridgeline.analytical.plausibility import implausible

NONE = "-"
COLUMNS: tuple[tuple[str, str, float], ...] = (
    ("memory GB", "memory_bytes", 1e9),
    ("GB/s", "bandwidth_bytes_per_s", 1e9),
    ("bf16 TFLOP/s", "bfloat16_flop_per_s", 1e12),
    ("fp8 TFLOP/s", "float8_flop_per_s", 1e12),
    ("link GB/s", "link_per_direction_bytes_per_s", 1e9),
    ("W", "tdp_w", 1.0),
)
"""Heading, column of the row, and what its value is divided by."""


def device_rows() -> list[dict[str, Any]]:
    """One row a device: this machine, then the catalogue with the user's own files."""
    from ridgeline.bench.devices.cpu import detect

    rows = [_row(detect().device, "this machine", here=True)]
    for entry in entries().values():
        if entry.origin != SHIPPED:
            for finding in implausible(entry.device):
                print(f"ridgeline: {entry.origin}: {finding}", file=sys.stderr)
        rows.append(_row(entry.device, entry.origin, here=False))
    return rows


def _row(device: Device, origin: str, here: bool) -> dict[str, Any]:
    bandwidth = device.bandwidth(device.main_memory.name)
    float8 = device.peak("float8_e4m3fn") or device.peak("float8_e4m3fnuz")
    rates = {name: device.peak(name) for name in ("bfloat16", "float16", "int8", "float4_e2m1fn")}
    link: Link | None = max(device.links, key=lambda each: each.per_direction_bytes_per_s, default=None)
    rents = [price for price in device.prices if price.basis == "rent_per_hour"]
    limits = [power for power in device.power if power.tdp_w is not None]
    return {
        "device": device.id,
        "name": device.name,
        "kind": device.kind,
        "architecture": device.architecture or None,
        "released": device.released or None,
        "memory_bytes": device.main_memory.capacity_bytes,
        "bandwidth_bytes_per_s": bandwidth and bandwidth.value_per_s,
        "bfloat16_flop_per_s": rates["bfloat16"] and rates["bfloat16"].value_per_s,
        "float16_flop_per_s": rates["float16"] and rates["float16"].value_per_s,
        "float8_flop_per_s": float8 and float8.value_per_s,
        "float8": float8 and float8.a,
        "float4_flop_per_s": rates["float4_e2m1fn"] and rates["float4_e2m1fn"].value_per_s,
        "int8_per_s": rates["int8"] and rates["int8"].value_per_s,
        "link": link and link.name,
        "link_per_direction_bytes_per_s": link and link.per_direction_bytes_per_s,
        "tdp_w": device.tdp_w,
        "power_scope": limits[0].scope if limits else None,
        "rent_low_usd_per_hour": min((price.low_usd for price in rents), default=None),
        "rent_high_usd_per_hour": max((price.high_usd for price in rents), default=None),
        "rent_date": max((price.date for price in rents), default=None),
        "confidence": device.confidence or None,
        "origin": origin,
        "here": here,
    }


def device_table(rows: list[dict[str, Any]]) -> Table:
    """The rows for people; rates are dense, links in one direction, and a dash is what nobody stated."""
    table = Table(caption="dense rates with float32 accumulation; links in one direction; rents are ranges of 2026")
    table.add_column("device", no_wrap=True)
    table.add_column("year")
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right")
    table.add_column("$/h")
    table.add_column("confidence")
    own = any(row["origin"] not in (SHIPPED, "this machine") for row in rows)
    if own:
        table.add_column("from", overflow="fold")
    for row in rows:
        numbers = [_number(row[column], scale) for _, column, scale in COLUMNS]
        rent = NONE
        if row["rent_low_usd_per_hour"] is not None:
            rent = f"{row['rent_low_usd_per_hour']:.2f} to {row['rent_high_usd_per_hour']:.2f}"
        cells = [row["device"], (row["released"] or NONE)[:4], *numbers, rent]
        cells.append("this machine" if row["here"] else row["confidence"] or NONE)
        table.add_row(*cells, *([row["origin"]] if own else []))
    return table


def _number(value: float | None, scale: float) -> str:
    return NONE if value is None else f"{value / scale:,.4g}" if value / scale < 1000 else f"{value / scale:,.0f}"
