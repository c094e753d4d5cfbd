"""Whether a device description can be right: what a data sheet of this kind never says is named, rule by rule.

Half of the wrong ceilings in public tables are one of a few slips: a sparse rate taken for a dense one, both directions
of a link added up, GB/s written as bytes, a rate for arithmetic that the unit does not have. Each has a rule here. Real
exceptions are named with their reason; nothing is loosened to let them pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from ridgeline.analytical.ceilings import Ceiling, Source
from ridgeline.analytical.device import Device
from ridgeline.analytical.work import SPECIAL, RateKey

ROUNDING = 0.025
"""Data sheets round their rates: V100's 113 TFLOP/s are printed as 112, and B200's 1125 of TF32 as 2.2 PFLOP/s sparse."""

LACKS: Mapping[str, tuple[str, ...]] = {
    "volta": ("bfloat16", "tfloat32", "float8_e4m3fn", "float4_e2m1fn"),
    "turing": ("bfloat16", "tfloat32", "float8_e4m3fn", "float4_e2m1fn"),
    "ampere": ("float8_e4m3fn", "float4_e2m1fn"),
    "ada": ("float4_e2m1fn",),
    "hopper": ("int4", "float4_e2m1fn"),
    "blackwell": ("int4",),
    "blackwell-workstation": ("int4",),
    "cdna2": ("tfloat32", "float8_e4m3fn", "float8_e4m3fnuz", "float4_e2m1fn"),
    "cdna3": ("float8_e4m3fn", "float4_e2m1fn"),
    "cdna4": ("tfloat32", "float8_e4m3fnuz"),
    "xe2": ("float8_e4m3fn", "float4_e2m1fn"),
    "gaudi2": ("float4_e2m1fn",),
    "gaudi3": ("float4_e2m1fn",),
    "tpu-v4": ("float8_e4m3fn", "float4_e2m1fn"),
    "tpu-v5e": ("float8_e4m3fn", "float4_e2m1fn"),
    "tpu-v5p": ("float8_e4m3fn", "float4_e2m1fn"),
    "tpu-v6e": ("float8_e4m3fn", "float4_e2m1fn"),
    "tpu-v7": ("int8", "float4_e2m1fn"),
}
"""Precisions that no matrix unit of the architecture computes in. Some vendors print a rate all the same (TPU v5p's
float8 is its bfloat16 unit); a device without a rate is told so, one with a wrong rate is believed."""

RATIOS: tuple[tuple[str, str, float], ...] = (
    ("tfloat32", "bfloat16", 0.5),
    ("float16", "bfloat16", 1.0),
    ("float8_e4m3fn", "bfloat16", 2.0),
    ("float8_e4m3fnuz", "bfloat16", 2.0),
    ("float4_e2m1fn", "float8_e4m3fn", 2.0),
    ("int8", "bfloat16", 2.0),
    ("int4", "int8", 2.0),
)
"""Matrix rates over each other, all dense: halving the operand doubles the rate."""
HALF_ACCUMULATE = "GeForce cards halve the rate of float accumulation into float32, not that of integers or float4"
OTHER_RATIOS: Mapping[str, Mapping[tuple[str, str], tuple[float, str]]] = {
    "nvidia-geforce-rtx-3090": {("int8", "bfloat16"): (4.0, HALF_ACCUMULATE)},
    "nvidia-geforce-rtx-4090": {("int8", "bfloat16"): (4.0, HALF_ACCUMULATE)},
    "nvidia-geforce-rtx-5090": {
        ("int8", "bfloat16"): (4.0, HALF_ACCUMULATE),
        ("float4_e2m1fn", "float8_e4m3fn"): (4.0, HALF_ACCUMULATE),
    },
    "nvidia-l40s": {("int4", "int8"): (1.0, "the data sheet prints 733 for both, though the white paper doubles int4")},
    "nvidia-b300-sxm": {
        ("int8", "bfloat16"): (0.068, "the integer tensor path was taken out of Blackwell Ultra"),
        ("float4_e2m1fn", "float8_e4m3fn"): (3.0, "Blackwell Ultra has half as much float4 again as Blackwell"),
    },
    "nvidia-gb300-nvl72": {
        ("int8", "bfloat16"): (0.066, "the integer tensor path was taken out of Blackwell Ultra"),
        ("float4_e2m1fn", "float8_e4m3fn"): (3.0, "Blackwell Ultra has half as much float4 again as Blackwell"),
    },
    "amd-instinct-mi210": {("int8", "bfloat16"): (1.0, "CDNA 2 runs int8 at the rate of float16")},
    "amd-instinct-mi250x": {("int8", "bfloat16"): (1.0, "CDNA 2 runs int8 at the rate of float16")},
    "amd-instinct-mi250x-gcd": {("int8", "bfloat16"): (1.0, "CDNA 2 runs int8 at the rate of float16")},
    "google-tpu-v4": {("int8", "bfloat16"): (1.0, "the MXU of the v4 runs int8 at the bfloat16 rate")},
    "intel-gaudi3": {("float8_e4m3fn", "bfloat16"): (1.0, "Gaudi 3's matrix engine runs float8 at the bfloat16 rate")},
    "aws-trainium1": {
        ("tfloat32", "bfloat16"): (1.0, "the NeuronCore runs TF32 at full rate"),
        ("float8_e4m3fn", "bfloat16"): (1.0, "NeuronCore-v2 saves bytes with float8, not time"),
    },
    "aws-inferentia2": {
        ("tfloat32", "bfloat16"): (1.0, "the NeuronCore runs TF32 at full rate"),
        ("float8_e4m3fn", "bfloat16"): (1.0, "NeuronCore-v2 saves bytes with float8, not time"),
    },
    "aws-trainium2": {
        ("tfloat32", "bfloat16"): (1.0, "the NeuronCore runs TF32 at full rate"),
        ("float8_e4m3fn", "bfloat16"): (1.948, "printed as 1299 over 667"),
    },
    "aws-trainium3": {
        ("tfloat32", "bfloat16"): (1.0, "the NeuronCore runs TF32 at full rate"),
        ("float8_e4m3fn", "bfloat16"): (3.75, "NeuronCore-v4 quadruples microscaled float8 only"),
        ("float4_e2m1fn", "float8_e4m3fn"): (1.0, "printed as one figure for MXFP8 and MXFP4"),
    },
}
"""Ratios that differ from :data:`RATIOS`, by device, with the reason."""
OTHER_SPARSE: Mapping[str, Mapping[str, tuple[float, str]]] = {
    "nvidia-b300-sxm": {"float4_e2m1fn": (18.0 / 13.5, "the sparse float4 rate was left at that of Blackwell")},
    "nvidia-gb300-nvl72": {"float4_e2m1fn": (20.0 / 15.0, "the sparse float4 rate was left at that of Blackwell")},
}

MOST_BY_YEAR: tuple[tuple[int, float, float], ...] = (
    (2019, 0.13e15, 1.2e12),
    (2021, 0.45e15, 3.4e12),
    (2023, 1.4e15, 5.5e12),
    (2025, 2.7e15, 8.2e12),
)
"""Last year, and until then the most 16-bit operations and bytes per second of any device."""
LINK_MOST: Mapping[str, Mapping[str, float]] = {
    "nvlink": {"volta": 150e9, "ampere": 300e9, "hopper": 450e9, "blackwell": 900e9},
    "pcie": {
        "volta": 16e9,
        "turing": 16e9,
        "ampere": 32e9,
        "ada": 32e9,
        "hopper": 64e9,
        "blackwell": 128e9,
        "blackwell-workstation": 64e9,
        "cdna2": 32e9,
        "cdna3": 64e9,
        "cdna4": 64e9,
        "xe2": 32e9,
        "gaudi2": 32e9,
        "gaudi3": 64e9,
    },
    "infinity_fabric": {"cdna2": 400e9, "cdna3": 448e9, "cdna4": 538e9},
    "ici": {"tpu-v4": 300e9, "tpu-v5e": 200e9, "tpu-v5p": 600e9, "tpu-v6e": 400e9, "tpu-v7": 600e9},
}
"""Most bytes per second that one device sends over all lanes of a link, by architecture."""


def implausible(device: Device, file_name: str | None = None) -> list[str]:
    """What cannot be right about a description: one line each, beginning with the name of the rule.

    Args:
        device: the description.
        file_name: the file's name without ``.toml``, where it comes from one of the catalogue.
    """
    found = [f"{rule.__name__.strip('_')}: {text}" for rule in _RULES for text in rule(device)]
    if file_name is not None and file_name != device.id:
        found.append(f"id: {device.id!r} stands in {file_name}.toml")
    return found


def ridge_flop_per_byte(device: Device, precision: str = "bfloat16") -> float | None:
    """Arithmetic intensity from which ``precision`` is bound by arithmetic, from main memory; None where unknown."""
    rate, bandwidth = device.peak(precision), device.bandwidth(device.main_memory.name)
    return None if rate is None or bandwidth is None else rate.value_per_s / bandwidth.value_per_s


def _source(device: Device) -> Iterator[str]:
    for what, source in _sources(device):
        if not source.detail.strip() and not source.date.strip():
            yield f"{what} cites {source.title!r} without a table, page or date"
        if not source.title.strip():
            yield f"{what} cites nothing"
    for price in device.prices:
        if not re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", price.date):
            yield f"a price of {price.date!r}: write YYYY-MM"


def _sources(device: Device) -> Iterator[tuple[str, Source]]:
    ceilings: tuple[Ceiling, ...] = (*device.rates, *device.bandwidths)
    for ceiling in ceilings:
        yield ceiling.label, ceiling.source
    for link in device.links:
        yield link.name, link.source
    for power in device.power:
        yield "power", power.source
    for price in device.prices:
        yield price.basis, price.source


def _id(device: Device) -> Iterator[str]:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", device.id):
        yield f"{device.id!r} is not <vendor>-<sku> in small letters joined by '-'"


def _released(device: Device) -> Iterator[str]:
    if not re.fullmatch(r"20[12]\d(-(0[1-9]|1[0-2]))?", device.released):
        yield f"{device.released!r} is neither a year nor YYYY-MM"


def _units(device: Device) -> Iterator[str]:
    """Orders of magnitude: a slip of a unit is a factor of a thousand, or 2 ** 30 for 1e9."""
    for rate in device.rates:
        yield from _outside(rate.label, rate.value_per_s, 1e10, 1e17, "operations per second")
    for bandwidth in device.bandwidths:
        yield from _outside(bandwidth.level, bandwidth.value_per_s, 20e9, 100e12, "bytes per second")
    for link in device.links:
        yield from _outside(link.name, link.per_direction_bytes_per_s, 1e9, 2e12, "bytes per second")
    for level in device.memory:
        yield from _outside(level.name, level.capacity_bytes, 8e3, 8e12, "bytes")
    yield from _outside(device.main_memory.name, device.main_memory.capacity_bytes, 4e9, 8e12, "bytes")
    if device.main_memory.capacity_bytes % 2**30 == 0:
        yield f"{device.main_memory.name} of {device.main_memory.capacity_bytes:g} bytes is a multiple of 2^30: GB is 1e9"
    for power in device.power:
        for watts in (power.tdp_w, power.idle_w, power.sustained_w):
            if watts is not None:
                yield from _outside("power", watts, 1.0, 3000.0, "W")
    for clock in (device.base_clock_mhz, device.boost_clock_mhz, *(rate.clock_mhz for rate in device.rates)):
        if clock is not None:
            yield from _outside("a clock", clock, 200.0, 6000.0, "MHz")


def _outside(what: str, value: float, low: float, high: float, unit: str) -> Iterator[str]:
    if not low <= value <= high:
        yield f"{what}: {value:g} {unit} is not between {low:g} and {high:g}"


def _year(device: Device) -> Iterator[str]:
    """No device outruns its years: a sparse rate entered as dense does."""
    year = int(device.released[:4]) if device.released[:4].isdecimal() else 0
    for last, operations, bytes_per_s in MOST_BY_YEAR:
        if year > last:
            continue
        for precision in ("bfloat16", "float16"):
            rate = device.peak(precision, "matrix")
            if rate is not None and rate.value_per_s > operations:
                yield f"{rate.label}: {rate.value_per_s:g} per second is more than any device of {last} had: sparse?"
        main = device.bandwidth(device.main_memory.name)
        if main is not None and main.value_per_s > bytes_per_s:
            yield f"{main.level}: {main.value_per_s:g} bytes per second is more than any device of {last} had"
        return


def _memory(device: Device) -> Iterator[str]:
    sizes = [level.capacity_bytes for level in device.memory]  # one core's: Graviton3's 64 L2s hold more than its L3
    if sizes != sorted(sizes):
        yield "levels must go from the fastest to the largest"
    if device.bandwidth(device.main_memory.name) is None:
        yield f"no bandwidth of {device.main_memory.name}"


def _twice(device: Device) -> Iterator[str]:
    """The same ceiling stated twice: the larger of two would silently count."""
    keys = [(rate.key, rate.threads) for rate in device.rates if rate.kind != "measured"]
    for key in {key for key in keys if keys.count(key) > 1}:
        yield f"{key[0].label} is stated {keys.count(key)} times"


def _lacks(device: Device) -> Iterator[str]:
    for rate in device.rates:
        if rate.unit == "matrix" and rate.a in LACKS.get(device.architecture, ()):
            yield f"{device.architecture} has no {rate.a}, and {rate.label} is stated"


def _ratio(device: Device) -> Iterator[str]:
    others = OTHER_RATIOS.get(device.id, {})
    for narrow, wide, usual in RATIOS:
        above, below = device.peak(narrow, "matrix"), device.peak(wide, "matrix")
        if above is None or below is None:
            continue
        expected, why = others.get((narrow, wide), (usual, ""))
        ratio = above.value_per_s / below.value_per_s
        if not math.isclose(ratio, expected, rel_tol=ROUNDING):
            yield f"{narrow} is {ratio:.3g} times {wide}, not {expected:g}{f' ({why})' if why else ''}"


def _sparse(device: Device) -> Iterator[str]:
    dense = {rate.key: rate.value_per_s for rate in device.rates if rate.sparsity == "dense"}
    for rate in device.rates:
        if rate.sparsity == "dense":
            continue
        key = RateKey(rate.unit, rate.a, rate.b, rate.accumulator)
        if key not in dense:
            yield f"{rate.label} without the dense rate"
            continue
        expected, _ = OTHER_SPARSE.get(device.id, {}).get(rate.a, (2.0, ""))
        if not math.isclose(rate.value_per_s / dense[key], expected, rel_tol=ROUNDING):
            yield f"{rate.label} is {rate.value_per_s / dense[key]:.3g} times the dense rate, not {expected:.3g}"


def _clock(device: Device) -> Iterator[str]:
    """Units x operations per clock x clock: a unit does a power of two of operations in a clock, or three times one."""
    for rate in device.rates:
        if rate.clock_mhz is None:
            if rate.kind == "derived":
                yield f"{rate.label} is derived, and states no clock to derive it from"
            continue
        if device.boost_clock_mhz is not None and rate.clock_mhz > 1.001 * device.boost_clock_mhz:
            yield f"{rate.label} holds at {rate.clock_mhz:g} MHz, above the boost of {device.boost_clock_mhz:g}"
        if device.unit_count is None:
            continue
        per_clock = rate.value_per_s / (device.unit_count * rate.clock_mhz * 1e6)
        nearest = min(
            (factor * 2.0 ** round(math.log2(per_clock / factor)) for factor in (1.0, 3.0)),
            key=lambda whole: abs(math.log(per_clock / whole)),
        )
        if not math.isclose(per_clock, nearest, rel_tol=ROUNDING):
            yield f"{rate.label} is {per_clock:.4g} operations a clock of each unit, which no unit does"


def _link(device: Device) -> Iterator[str]:
    """Data sheets print both directions of a link together; a device file holds one."""
    for link in device.links:
        most = LINK_MOST.get(link.name, {}).get(device.architecture)
        if most is not None and link.per_direction_bytes_per_s > 1.001 * most:
            yield (
                f"{link.name}: {link.per_direction_bytes_per_s / 1e9:g} GB/s in one direction is more than the"
                f" {most / 1e9:g} of {device.architecture}: both directions together?"
            )


def _power(device: Device) -> Iterator[str]:
    for power in device.power:
        if power.tdp_w is None:
            continue
        if power.idle_w is not None and power.idle_w >= power.tdp_w:
            yield f"idle {power.idle_w:g} W is not below the limit of {power.tdp_w:g}"
        if power.sustained_w is not None and power.sustained_w > 1.05 * power.tdp_w:
            yield f"sustained {power.sustained_w:g} W is above the limit of {power.tdp_w:g}"


def _kind(device: Device) -> Iterator[str]:
    if not device.confidence:
        yield "confidence is not stated: high, medium or low"
    if device.confidence == "low":
        for rate in device.rates:
            if rate.kind == "datasheet":
                yield f"{rate.label} of a device of low confidence is called a data sheet's"
    for rate in device.rates:
        if rate.key == SPECIAL and rate.kind == "datasheet":
            yield "no data sheet prints a special-function rate: derive it"


def _vector(device: Device) -> Iterator[str]:
    """Matrix units exist because they outrun the vector lanes."""
    for precision in ("float16", "bfloat16", "int8"):
        narrow, wide = device.peak(precision, "matrix"), device.peak("float32", "vector")
        if narrow is not None and wide is not None and narrow.value_per_s < 0.98 * wide.value_per_s:
            yield f"{narrow.label} is slower than {wide.label}"


_RULES: tuple[Callable[[Device], Iterable[str]], ...] = (
    _source,
    _id,
    _released,
    _units,
    _year,
    _memory,
    _twice,
    _lacks,
    _ratio,
    _sparse,
    _clock,
    _link,
    _power,
    _kind,
    _vector,
)
