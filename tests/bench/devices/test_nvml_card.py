"""The real pynvml on a library of two cards, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("nvml")
    flags = ["-fPIC", "-shared", "-Wall", "-Werror", "-Wl,-soname,libnvidia-ml.so.1"]
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, *flags, "-o", str(library), str(HERE / "card_nvml.c")], check=True, timeout=60)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "nvml_card_script.py")], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_card_is_found_by_its_uuid_not_by_its_index(seen: dict[str, Any]) -> None:
    assert seen["cards"] == 2
    assert seen["sample"]["clock_mhz"] == 1000.0, "UUID ...1 is NVML's index 0"
    assert seen["sample"] == {
        "clock_mhz": 1000.0,
        "memory_clock_mhz": 2619.0,
        "power_w": 450.0,
        "temperature_c": 61.0,
    }


def test_facts_are_those_that_the_driver_tells(seen: dict[str, Any]) -> None:
    assert seen["facts"] == {
        "driver": "580.00",
        "power_limit_w": "650.0",
        "power_limit_default_w": "700.0",
        "max_sm_clock_mhz": "1980",
        "max_memory_clock_mhz": "2619",
        "ecc": "on",
        "mig": "off",
    }, "no application clock and no persistence mode: this library has neither"


def test_limits_are_seconds_and_heat_is_not_counted_twice(seen: dict[str, Any]) -> None:
    expected = {"power limit": 2.5, "thermal limit": 1.0}
    assert seen["limited"] == pytest.approx(expected)
    assert seen["limited by policies"] == pytest.approx(expected), "drivers without the fields"


def test_other_processes_are_told_from_this_one(seen: dict[str, Any]) -> None:
    """A single process that this namespace does not know is this one, seen from a container."""
    assert seen["others"] == {"none": 0, "own": 0, "host id": 0, "known": 1, "own and another": 1}


def test_a_card_that_goes_away_is_lost_and_gives_no_numbers(seen: dict[str, Any]) -> None:
    assert "GPU is lost" in seen["lost"] or "code 15" in seen["lost"]
    assert seen["lost sample"]["clock_mhz"] is None
    assert seen["lost sample"]["power_w"] is None


def test_what_cannot_be_opened_says_why(seen: dict[str, Any]) -> None:
    assert "does not list the card" in seen["unknown card"]
    assert "check the driver" in seen["driver mismatch"]
    assert seen["cards without a driver"] == 0
