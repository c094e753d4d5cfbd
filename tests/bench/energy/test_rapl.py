"""RAPL on a tree of files as Linux shows them: wrap-around, permissions, zones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ridgeline.bench.energy.rapl import RaplSource, find_zones
from ridgeline.bench.energy.source import MeterFault

RANGE_UJ = 262_143_328_850


def zone(root: Path, folder: str, name: str, energy_uj: int, range_uj: int = RANGE_UJ) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two packages, one with DRAM; cores, psys and the MMIO view of the same package beside them."""
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 5)
    zone(tmp_path, "intel-rapl:0:1", "dram", 2_000_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 3_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 7)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 9)
    return tmp_path


def refuse(file: str, error: OSError) -> Callable[[Path], str]:
    """A reader that fails on one name; permission bits do not stop root, so tests inject it."""

    def read(path: Path) -> str:
        if path.name == file:
            raise error
        return path.read_text().strip()

    return read


def test_packages_and_dram_are_summed_and_nothing_twice(tree: Path) -> None:
    source = RaplSource(tree)
    assert [z.name for z in find_zones(tree)] == ["package-0", "dram", "package-1"]
    assert source.facts.scope == "package+dram"
    assert source.energy_j() == 0.0
    for folder, value in {"intel-rapl:0": 1_500_000, "intel-rapl:0:1": 2_250_000, "intel-rapl:0:0": 10**9}.items():
        (tree / folder / "energy_uj").write_text(str(value))
    assert source.energy_j() == pytest.approx(0.75)


def test_without_dram_the_scope_is_the_package(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    assert RaplSource(tmp_path).facts.scope == "package"


def test_each_zone_wraps_at_its_own_range(tree: Path) -> None:
    (tree / "intel-rapl:0" / "energy_uj").write_text(str(RANGE_UJ - 400_000))
    (tree / "intel-rapl:0:1" / "max_energy_range_uj").write_text("65712999613")
    (tree / "intel-rapl:0:1" / "energy_uj").write_text(str(65712999613 - 100_000))
    source = RaplSource(tree)
    (tree / "intel-rapl:0" / "energy_uj").write_text("600000")
    (tree / "intel-rapl:0:1" / "energy_uj").write_text("50000")
    assert source.energy_j() == pytest.approx(1.15)
    (tree / "intel-rapl:1" / "energy_uj").write_text("4000000")
    assert source.energy_j() == pytest.approx(2.15)


def test_a_counter_that_falls_without_a_wrap_was_reset(tree: Path) -> None:
    source = RaplSource(tree)
    (tree / "intel-rapl:1" / "energy_uj").write_text("2999999")
    with pytest.raises(MeterFault, match=r"intel-rapl:1 \(package-1\) went backwards") as fault:
        source.energy_j()
    assert fault.value.code == "counter_reset"


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj", "name"])
def test_without_permission_the_one_command_is_said(tree: Path, file: str) -> None:
    with pytest.raises(MeterFault) as fault:
        RaplSource(tree, refuse(file, PermissionError(13, "Permission denied")))
    assert fault.value.code == "no_permission"
    assert str(fault.value) == f"RAPL is there but only root may read it: sudo chmod -R a+r {tree}/*rapl*/"


def test_other_failures_name_the_file(tree: Path) -> None:
    with pytest.raises(MeterFault, match="energy_uj: No such device") as fault:
        RaplSource(tree, refuse("energy_uj", OSError(19, "No such device")))
    assert fault.value.code == "unreadable"
    source = RaplSource(tree)
    (tree / "intel-rapl:0" / "energy_uj").write_text("many")
    with pytest.raises(MeterFault, match="energy_uj: not a whole number"):
        source.energy_j()


def test_no_tree_and_a_tree_without_packages_are_no_meter(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MeterFault) as fault:
            RaplSource(root)
        assert fault.value.code == "no_meter"
    zone(tmp_path, "intel-rapl:0:1", "dram", 1)
    with pytest.raises(MeterFault, match="no RAPL counter"):
        find_zones(tmp_path)


def test_amd_zones_are_known(tmp_path: Path) -> None:
    zone(tmp_path, "amd-rapl:0", "package-0", 1)
    assert RaplSource(tmp_path).facts.meter == "rapl"
