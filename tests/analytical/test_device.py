"""Devices: what loads, what is refused, and which ceiling serves which arithmetic."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ridgeline.analytical.catalogue import DeviceError, device_from_dict, load_device
from ridgeline.analytical.cores import cores, find_core, physical_ceilings
from ridgeline.analytical.device import Device
from ridgeline.analytical.roofline import bound
from ridgeline.analytical.work import RateKey, Work, fma_key

SOURCE = {"title": "a data sheet", "detail": "table 1"}


def rate(unit: str, precision: str, value: float, **options: Any) -> dict[str, Any]:
    key = fma_key(precision, unit)
    facts = {"unit": unit, "a": key.a, "b": key.b, "accumulator": key.accumulator, "kind": "datasheet"}
    interval = {"low_per_s": value, "value_per_s": value, "high_per_s": value}
    return {**facts, **interval, "source": SOURCE, **options}


def bandwidth(level: str, value: float, **options: Any) -> dict[str, Any]:
    interval = {"low_per_s": value, "value_per_s": value, "high_per_s": value}
    return {"level": level, **interval, "kind": "datasheet", "source": SOURCE, **options}


def link(per_direction: float, **options: Any) -> dict[str, Any]:
    return {
        "name": "nvlink",
        "per_direction_bytes_per_s": per_direction,
        "kind": "datasheet",
        "source": SOURCE,
        **options,
    }


def price(low: float, high: float, **options: Any) -> dict[str, Any]:
    facts = {"basis": "purchase", "low_usd": low, "high_usd": high, "date": "2026-05", "source": SOURCE}
    return {**facts, **options}


def description(**changes: Any) -> dict[str, Any]:
    return {
        "id": "toy",
        "name": "Toy",
        "vendor": "none",
        "kind": "cpu",
        "memory": [
            {"name": "L1", "capacity_bytes": 1e3, "per_core": True},
            {"name": "L3", "capacity_bytes": 1e5},
            {"name": "DRAM", "capacity_bytes": 1e9},
        ],
        "rates": [rate("vector", "float32", 100.0), rate("matrix", "bfloat16", 400.0), rate("vector", "int8", 800.0)],
        "bandwidths": [bandwidth("DRAM", 10.0), bandwidth("L3", 50.0), bandwidth("DRAM", 12.0, access="copy")],
        **changes,
    }


@pytest.fixture
def toy() -> Device:
    return device_from_dict(description(), "toy.toml")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rates": [rate("vector", "float32", 1.0, source={"title": " "})]}, "needs a source"),
        ({"rates": [{k: v for k, v in rate("vector", "float32", 1.0).items() if k != "source"}]}, "rates.0.source"),
        ({"rates": [rate("vector", "float32", 1.0, low_per_s=2.0)]}, "0 < low <= value <= high"),
        ({"rates": [{**rate("vector", "float32", 1.0), "unit": "tensor"}]}, "unknown unit 'tensor'"),
        ({"rates": [rate("vector", "float32", 1.0, sparsity="sparse")]}, "dense or 2:4"),
        ({"rates": [{**rate("vector", "float32", 1.0), "a": "float99"}]}, "unknown precision 'float99'"),
        ({"bandwidths": [bandwidth("L9", 1.0)]}, "not a memory level"),
        ({"memory": []}, "at least one memory level"),
        ({"power": [{"tdp_w": 300.0, "kind": "datasheet"}]}, "power.0.source"),
        ({"power": [{"tdp_w": -1.0, "kind": "datasheet", "source": SOURCE}]}, "tdp_w must be positive"),
        ({"links": [link(0.0)]}, "positive bandwidth"),
        ({"links": [link(1e9, latency_s=0.0)]}, "latency_s must be positive"),
        ({"prices": [price(2.0, 1.0)]}, "0 < low_usd <= high_usd"),
        ({"prices": [price(1.0, 2.0, date=" ")]}, "needs its date"),
        ({"colour": "red"}, "colour"),
        ({"kind": "tpu"}, "kind"),
    ],
)
def test_a_wrong_description_is_one_line_that_names_the_file(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(DeviceError) as refused:
        device_from_dict(description(**changes), "toy.toml")
    text = str(refused.value)
    assert text.startswith("toy.toml: ")
    assert says in text
    assert "\n" not in text


def test_files_that_are_no_device(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("id = ")
    for name in ("bad.toml", "none.toml"):
        with pytest.raises(DeviceError, match=name):
            load_device(tmp_path / name)


def test_a_device_survives_the_way_through_plain_values(toy: Device) -> None:
    assert device_from_dict(toy.to_dict(), "again") == toy


def test_a_peak_is_that_of_the_precision_and_never_of_another(toy: Device) -> None:
    found = {precision: toy.peak(precision) for precision in ("float32", "bfloat16", "float16", "int8")}
    assert {p: r and (r.unit, r.value_per_s) for p, r in found.items()} == {
        "float32": ("vector", 100.0),
        "bfloat16": ("matrix", 400.0),
        "float16": None,
        "int8": ("vector", 800.0),
    }
    assert toy.peak("int8", "matrix") is None
    half = device_from_dict(
        description(
            rates=[
                rate("matrix", "float16", 500.0),
                rate("matrix", "float16", 900.0, accumulator="float16"),
                rate("matrix", "float16", 990.0, sparsity="2:4"),
            ],
            bandwidths=[],
        ),
        "t",
    )
    peak = half.peak("float16")
    assert peak is not None
    assert peak.value_per_s == 500.0
    assert [r.label for r in half.rates] == ["matrix float16", "matrix float16 into float16", "matrix float16 2:4"]


def test_rate_is_the_fastest_unit_that_computes_without_loss(toy: Device) -> None:
    def value(key: RateKey) -> float | None:
        found = toy.rate(key)
        return None if found is None else found.value_per_s

    assert value(fma_key("float32")) == 100.0  # bfloat16 operands would lose bits
    assert value(fma_key("bfloat16")) == 400.0
    assert value(fma_key("bfloat16", "vector")) == 100.0  # asked of the vector unit: float32 lanes can do it
    assert value(fma_key("float16")) == 100.0
    assert value(fma_key("int8")) == 800.0
    assert value(fma_key("float64")) is None
    assert value(RateKey("special", "float32", "float32", "float32")) is None
    assert value(dataclasses.replace(fma_key("bfloat16"), sparsity="2:4")) is None


def test_level_follows_the_cache_protocol_and_the_working_set(toy: Device) -> None:
    assert toy.level_for(10.0, "cold", 1).name == "DRAM"
    assert toy.level_for(1500.0, "warm", 1).name == "L3"
    assert toy.level_for(1500.0, "warm", 2).name == "L1"  # two cores, two first-level caches
    assert toy.level_for(1e6, "warm", 2).name == "DRAM"
    assert toy.level_for(1e12, "warm", 2).name == "DRAM"


def test_select_keeps_kind_and_threads(toy: Device) -> None:
    measured = device_from_dict(
        description(rates=[rate("vector", "float32", 90.0, kind="measured", threads=2)], bandwidths=[]), "measured"
    )
    both = toy.with_ceilings(measured.rates)
    assert [r.value_per_s for r in both.select(("measured",), 2).rates] == [90.0]
    assert both.select(("measured",), 1).rates == ()
    assert len(both.select(("datasheet",), 1).rates) == 3


def test_bound_is_the_longest_of_overlapping_limits(toy: Device) -> None:
    work = Work({fma_key("float32"): 1000.0}, {"activations": 36.0}, {"activations": 12.0})
    found = bound(work, toy, "DRAM")
    assert found is not None
    assert (found.seconds, found.bound_by) == (10.0, "vector float32")
    assert {t.limit: t.seconds for t in found.terms} == {"vector float32": 10.0, "DRAM": 4.0}
    memory = bound(Work({fma_key("float32"): 100.0}, {"activations": 120.0}), toy, "DRAM")
    assert memory is not None
    assert (memory.seconds, memory.bound_by) == (10.0, "DRAM")


def test_work_of_one_unit_adds_up_and_of_two_overlaps(toy: Device) -> None:
    same = bound(Work({fma_key("float32"): 100.0, fma_key("float16"): 100.0}), toy, "DRAM")
    assert same is not None
    assert same.seconds == 2.0
    two = bound(Work({fma_key("float32"): 100.0, fma_key("bfloat16"): 400.0}), toy, "DRAM")
    assert two is not None
    assert two.seconds == 1.0


def test_bound_carries_the_interval_of_its_ceilings() -> None:
    device = device_from_dict(
        description(rates=[rate("vector", "float32", 100.0, low_per_s=50.0, high_per_s=200.0)], bandwidths=[]), "t"
    )
    found = bound(Work({fma_key("float32"): 100.0}), device, "DRAM")
    assert found is not None
    assert (found.low_s, found.seconds, found.high_s) == (0.5, 1.0, 2.0)


def test_no_ceiling_no_bound(toy: Device) -> None:
    assert bound(Work({fma_key("float64"): 1.0}), toy, "DRAM") is None
    assert bound(Work({}, {"kv": 5.0}), toy, "L1") is None


@pytest.mark.parametrize(
    ("vendor", "family", "model", "name", "expected", "kind"),
    [
        ("AuthenticAMD", 25, 17, "AMD EPYC 9654", "AMD Zen 4 (EPYC)", "derived"),
        ("AuthenticAMD", 25, 97, "AMD Ryzen 9 7950X", "AMD Zen 4", "derived"),
        ("AuthenticAMD", 25, 1, "AMD EPYC 7763", "AMD Zen 3", "derived"),
        ("GenuineIntel", 6, 85, "Xeon", "Intel Skylake-SP, Cascade Lake-SP, Cooper Lake", "derived"),
        ("GenuineIntel", 6, 143, "Xeon", "Intel Sapphire, Emerald and Granite Rapids", "derived"),
        ("", 0, 0, "Neoverse", "unknown core", "assumed"),
    ],
)
def test_core_by_cpuid(vendor: str, family: int, model: int, name: str, expected: str, kind: str) -> None:
    core, found = find_core(vendor, family, model, name)
    assert (core.name, found) == (expected, kind)


@pytest.mark.parametrize("name", sorted(cores()))
def test_physical_ceilings_grow_with_threads_and_shrink_outwards(name: str) -> None:
    core = cores()[name]
    one = {c.label: c.value_per_s for c in physical_ceilings(core, "derived", 1, "DRAM")}
    two = {c.label: c.value_per_s for c in physical_ceilings(core, "derived", 2, "DRAM")}
    assert two == {label: 2 * value for label, value in one.items()}
    assert one["L1"] >= one["L2"] >= one["L3"] >= one["DRAM"]
    assert one["vector float32"] == 2 * one["vector float64"]
    assert one["vector int8"] >= one["vector float32"]
