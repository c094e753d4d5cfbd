"""The catalogue: what ships is plausible, and users' files replace and add."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ridgeline.analytical.catalogue import (
    OWN_DEVICES,
    SHIPPED,
    DeviceError,
    catalogue,
    device_from_dict,
    entries,
    find_device,
    load_device,
)
from ridgeline.analytical.device import Device
from ridgeline.analytical.plausibility import implausible, ridge_flop_per_byte
from ridgeline.analytical.quantities import BITS
from ridgeline.analytical.work import SPECIAL, fma_key

FOLDER = Path(load_device.__code__.co_filename).parent / "hardware"
IDS = sorted(entries())
H100 = "nvidia-h100-sxm5-80gb"

RIDGES = {
    "nvidia-a100-sxm4-80gb": 153,
    H100: 295,
    "nvidia-h200-sxm-141gb": 206,
    "nvidia-b200-sxm-180gb": 292,
    "amd-instinct-mi300x": 247,
    "amd-instinct-mi355x": 315,
    "nvidia-l40s": 419,
    "google-tpu-v6e": 560,
    "intel-gaudi3": 500,
    "nvidia-geforce-rtx-4090": 164,
    "intel-xeon-platinum-8480plus": 373,
    "amd-epyc-9654": 32,
}
"""FLOP per byte from which bfloat16 is bound by arithmetic, worked out apart from the files."""

SURVEYED = [
    "v100-sxm2-32", "v100-pcie-16", "t4", "a10", "a100-pcie-40", "a100-sxm4-40",
    "a100-pcie-80", "a100-sxm4-80", "rtx-a6000", "rtx-3090", "rtx-4090", "rtx-5090",
    "rtx-pro-6000-bw-server", "l4", "l40s", "h100-pcie-80", "h100-nvl-94", "h100-sxm-80",
    "h200-sxm-141", "h200-nvl-141", "gh200-96", "gh200-144", "b100-192", "b200-sxm-180",
    "gb200-nvl", "b300-sxm", "gb300-nvl", "mi210", "mi250x", "mi300x",
    "mi325x", "mi350x", "mi355x", "gaudi2", "gaudi3", "tpu-v4",
    "tpu-v5e", "tpu-v5p", "tpu-v6e", "tpu-v7", "trn1", "inf2",
    "trn2", "m2-ultra", "m3-max", "m3-ultra", "m4", "m4-max",
    "xeon-8280", "xeon-8480", "xeon-6980p", "epyc-9654", "epyc-9755", "epyc-9965",
    "graviton3", "graviton4",
]  # fmt: skip
FURTHER = [
    "nvidia-a30", "nvidia-a40", "nvidia-l20", "nvidia-l40", "nvidia-h20-96gb", "nvidia-h800-sxm5-80gb",
    "nvidia-rtx-6000-ada", "nvidia-rtx-pro-6000-blackwell-workstation", "amd-instinct-mi250x-gcd",
    "intel-arc-pro-b60", "aws-trainium3",
]  # fmt: skip


def short(**changes: Any) -> dict[str, Any]:
    """A description in the short form of the files."""
    return {
        "id": "acme-one",
        "name": "One",
        "vendor": "Acme",
        "kind": "gpu",
        "released": "2024",
        "confidence": "high",
        "memory": [{"name": "HBM", "capacity_bytes": 80e9}],
        "bandwidths": [{"level": "HBM", "value_per_s": 2e12, "source": "sheet"}],
        "rates": [
            {"unit": "matrix", "precisions": ["float16", "bfloat16"], "value_per_s": 4e14, "source": "sheet"},
            {"unit": "matrix", "a": "int8", "value_per_s": 8e14, "high_per_s": 9e14, "source": "sheet"},
        ],
        "links": [{"name": "pcie", "per_direction_bytes_per_s": 64e9, "source": "sheet"}],
        "power": [{"tdp_w": 400, "source": "sheet"}],
        "prices": [{"basis": "purchase", "low_usd": 1, "high_usd": 2, "date": "2026-05", "source": "survey"}],
        "sources": {
            "sheet": {"title": "a data sheet", "detail": "table 1", "kind": "datasheet"},
            "survey": {"title": "a survey", "date": "2026-05", "kind": "assumed"},
        },
        **changes,
    }


def toml_of(values: dict[str, Any]) -> str:
    """Enough TOML for :func:`short`."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{key} = {text(each)}" for key, each in value.items()) + " }"
        if isinstance(value, list):
            return "[" + ", ".join(map(text, value)) + "]"
        return json.dumps(value)

    return "".join(f"{key} = {text(value)}\n" for key, value in values.items())


# What ships


def test_every_surveyed_device_is_in_and_those_that_others_rely_on_keep_their_ids() -> None:
    assert len(SURVEYED) == 56
    found = [find_device(name).id for name in SURVEYED]
    assert len(set(found)) == 56
    assert set(FURTHER) <= set(IDS)
    assert {"nvidia-a100-sxm4-80gb", H100, "nvidia-h200-sxm-141gb"} <= set(IDS)


def test_the_files_are_those_of_the_folder_and_each_has_its_devices_name() -> None:
    files = sorted(path.stem for path in FOLDER.glob("*.toml"))
    assert files == IDS
    assert all(entry.origin == SHIPPED for entry in entries().values())


@pytest.mark.parametrize("name", IDS)
def test_a_shipped_description_is_plausible(name: str) -> None:
    assert implausible(entries()[name].device, name) == []


@pytest.mark.parametrize("name", IDS)
def test_a_shipped_device_survives_the_way_through_what_a_run_stores(name: str) -> None:
    device = catalogue()[name]
    stored = json.loads(json.dumps(device.to_dict()))
    assert "sources" not in stored
    assert device_from_dict(stored, "device.json") == device


def ridges_off(devices: dict[str, Device]) -> list[str]:
    """Devices whose ridge point is more than 1 % from :data:`RIDGES`."""
    found = {name: ridge_flop_per_byte(devices[name]) for name in RIDGES}
    return [name for name, ridge in found.items() if ridge is None or abs(ridge / RIDGES[name] - 1.0) > 0.01]


def test_ridge_points_are_those_worked_out_apart() -> None:
    devices = catalogue()
    assert ridges_off(devices) == []
    wrong = dataclasses.replace(devices[H100], bandwidths=devices["nvidia-h200-sxm-141gb"].bandwidths)
    assert ridges_off({**devices, H100: wrong}) == [H100]
    none = dataclasses.replace(devices[H100], rates=())
    assert ridges_off({**devices, H100: none}) == [H100]


def test_a_unit_that_cannot_has_no_rate() -> None:
    devices = catalogue()
    for name, precision in (
        ("nvidia-v100-sxm2-32gb", "bfloat16"),
        ("nvidia-a100-sxm4-80gb", "float8_e4m3fn"),
        ("amd-instinct-mi355x", "tfloat32"),
        ("amd-instinct-mi300x", "float8_e4m3fn"),
        ("google-tpu-v5p", "float8_e4m3fn"),
        ("google-tpu-v6e", "float8_e4m3fn"),
        ("intel-arc-pro-b60", "float8_e4m3fn"),
        ("nvidia-b200-sxm-180gb", "int4"),
    ):
        assert devices[name].peak(precision) is None, f"{name} {precision}"
    b300 = devices["nvidia-b300-sxm"].peak("int8")
    assert b300 is not None
    assert b300.value_per_s == pytest.approx(0.15e15, rel=0.05)
    fnuz = devices["amd-instinct-mi300x"].peak("float8_e4m3fnuz")
    assert fnuz is not None
    assert fnuz.value_per_s == 2614.9e12


def test_accumulators_are_rates_of_their_own() -> None:
    for name in ("nvidia-geforce-rtx-3090", "nvidia-geforce-rtx-4090", "nvidia-geforce-rtx-5090"):
        device = catalogue()[name]
        wide = device.rate(fma_key("float16"))
        narrow = device.rate(dataclasses.replace(fma_key("float16"), accumulator="float16"))
        assert wide is not None
        assert narrow is not None
        assert narrow.value_per_s / wide.value_per_s == pytest.approx(2.0, rel=0.02)
        assert (wide.label, narrow.label) == ("matrix float16", "matrix float16 into float16")


def test_sparse_rates_serve_only_those_who_ask() -> None:
    device = catalogue()[H100]
    dense, sparse = fma_key("bfloat16"), dataclasses.replace(fma_key("bfloat16"), sparsity="2:4")
    found = {key.sparsity: device.rate(key) for key in (dense, sparse)}
    assert {s: r and r.value_per_s for s, r in found.items()} == {"dense": 989.4e12, "2:4": 1978.8e12}


def test_what_buyers_need_is_there_and_dated() -> None:
    devices = catalogue().values()
    assert sum(any(p.basis == "rent_per_hour" for p in d.prices) for d in devices) >= 40
    assert sum(any(p.basis == "purchase" for p in d.prices) for d in devices) >= 45
    for price in (price for device in devices for price in device.prices):
        assert price.kind == "assumed"
        assert "low confidence" in price.source.detail or price.source.title.startswith("SemiAnalysis")
    assert [p.scope for p in catalogue()["nvidia-gh200-96gb"].power] == ["module"]
    assert catalogue()["nvidia-gh200-96gb"].tdp_w == 1000
    h200 = catalogue()["nvidia-h200-sxm-141gb"]
    assert (h200.tdp_w, h200.idle_w, h200.sustained_w) == (700, 121, 691)
    t4 = catalogue()["nvidia-t4"]
    assert (t4.tdp_w, t4.idle_w, t4.sustained_w) == (70, None, None)


def test_special_functions_are_sixteen_a_clock_and_twice_that_on_blackwell_ultra() -> None:
    for name, per_clock in ((H100, 16), ("nvidia-b200-sxm-180gb", 16), ("nvidia-b300-sxm", 32), ("nvidia-t4", 16)):
        device = catalogue()[name]
        rate = device.rate(SPECIAL)
        assert rate is not None
        assert rate.clock_mhz is not None
        assert device.unit_count is not None
        assert rate.value_per_s / (device.unit_count * rate.clock_mhz * 1e6) == pytest.approx(per_clock, rel=1e-3)


def test_figures_recalled_or_reported_by_others_are_not_called_a_data_sheets() -> None:
    for device in catalogue().values():
        for rate in device.rates:
            if rate.kind == "datasheet":
                assert "recalled" not in rate.source.detail, f"{device.id} {rate.label}"


def test_a_file_is_named_as_its_device() -> None:
    device = catalogue()[H100]
    assert implausible(device, "nvidia-h100") == [f"id: {H100!r} stands in nvidia-h100.toml"]


# Short form


def test_short_forms_are_resolved_into_a_whole_device() -> None:
    device = device_from_dict(short(), "t.toml")
    assert [(r.a, r.b, r.accumulator, r.low_per_s, r.high_per_s, r.kind) for r in device.rates] == [
        ("float16", "float16", "float32", 4e14, 4e14, "datasheet"),
        ("bfloat16", "bfloat16", "float32", 4e14, 4e14, "datasheet"),
        ("int8", "int8", "int32", 8e14, 9e14, "datasheet"),
    ]
    assert {r.source.title for r in device.rates} == {"a data sheet"}
    assert device.prices[0].kind == "assumed"
    assert device_from_dict(device.to_dict(), "stored") == device
    own = short()
    own["power"][0] |= {"kind": "assumed", "source": {"title": "hearsay"}}
    assert device_from_dict(own, "t").power[0].kind == "assumed", "sources written in place stay as they were"


def test_what_a_run_stored_before_there_were_short_forms_still_loads() -> None:
    """A device.json as Ridgeline 0.1.0 wrote it."""
    source = {"title": "a data sheet", "detail": "table 1", "date": ""}
    rate = {
        "unit": "vector", "a": "float32", "b": "float32", "accumulator": "float32", "sparsity": "dense",
        "value_per_s": 1e12, "low_per_s": 9e11, "high_per_s": 1e12, "kind": "measured", "source": source, "threads": 2,
    }  # fmt: skip
    stored = {
        "id": "amd-epyc-2t", "name": "AMD EPYC", "vendor": "AuthenticAMD", "kind": "cpu",
        "memory": [{"name": "L1", "capacity_bytes": 32768.0, "per_core": True}, {"name": "DRAM", "capacity_bytes": 1e10}],
        "rates": [rate],
        "bandwidths": [
            {"level": "DRAM", "access": "copy", "value_per_s": 2e10, "low_per_s": 1e10, "high_per_s": 3e10,
             "kind": "measured", "source": source, "threads": 2}
        ],
    }  # fmt: skip
    device = device_from_dict(stored, "device.json")
    assert (device.rates[0].low_per_s, device.bandwidths[0].high_per_s, device.confidence) == (9e11, 3e10, "")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"power": [{"tdp_w": 1, "source": "sheat"}]},
            r"power\.0\.source: no table \[sources\.sheat\]; there is sheet, survey",
        ),
        ({"sources": {}}, r"no table \[sources\.sheet\]; there is none"),
        ({"sources": "x"}, r"sources: write \[sources\.KEY\] tables"),
        ({"sources": {"sheet": "a data sheet"}}, r"no table \[sources\.sheet\]"),
        ({"rates": [{"unit": "matrix", "precisions": "bfloat16", "value_per_s": 1, "source": "sheet"}]}, "rates.0"),
        ({"rates": [{"unit": "matrix", "precisions": [8], "value_per_s": 1, "source": "sheet"}]}, "rates.0"),
        ({"rates": [{"unit": "matrix", "a": "bf16", "value_per_s": 1, "source": "sheet"}]}, "unknown precision 'bf16'"),
        ({"rates": [{"unit": "matrix", "a": "int8", "source": "sheet"}]}, r"rates\.0\.value_per_s"),
        ({"rates": [5]}, "rates.0"),
        ({"rates": {"unit": "matrix"}}, "rates"),
        ({"rates": 5}, "rates"),
        ({"match": {"name": "("}}, r"match\.name: .*unterminated"),
        ({"match": {"nam": "x"}}, r"match\.nam"),
        ({"match": 5}, r"match\."),
    ],
)
def test_a_wrong_short_form_is_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(DeviceError, match=says) as refused:
        device_from_dict(short(**changes), "t.toml")
    assert str(refused.value).startswith("t.toml: ")
    assert "\n" not in str(refused.value)


# Finding, and files of the user's own


def test_devices_are_found_by_any_of_their_names() -> None:
    for name in ("nvidia-l40s", "L40S", "l40s", "NVIDIA L40S", "nvidia-l40s "):
        assert find_device(name).id == "nvidia-l40s"
    assert find_device("h100_sxm").id == H100, "aiconfigurator's name"
    assert find_device("mi300").id == "amd-instinct-mi300x", "a unique start"
    assert find_device("nvidia-l40").id == "nvidia-l40", "a whole id is no start of another"
    assert find_device("a100").id == "nvidia-a100-sxm4-80gb"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nvidia-h100", "several devices are called 'nvidia-h100': nvidia-h100-nvl-94gb, nvidia-h100-pcie-80gb"),
        ("h1000", "no device is called 'h1000': .*nvidia-h100"),
        ("gadi3", "no device is called 'gadi3': intel-gaudi3"),
        ("quantum", "no device is called 'quantum'; ridgeline list devices"),
        ("", "no device is called ''"),
        ("none.toml", "none.toml"),
        ("./folder/none", "none"),
    ],
)
def test_an_unknown_name_says_what_comes_near(name: str, says: str) -> None:
    with pytest.raises(DeviceError, match=says) as refused:
        find_device(name)
    assert "\n" not in str(refused.value)


def test_a_users_file_adds_or_replaces_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.toml").write_text(toml_of(short()))
    (tmp_path / "mine.toml").write_text(toml_of(short(id="nvidia-l4", match={"aliases": ["little"]})))
    monkeypatch.setenv(OWN_DEVICES, str(tmp_path))
    found = entries()
    assert len(found) == len(IDS) + 1
    assert found["acme-one"].origin == str(tmp_path / "one.toml")
    assert found["nvidia-l4"].origin == f"{tmp_path / 'mine.toml'}, in place of the shipped one"
    assert find_device("little").vendor == "Acme"
    assert find_device("acme").id == "acme-one"
    monkeypatch.delenv(OWN_DEVICES)
    assert find_device("nvidia-l4").vendor == "NVIDIA"
    assert find_device(str(tmp_path / "one.toml")).id == "acme-one", "a path needs no folder"


def test_a_users_folder_that_does_not_load_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OWN_DEVICES, str(tmp_path / "none"))
    with pytest.raises(DeviceError, match="no such folder: RIDGELINE_DEVICES"):
        catalogue()
    monkeypatch.setenv(OWN_DEVICES, str(tmp_path))
    (tmp_path / "a.toml").write_text(toml_of(short()))
    (tmp_path / "b.toml").write_text(toml_of(short()))
    with pytest.raises(DeviceError, match=r"b\.toml: id: 'acme-one' is also that of .*a\.toml"):
        catalogue()
    (tmp_path / "b.toml").write_text("id = ")
    with pytest.raises(DeviceError, match=r"b\.toml: "):
        catalogue()


def test_precisions_of_the_catalogue_are_torchs() -> None:
    import torch

    own = {"tfloat32", "float4_e2m1fn", "int4"}  # torch has the second packed in pairs, and no others
    used = {p for d in catalogue().values() for r in d.rates for p in (r.a, r.b, r.accumulator)}
    assert used <= set(BITS)
    assert all(hasattr(torch, name) for name in used - own)
