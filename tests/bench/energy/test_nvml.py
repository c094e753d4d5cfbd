"""NVML through the real pynvml on the C library: every return code, lookup by UUID, what a reading means."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest
from fake_nvml import UUID, FakeNvml

from ridgeline.bench.energy.choose import choose_source
from ridgeline.bench.energy.nvml import CODES, NvmlSource, same_uuid
from ridgeline.bench.energy.source import MeterError, MeterFault, NullSource

ALL_CODES = sorted({v for n, v in vars(pynvml).items() if n.startswith("NVML_ERROR_") and isinstance(v, int)})
SECOND = "GPU-fa4e0000-0000-4000-8000-000000000001"


def open_gpu(fake: FakeNvml, watts: float = 300.0, now_s: float = 10.0) -> NvmlSource:
    fake.lib.fakeNvmlForget(0)
    fake.lib.fakeNvmlPower(0, 0.0, watts)
    fake.lib.fakeNvmlClock(round(now_s * 1e6))
    return NvmlSource(UUID)


def test_readings_are_those_of_the_trace(nvml: FakeNvml) -> None:
    source = open_gpu(nvml)
    before = source.energy_j()
    nvml.lib.fakeNvmlClock(12_000_000)
    assert source.energy_j() - before == pytest.approx(600.0)
    assert source.power_w() == pytest.approx(300.0)
    state = source.state()
    assert (state.power_w, state.sm_mhz, state.memory_mhz, state.temperature_c) == (300.0, 1980.0, 2619.0, 45.0)
    assert set(state.limited_s) == {"sw_power_cap", "sw_thermal", "hw_thermal", "power_brake"}
    assert source.facts.driver == "580.00.fake"
    assert source.facts.power_limit_w == 700.0
    source.close()
    source.close()
    assert nvml.lib.fakeNvmlInited() == 0


def test_every_code_of_this_pynvml_has_a_reason_and_an_advice() -> None:
    for code in ALL_CODES:
        assert code in CODES, f"NVML code {code}"
    assert len({name for name, _ in CODES.values()}) == len(CODES)


@pytest.mark.parametrize("code", [*ALL_CODES, 4242])
def test_a_code_while_starting_is_a_null_meter_with_its_reason(nvml: FakeNvml, code: int) -> None:
    nvml.fault("nvmlInitWithFlags", code)
    source = choose_source("nvml", UUID)
    assert isinstance(source, NullSource)
    assert source.code == CODES.get(code, ("unknown_error", ""))[0]
    assert "starting NVML" in source.reason
    assert "\n" not in source.reason


@pytest.mark.parametrize("code", [*ALL_CODES, 4242])
@pytest.mark.parametrize("function", ["nvmlDeviceGetTotalEnergyConsumption", "field186"])
def test_a_code_while_reading_is_a_fault_and_never_a_number(nvml: FakeNvml, function: str, code: int) -> None:
    source = open_gpu(nvml)
    nvml.fault(function, code, from_s=11.0)
    read = source.power_w if function == "field186" else source.energy_j
    assert read() > 0.0
    nvml.lib.fakeNvmlClock(11_000_000)
    with pytest.raises(MeterFault) as fault:
        read()
    assert fault.value.code == CODES.get(code, ("unknown_error", ""))[0]
    assert source.state().power_w is None or function != "field186"
    source.close()


def test_the_whole_library_may_be_missing(nvml: FakeNvml) -> None:
    nvml.disable()
    source = choose_source("auto", UUID)
    assert isinstance(source, NullSource)
    assert source.code == "library_not_found"


@pytest.mark.parametrize("form", [SECOND, SECOND.removeprefix("GPU-"), SECOND.lower(), f" {SECOND.upper()} "])
def test_a_card_is_found_by_uuid_and_not_by_index(nvml: FakeNvml, form: str) -> None:
    """The library's indices run against its UUIDs: with two cards, UUID 1 is index 0."""
    nvml.set(devices=2)
    nvml.lib.fakeNvmlForget(0)
    nvml.lib.fakeNvmlForget(1)
    nvml.lib.fakeNvmlPower(0, 0.0, 111.0)
    nvml.lib.fakeNvmlPower(1, 0.0, 222.0)
    nvml.lib.fakeNvmlClock(10_000_000)
    source = NvmlSource(form)
    assert source.power_w() == pytest.approx(111.0)
    assert source.facts.device == SECOND
    source.close()


def test_a_uuid_that_no_card_has_is_refused_by_name(nvml: FakeNvml) -> None:
    with pytest.raises(MeterError, match="no GPU with UUID GPU-dead: there are GPU-fa4e"):
        NvmlSource("GPU-dead")
    nvml.set(devices=2)
    with pytest.raises(MeterError, match="2 GPUs: say which by its UUID"):
        NvmlSource(None)
    nvml.set(devices=0)
    with pytest.raises(MeterFault, match="no GPU"):
        NvmlSource(None)


@pytest.mark.parametrize("form", ["MIG-51ce0000-0000-4000-8000-000000000000", "51ce0000-0000-4000-8000-000000000000"])
def test_a_slice_leads_to_its_card_and_says_so(nvml: FakeNvml, form: str) -> None:
    nvml.set(mig=1)
    source = NvmlSource(form)
    assert source.neighbours().shared_slice
    assert source.facts.device == UUID
    source.close()


def test_uuid_forms() -> None:
    assert same_uuid("GPU-AB", "ab")
    assert not same_uuid("GPU-ab", "GPU-ac")


@pytest.mark.parametrize(
    ("arch", "name", "kind", "averaging_s"),
    [
        (7, "NVIDIA A100-SXM4-80GB", "instant", 0.025),
        (7, "NVIDIA A30", "instant", 0.1),
        (7, "NVIDIA GeForce RTX 3090", "averaged", 1.0),
        (9, "NVIDIA H100 80GB HBM3", "averaged", 1.0),
        (6, "Tesla T4", "instant", 0.1),
    ],
)
def test_the_plain_power_call_means_different_things(
    nvml: FakeNvml, arch: int, name: str, kind: str, averaging_s: float
) -> None:
    nvml.set(fields=0, arch=arch)
    nvml.name(name)
    source = open_gpu(nvml)
    assert (source.facts.power, source.facts.averaging_s) == (kind, averaging_s)
    assert source.power_w() == pytest.approx(300.0)
    source.close()


def test_grace_hopper_is_read_and_named_as_a_module(nvml: FakeNvml) -> None:
    nvml.set(scope=1)
    source = open_gpu(nvml)
    assert source.facts.scope == "module"
    assert source.facts.power == "instant"
    source.close()


def test_a_card_without_any_sensor_is_not_supported(nvml: FakeNvml) -> None:
    nvml.set(fields=0)
    for function in ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage"):
        nvml.fault(function, 3)
    with pytest.raises(MeterFault, match="neither an energy counter nor a power sensor") as fault:
        NvmlSource(UUID)
    assert fault.value.code == "not_supported"
    assert nvml.lib.fakeNvmlInited() == 0, "NVML is given back"


def test_temperature_falls_back_to_the_old_call(nvml: FakeNvml) -> None:
    nvml.fault("nvmlDeviceGetTemperatureV", 13)
    source = open_gpu(nvml)
    assert source.state().temperature_c == 45.0
    nvml.fault("nvmlDeviceGetTemperature", 3)
    assert source.state().temperature_c is None
    source.close()


def test_other_processes_are_told_from_ourselves(nvml: FakeNvml) -> None:
    source = NvmlSource(UUID, pid_exists=lambda pid: pid == 77)
    assert source.neighbours().foreign_pids == ()
    nvml.set(pid=os.getpid(), pid2=77)
    assert source.neighbours().foreign_pids == (77,)
    assert source.neighbours().own_context
    nvml.set(pid=77, pid2=0)
    assert source.neighbours().foreign_pids == (77,)
    nvml.set(pid=78)  # in a container the host's number of this very process
    assert source.neighbours().foreign_pids == ()
    assert source.neighbours().own_context
    nvml.fault("nvmlDeviceGetComputeRunningProcesses_v3", 4)
    nvml.fault("nvmlDeviceGetUtilizationRates", 3)
    assert source.neighbours().unknown == ("processes", "utilisation")
    source.close()


def test_the_library_works_in_a_fresh_process_by_its_search_path(fake_library: Path) -> None:
    """As on a real machine: nothing is preloaded, pynvml finds the library by itself."""
    code = (
        "from ridgeline.bench.energy.choose import choose_source\n"
        "source = choose_source('nvml')\n"
        "print(source.facts.meter, source.facts.device, source.energy_j() > 0)\n"
    )
    paths = {"LD_LIBRARY_PATH": str(fake_library.parent), "FAKE_NVML": "1"}
    environment = {**os.environ, **paths, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["nvml", UUID, "True"]
