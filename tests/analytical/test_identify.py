"""Which device a driver's card is, on names that drivers really give."""

from __future__ import annotations

import dataclasses

import pytest

from ridgeline.analytical.catalogue import Entry, Match, catalogue, entries
from ridgeline.analytical.identify import MEMORY_RANGE, identify

MIB = 2.0**20

SEEN = [
    # name, reported memory in bytes, multiprocessors or compute units, device
    ("Tesla V100-SXM2-32GB", 32510 * MIB, 80, "nvidia-v100-sxm2-32gb"),
    ("Tesla V100-PCIE-16GB", 16160 * MIB, 80, "nvidia-v100-pcie-16gb"),
    ("Tesla T4", 15109 * MIB, 40, "nvidia-t4"),
    ("NVIDIA A10", 23028 * MIB, 72, "nvidia-a10"),
    ("NVIDIA A30", 24258 * MIB, 56, "nvidia-a30"),
    ("NVIDIA A40", 46068 * MIB, 84, "nvidia-a40"),
    ("NVIDIA A100-PCIE-40GB", 40536 * MIB, 108, "nvidia-a100-pcie-40gb"),
    ("A100-SXM4-40GB", 40536 * MIB, 108, "nvidia-a100-sxm4-40gb"),  # drivers before 470
    ("NVIDIA A100-SXM4-40GB", 40536 * MIB, 108, "nvidia-a100-sxm4-40gb"),
    ("NVIDIA A100 80GB PCIe", 81920 * MIB, 108, "nvidia-a100-pcie-80gb"),
    ("NVIDIA A100-SXM4-80GB", 81920 * MIB, 108, "nvidia-a100-sxm4-80gb"),
    ("NVIDIA RTX A6000", 49140 * MIB, 84, "nvidia-rtx-a6000"),
    ("NVIDIA RTX 6000 Ada Generation", 49140 * MIB, 142, "nvidia-rtx-6000-ada"),
    ("NVIDIA GeForce RTX 3090", 24576 * MIB, 82, "nvidia-geforce-rtx-3090"),
    ("NVIDIA GeForce RTX 4090", 24564 * MIB, 128, "nvidia-geforce-rtx-4090"),
    ("NVIDIA GeForce RTX 5090", 32607 * MIB, 170, "nvidia-geforce-rtx-5090"),
    ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887 * MIB, 188, "nvidia-rtx-pro-6000-blackwell-server"),
    (
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        97887 * MIB,
        188,
        "nvidia-rtx-pro-6000-blackwell-workstation",
    ),
    ("NVIDIA L4", 23034 * MIB, 58, "nvidia-l4"),
    ("NVIDIA L20", 46068 * MIB, 92, "nvidia-l20"),
    ("NVIDIA L40", 46068 * MIB, 142, "nvidia-l40"),
    ("NVIDIA L40S", 46068 * MIB, 142, "nvidia-l40s"),
    ("NVIDIA H100 80GB HBM3", 81559 * MIB, 132, "nvidia-h100-sxm5-80gb"),
    ("NVIDIA H100 PCIe", 81559 * MIB, 114, "nvidia-h100-pcie-80gb"),
    ("NVIDIA H100 NVL", 95830 * MIB, 132, "nvidia-h100-nvl-94gb"),
    ("NVIDIA H20", 97871 * MIB, 78, "nvidia-h20-96gb"),
    ("NVIDIA H800", 81559 * MIB, 132, "nvidia-h800-sxm5-80gb"),
    ("NVIDIA H200", 143771 * MIB, 132, "nvidia-h200-sxm-141gb"),
    ("NVIDIA H200 NVL", 143771 * MIB, 132, "nvidia-h200-nvl-141gb"),
    ("NVIDIA GH200 480GB", 97871 * MIB, 132, "nvidia-gh200-96gb"),
    ("NVIDIA GH200 144G HBM3e", 146831 * MIB, 132, "nvidia-gh200-144gb"),
    ("NVIDIA B200", 183359 * MIB, 148, "nvidia-b200-sxm-180gb"),
    ("NVIDIA GB200", 189471 * MIB, 152, "nvidia-gb200-nvl72"),
    ("NVIDIA B300 SXM6 AC", 275040 * MIB, 148, "nvidia-b300-sxm"),
    ("NVIDIA GB300", 284208 * MIB, 152, "nvidia-gb300-nvl72"),
    ("AMD Instinct MI210", 65520 * MIB, 104, "amd-instinct-mi210"),
    ("AMD Instinct MI250X", 65520 * MIB, 110, "amd-instinct-mi250x-gcd"),
    ("AMD Instinct MI250X / MI250", 65520 * MIB, 110, "amd-instinct-mi250x-gcd"),
    ("AMD Instinct MI300X", 196592 * MIB, 304, "amd-instinct-mi300x"),
    ("AMD Instinct MI300X OAM", 196592 * MIB, 304, "amd-instinct-mi300x"),
    ("AMD Instinct MI325X", 262128 * MIB, 304, "amd-instinct-mi325x"),
    ("AMD Instinct MI350X", 294896 * MIB, 256, "amd-instinct-mi350x"),
    ("AMD Instinct MI355X", 294896 * MIB, 256, "amd-instinct-mi355x"),
    ("Intel(R) Arc(TM) Pro B60 Graphics", 24480 * MIB, 20, "intel-arc-pro-b60"),
]


@pytest.mark.parametrize(("name", "memory_bytes", "units", "device"), SEEN, ids=[case[0] for case in SEEN])
def test_names_that_drivers_give(name: str, memory_bytes: float, units: int, device: str) -> None:
    assert identify(name, memory_bytes, units).id == device
    assert identify(f" {name.upper()} ", memory_bytes, units).id == device, "neither case nor spaces tell devices apart"


def test_every_name_of_the_catalogue_is_one_that_was_seen() -> None:
    """A pattern that no known name matches would be wrong without anybody noticing."""
    named = {name for name, entry in entries().items() if entry.match.name and entry.device.kind == "gpu"}
    # The B100 hardly shipped, and nobody sees a whole MI250X.
    assert named - {case[3] for case in SEEN} == {"nvidia-b100-sxm-192gb", "amd-instinct-mi250x"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "NVIDIA",
        "Graphics Device",
        "NVIDIA A10G",  # another part than the A10
        "NVIDIA L40G",
        "NVIDIA L2",
        "NVIDIA A100-SXM-64GB",
        "NVIDIA H100",
        "NVIDIA H100 80GB HBM2e",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "AMD Instinct MI300A",
        "AMD Radeon RX 7900 XTX",
        "nvidia-l40s",
    ],
)
def test_unknown_names_are_none_with_a_reason(name: str) -> None:
    found = identify(name)
    assert found.id is None
    assert "no device file matches the name" in found.reason
    assert ("MIG" in found.reason) == ("MIG" in name)


def test_an_l40s_is_no_l40_and_an_h200_no_h200_nvl() -> None:
    for first, second in (("NVIDIA L40S", "NVIDIA L40"), ("NVIDIA H200 NVL", "NVIDIA H200")):
        assert identify(first).id != identify(second).id


def test_memory_and_units_have_a_word() -> None:
    assert identify("NVIDIA H100 80GB HBM3").id == "nvidia-h100-sxm5-80gb", "what is not told is not held against it"
    assert identify("NVIDIA H100 80GB HBM3", 0, 0).id == "nvidia-h100-sxm5-80gb"
    less = identify("NVIDIA H100 80GB HBM3", 40e9, 132)
    assert less.id is None
    assert "40.0 GB of memory, which has 80" in less.reason
    fewer = identify("NVIDIA H100 80GB HBM3", 85e9, 66)
    assert fewer.id is None
    assert "66 multiprocessors, which has 132" in fewer.reason


def test_half_of_an_mi250x_needs_its_memory_to_be_known() -> None:
    vague = identify("AMD Instinct MI250X")
    assert vague.id is None
    assert "may be amd-instinct-mi250x-gcd, amd-instinct-mi250x: tell its memory" in vague.reason
    assert identify("AMD Instinct MI250X", 128e9, 220).id == "amd-instinct-mi250x"
    assert identify("AMD Instinct MI250X", None, 110).id == "amd-instinct-mi250x-gcd"


def test_a_file_of_the_users_goes_before_a_shipped_one() -> None:
    shipped = entries()["nvidia-l4"]
    own = Entry(
        device=dataclasses.replace(shipped.device, id="acme-l4"), match=Match(name="NVIDIA L4"), origin="/tmp/acme.toml"
    )
    known = {"nvidia-l4": shipped, "acme-l4": own}
    assert identify("NVIDIA L4", 24e9, 58, known).id == "acme-l4"
    twice = {**known, "acme-l4b": dataclasses.replace(own, device=dataclasses.replace(own.device, id="acme-l4b"))}
    assert identify("NVIDIA L4", 24e9, 58, twice).id is None


def test_no_two_devices_share_a_name_memory_and_units() -> None:
    """Every device with a pattern is told from all others by what its own driver would say."""
    low, high = MEMORY_RANGE
    for name, memory_bytes, units, device in SEEN:
        capacity = catalogue()[device].main_memory.capacity_bytes
        assert low * capacity <= memory_bytes <= high * capacity or entries()[device].match.memory_bytes
        assert identify(name, memory_bytes, units).id == device
