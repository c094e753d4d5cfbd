"""Plausibility of device descriptions: each rule is shown to fail on a description broken on purpose."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest

from ridgeline.analytical.catalogue import (
    catalogue,
    entries,
)
from ridgeline.analytical.ceilings import Rate
from ridgeline.analytical.device import Device
from ridgeline.analytical.plausibility import OTHER_RATIOS, OTHER_SPARSE, implausible
from ridgeline.analytical.work import SPECIAL

IDS = sorted(entries())
H100 = "nvidia-h100-sxm5-80gb"


def test_exceptions_name_devices_that_exist() -> None:
    assert set(OTHER_RATIOS) | set(OTHER_SPARSE) <= set(IDS)


# Each rule, shown to fail


def _scaled(device: Device, factor: float, chosen: Callable[[Rate], bool]) -> Device:
    """The device with the chosen rates multiplied."""

    def change(rate: Rate) -> Rate:
        if not chosen(rate):
            return rate
        return dataclasses.replace(
            rate,
            value_per_s=rate.value_per_s * factor,
            low_per_s=rate.low_per_s * factor,
            high_per_s=rate.high_per_s * factor,
        )

    return dataclasses.replace(device, rates=tuple(map(change, device.rates)))


def _dense(*precisions: str) -> Callable[[Rate], bool]:
    return lambda rate: rate.a in precisions and rate.sparsity == "dense" and rate.unit == "matrix"


def _any(*precisions: str) -> Callable[[Rate], bool]:
    return lambda rate: rate.a in precisions and rate.unit == "matrix"


def _with(device: Device, what: str, **changes: Any) -> Device:
    """The device with the first of its ``what`` changed."""
    first, *rest = getattr(device, what)
    return dataclasses.replace(device, **{what: (dataclasses.replace(first, **changes), *rest)})


def _source(title: str = "t", detail: str = "", date: str = "") -> Any:
    from ridgeline.analytical.ceilings import Source

    return Source(title=title, detail=detail, date=date)


BROKEN: dict[str, tuple[str, Callable[[Device], Device], str]] = {
    # case: (device, what is done to it, what the finding says)
    "a source without a table": (H100, lambda d: _with(d, "links", source=_source()), r"^source: nvlink cites 't'"),
    "a price without a month": (H100, lambda d: _with(d, "prices", date="last May"), r"^source: a price of 'last May'"),
    "an id of one word": (H100, lambda d: dataclasses.replace(d, id="H100"), r"^id: 'H100' is not"),
    "no year": (H100, lambda d: dataclasses.replace(d, released="soon"), r"^released: 'soon'"),
    "GB/s written as bytes": (
        H100,
        lambda d: _with(d, "bandwidths", value_per_s=3352.0, low_per_s=3352.0, high_per_s=3352.0),
        r"^units: HBM: 3352 bytes per second",
    ),
    "a rate in TFLOP/s": (H100, lambda d: _scaled(d, 1e-12, _any("bfloat16")), r"^units: matrix bfloat16: 989\.4 op"),
    "GB written as bytes": (
        H100,
        lambda d: dataclasses.replace(d, memory=(d.memory[0], dataclasses.replace(d.memory[1], capacity_bytes=80.0))),
        r"^units: HBM: 80 bytes",
    ),
    "GiB for GB": (
        H100,
        lambda d: dataclasses.replace(
            d, memory=(d.memory[0], dataclasses.replace(d.memory[1], capacity_bytes=80 * 2.0**30))
        ),
        r"^units: HBM .* multiple of 2\^30",
    ),
    "GHz for MHz": (H100, lambda d: dataclasses.replace(d, boost_clock_mhz=1.98), r"^units: a clock: 1\.98 MHz"),
    "milliwatts": (H100, lambda d: _with(d, "power", tdp_w=7e5), r"^units: power: 700000 W"),
    "a link in GB/s": (H100, lambda d: _with(d, "links", per_direction_bytes_per_s=450.0), r"^units: nvlink: 450"),
    "all rates sparse": (
        "nvidia-a100-sxm4-80gb",
        lambda d: _scaled(d, 2.0, lambda r: r.unit == "matrix" and r.sparsity == "dense"),
        r"^year: matrix bfloat16: 6\.24e\+14 .* sparse\?",
    ),
    "a bandwidth before its time": (
        "nvidia-v100-sxm2-32gb",
        lambda d: _with(d, "bandwidths", value_per_s=2e12, high_per_s=2e12),
        r"^year: HBM: 2e\+12",
    ),
    "levels the wrong way round": (
        H100,
        lambda d: dataclasses.replace(d, memory=d.memory[::-1]),
        r"^memory: levels must go",
    ),
    "no bandwidth": (H100, lambda d: dataclasses.replace(d, bandwidths=()), r"^memory: no bandwidth of HBM"),
    "a rate twice": (
        H100,
        lambda d: dataclasses.replace(d, rates=(*d.rates, d.rates[0])),
        r"^twice: vector float64 is stated 2 times",
    ),
    "bfloat16 on Volta": (
        "nvidia-v100-sxm2-32gb",
        lambda d: dataclasses.replace(d, rates=(*d.rates, catalogue()["nvidia-a10"].peak("bfloat16"))),
        r"^lacks: volta has no bfloat16",
    ),
    "float8 on a TPU v5p": (
        "google-tpu-v5p",
        lambda d: dataclasses.replace(
            d, rates=(*d.rates, dataclasses.replace(d.rates[0], a="float8_e4m3fn", b="float8_e4m3fn"))
        ),
        r"^lacks: tpu-v5p has no float8_e4m3fn",
    ),
    "OCP float8 on an MI300X": (
        "amd-instinct-mi300x",
        lambda d: dataclasses.replace(
            d,
            rates=tuple(
                dataclasses.replace(r, a="float8_e4m3fn", b="float8_e4m3fn") if r.a == "float8_e4m3fnuz" else r
                for r in d.rates
            ),
        ),
        r"^lacks: cdna3 has no float8_e4m3fn",
    ),
    "TF32 at the float16 rate": (H100, lambda d: _scaled(d, 2.0, _any("tfloat32")), r"^ratio: tfloat32 is 1 times"),
    "float8 at the bfloat16 rate": (
        H100,
        lambda d: _scaled(d, 0.5, _any("float8_e4m3fn")),
        r"^ratio: float8_e4m3fn is 1",
    ),
    "float4 of the sparse column": (
        "nvidia-b200-sxm-180gb",
        lambda d: _scaled(d, 2.0, _dense("float4_e2m1fn")),
        r"^ratio: float4_e2m1fn is 4 times",
    ),
    "int8 doubled": (
        "amd-instinct-mi210",
        lambda d: _scaled(d, 2.0, _any("int8")),
        r"^ratio: int8 is 2 times bfloat16, not 1",
    ),
    "int8 of a B200 on a B300": (
        "nvidia-b300-sxm",
        lambda d: _scaled(d, 4500 / 153.5, _any("int8")),
        r"^ratio: int8 is 2 times bfloat16, not 0\.068 \(the integer tensor path",
    ),
    "sparse as dense": (
        H100,
        lambda d: _scaled(d, 0.5, lambda r: r.sparsity == "2:4"),
        r"^sparse: .* is 1 times the dense",
    ),
    "sparse alone": (
        H100,
        lambda d: dataclasses.replace(d, rates=tuple(r for r in d.rates if not _dense("int8")(r))),
        r"^sparse: matrix int8 2:4 without the dense rate",
    ),
    "a rate that units do not make": (
        H100,
        lambda d: _scaled(d, 1.2, _dense("bfloat16")),
        r"^clock: matrix bfloat16 is 4915",
    ),
    "the units of another card": (H100, lambda d: dataclasses.replace(d, unit_count=114), r"^clock: vector float64"),
    "a clock above boost": (
        H100,
        lambda d: dataclasses.replace(d, boost_clock_mhz=1900),
        r"^clock: .* above the boost",
    ),
    "derived from nothing": (
        "amd-epyc-9654",
        lambda d: _with(d, "rates", clock_mhz=None),
        r"^clock: vector float64 is derived, and states no clock",
    ),
    "both directions of NVLink": (
        H100,
        lambda d: _with(d, "links", per_direction_bytes_per_s=900e9),
        r"^link: nvlink: 900 GB/s in one direction .* both directions",
    ),
    "both directions of PCIe": (
        "nvidia-l4",
        lambda d: _with(d, "links", per_direction_bytes_per_s=64e9),
        r"^link: pcie: 64 GB/s",
    ),
    "both directions of a TPU's link": (
        "google-tpu-v5e",
        lambda d: _with(d, "links", per_direction_bytes_per_s=400e9),
        r"^link: ici: 400 GB/s",
    ),
    "idle above the limit": (H100, lambda d: _with(d, "power", idle_w=800.0), r"^power: idle 800 W"),
    "sustained above the limit": (H100, lambda d: _with(d, "power", sustained_w=900.0), r"^power: sustained 900 W"),
    "no confidence": (H100, lambda d: dataclasses.replace(d, confidence=""), r"^kind: confidence is not stated"),
    "an estimate called a data sheet": (
        "apple-m4",
        lambda d: _with(d, "rates", kind="datasheet"),
        r"^kind: vector float32 of a device of low confidence",
    ),
    "a printed special-function rate": (
        H100,
        lambda d: dataclasses.replace(
            d, rates=tuple(dataclasses.replace(r, kind="datasheet") if r.key == SPECIAL else r for r in d.rates)
        ),
        r"^kind: no data sheet prints",
    ),
    "a matrix unit slower than the lanes": (
        "nvidia-t4",
        lambda d: _scaled(d, 0.1, _any("float16")),
        r"^vector: matrix float16 is slower than vector float32",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_rule_finds_what_it_is_for(case: str) -> None:
    name, break_it, says = BROKEN[case]
    device = catalogue()[name]
    assert implausible(device) == []
    found = implausible(break_it(device))
    assert any(re.search(says, finding) for finding in found), found


def test_every_rule_is_shown_to_fail() -> None:
    from ridgeline.analytical.plausibility import _RULES

    shown = {re.match(r"\^(\w+)", says).group(1) for _, _, says in BROKEN.values()}  # type: ignore[union-attr]
    assert shown == {rule.__name__.strip("_") for rule in _RULES}
