"""One device for people: tables of its figures with kind and source, and whatever looks wrong about them."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from ridgeline.analytical.ceilings import Source
from ridgeline.analytical.device import Device
from ridgeline.analytical.plausibility import implausible, ridge_flop_per_byte


def device_parts(device: Device) -> Iterator[Table | str]:
    """Head line, table of figures, sources, note and findings, in the order of printing."""
    facts = [device.id, device.name, device.architecture, device.released]
    if device.unit_count:
        facts.append(f"{device.unit_count} units")
    if device.boost_clock_mhz:
        facts.append(f"{device.boost_clock_mhz:g} MHz at most")
    if device.confidence:
        facts.append(f"confidence {device.confidence}")
    yield _plain(", ".join(fact for fact in facts if fact))
    table = Table()
    for heading in ("figure", "value", "kind", "source"):
        table.add_column(heading, overflow="fold", justify="left" if heading in ("figure", "kind") else "right")
    numbers: dict[Source, int] = {}
    for figure, value, kind, source in _figures(device):
        number = "" if source is None else str(numbers.setdefault(source, len(numbers) + 1))
        table.add_row(*map(_plain, (figure, value, kind, number)))
    yield table
    for source, index in numbers.items():
        yield _plain(f"{index}: " + ", ".join(part for part in (source.title, source.detail, source.date) if part))
    ridge = ridge_flop_per_byte(device)
    if ridge is not None:
        yield _plain(f"bfloat16 is bound by arithmetic from {ridge:.0f} FLOP per byte of {device.main_memory.name}")
    if device.note:
        yield _plain(device.note)
    for finding in implausible(device):
        yield _plain(f"implausible: {finding}")


def _figures(device: Device) -> Iterator[tuple[str, str, str, Source | None]]:
    for level in device.memory:
        whole = " per core" if level.per_core else ""
        yield f"{level.name} capacity", f"{level.capacity_bytes / 1e6:,.10g} MB{whole}", "", None
    for bandwidth in device.bandwidths:
        access = "" if bandwidth.access == "any" else f", {bandwidth.access}"
        yield (
            f"{bandwidth.level} bandwidth{access}",
            _interval(bandwidth.low_per_s, bandwidth.value_per_s, bandwidth.high_per_s, 1e9, "GB/s"),
            bandwidth.kind,
            bandwidth.source,
        )
    for rate in device.rates:
        clock = "" if rate.clock_mhz is None else f" at {rate.clock_mhz:g} MHz"
        yield (
            rate.label,
            _interval(rate.low_per_s, rate.value_per_s, rate.high_per_s, 1e12, "T/s") + clock,
            rate.kind,
            rate.source,
        )
    for link in device.links:
        among = "" if link.domain_size is None else f", {link.domain_size} devices"
        value = f"{link.per_direction_bytes_per_s / 1e9:,.4g} GB/s each way"
        yield f"{link.name}{among}", value, link.kind, link.source
    for power in device.power:
        scope = "" if power.scope == "device" else f" of the {power.scope}"
        for what, watts in (("limit", power.tdp_w), ("idle", power.idle_w), ("sustained", power.sustained_w)):
            if watts is not None:
                yield f"power{scope}, {what}", f"{watts:g} W", power.kind, power.source
    for price in device.prices:
        what = "rent per hour" if price.basis == "rent_per_hour" else "purchase"
        yield f"{what}, {price.date}", f"{price.low_usd:,g} to {price.high_usd:,g} $", price.kind, price.source


def _interval(low: float, value: float, high: float, scale: float, unit: str) -> str:
    around = "" if low == high else f" [{low / scale:,.4g}, {high / scale:,.4g}]"
    return f"{value / scale:,.5g}{around} {unit}"


def _plain(text: str) -> str:
    """Text that rich does not take for markup."""
    return text.replace("[", r"\[")
