"""A trace in the place of hardware: through the command, the worker, the statistics and the store."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from ridgeline_process import Run

from ridgeline.analytical.catalogue import catalogue
from ridgeline.bench.devices.replay import trace_from_measurement
from ridgeline.bench.devices.replay_session import ReplaySession, value_at
from ridgeline.bench.devices.trace import Trace, load_trace
from ridgeline.bench.devices.unit import UnitError
from ridgeline.results.measurement import Measurement
from ridgeline.results.store import Store

H100 = "nvidia-h100-sxm5-80gb"
SUITE = """
name = "replayed"
description = "a few small cases"

[settings]
target_relative = 0.1
budget_s = 0.5
timeout_s = 5.0

[[case]]
operator = "gemm"
implementations = ["torch"]
cache = ["warm", "cold"]
problems = [{ m = 32, n = 64, k = 128, precision = "float32" }, { m = 64, n = 64, k = 128, precision = "float32" }]
"""
OTHER_PROBLEM = ', { m = 64, n = 64, k = 128, precision = "float32" }'


def replay(command: Run, folder: Path, trace: dict[str, Any], *more: str, suite: str = SUITE) -> Any:
    (folder / "suite.toml").write_text(suite)
    (folder / "trace.json").write_text(json.dumps({"device": H100, **trace}))
    device = f"replay:{folder / 'trace.json'}"
    return command("run", folder / "suite.toml", "--device", device, "--store", folder / "s", "--json", *more)


def test_scripted_times_come_out_as_written_and_are_no_measurement(ridgeline_command: Run, tmp_path: Path) -> None:
    done = replay(ridgeline_command, tmp_path, {"launches": [{"constant_s": 2e-5}], "clock_mhz": [[0, 1980]]})
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    assert len(records) == 4
    for record in records:
        assert record["status"] == "ok", record["reason"]
        assert record["median_s"] == pytest.approx(2e-5)
        assert record["protocol"]["timer"] == "replay"
        assert record["unit"].startswith("replay-")
        assert record["conditions"][0]["clock_mhz"] == 1980.0
        assert (record["energy_j"], record["energy_reason"]) == (None, "a replayed card uses no energy")
    shown = ridgeline_command("show", "latest", "--store", tmp_path / "s").stdout
    assert "replayed from a trace: no measurement" in shown
    measured = [r for r in Store(tmp_path / "s").records()[0] if isinstance(r, Measurement)]
    trace = trace_from_measurement(measured[0], catalogue()[H100])
    assert trace.launches[0].samples_s == [s for block in measured[0].used_samples_s for s in block]


def test_scripted_kernels_are_compared_as_scripted(ridgeline_command: Run, tmp_path: Path) -> None:
    times = [{"implementation": "torch", "median_s": 1e-4}, {"implementation": "numba", "median_s": 1.05e-4}]
    trace = {"device": H100, "launches": [{**one, "noise_relative": 0.01} for one in times]}
    (tmp_path / "trace.json").write_text(json.dumps(trace))
    asked = ["--problem", "m=32,n=64,k=128,precision=float32", "--device", f"replay:{tmp_path / 'trace.json'}"]
    done = ridgeline_command("compare", "gemm/torch", "gemm/numba", *asked, "--store", tmp_path / "s", "--json")
    assert done.returncode == 1, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["verdict"] == "slower"
    assert record["ratio_low"] <= 1.05 <= record["ratio_high"]
    assert record["left_out"] == []


FAULTS = {
    "launch_failure": ("crashed", "unspecified launch failure"),
    "illegal_address": ("crashed", "illegal memory access"),
    "out_of_memory": ("out_of_memory", "out of memory"),
    "crash": ("crashed", "SIGSEGV"),
    "wrong_result": ("incorrect", "relative error"),
}
KERNEL = """
import torch
from ridgeline.kernels.registry import implementation
@implementation("gemm", "{name}")
def prepare(problem, constants, context):
    return lambda inputs, out: torch.matmul(inputs["a"], constants["b"], out=out)
"""


@pytest.fixture(scope="module")
def faulty(ridgeline_command: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Records by implementation of one run, in which each fault befalls a kernel of its own, and torch's none."""
    folder = tmp_path_factory.mktemp("faulty")
    kernels = folder / "kernels"
    kernels.mkdir()
    for kind in FAULTS:
        (kernels / f"{kind}.py").write_text(KERNEL.format(name=kind))
    trace = {
        "launches": [{"constant_s": 2e-5}],
        "faults": [{"kind": kind, "at_launch": 2, "implementation": kind} for kind in FAULTS],
    }
    # The second launch is one of the checks before timing, which are the same for a warm and a cold cache.
    one_problem = SUITE.replace(OTHER_PROBLEM, "").replace(', "cold"', "")
    suite = one_problem.replace('["torch"]', json.dumps(["torch", *FAULTS]))
    done = replay(ridgeline_command, folder, trace, "--with", str(kernels), suite=suite)
    assert done.returncode == 0, done.stderr
    return {record["implementation"]: record for record in json.loads(done.stdout)}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_scripted_fault_is_a_status_and_no_number(faulty: dict[str, dict[str, Any]], kind: str) -> None:
    record = faulty[kind]
    assert record["status"] == FAULTS[kind][0]
    assert FAULTS[kind][1] in record["reason"]
    assert record["median_s"] is None


def test_faults_of_others_cost_a_kernel_nothing(faulty: dict[str, dict[str, Any]]) -> None:
    assert len(faulty) == 1 + len(FAULTS)
    assert (faulty["torch"]["status"], faulty["torch"]["reason"]) == ("ok", "")


def test_a_card_that_stays_lost_ends_the_run_which_continues_later(ridgeline_command: Run, tmp_path: Path) -> None:
    trace = {"launches": [{"constant_s": 2e-5}], "faults": [{"kind": "gpu_lost", "at_s": 0.01, "stays": True}]}
    done = replay(ridgeline_command, tmp_path, trace)
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].endswith(
        "1 of 4 measured; what was measured is kept: the same command continues"
    )
    (record,) = (r for r in Store(tmp_path / "s").records()[0] if isinstance(r, Measurement))
    assert record.status == "crashed"
    assert "GPU is lost" in record.reason
    assert replay(ridgeline_command, tmp_path, trace).returncode == 4
    (run,) = Store(tmp_path / "s").runs()
    assert (run.state, run.records) == ("unfinished", 2)


def test_a_throttled_block_is_left_out_by_its_cause(ridgeline_command: Run, tmp_path: Path) -> None:
    faults = [{"kind": "throttle", "at_s": 0.1, "duration_s": 0.05, "factor": 2.0}]
    done = replay(ridgeline_command, tmp_path, {"launches": [{"constant_s": 2e-5}], "faults": faults})
    for record in json.loads(done.stdout):
        assert {left["cause"] for left in record["left_out"]} == {"power limit"}
        assert record["median_s"] == pytest.approx(2e-5)


BAD = {
    "[]": "trace: Input should be",
    '{"device": "x"}': "launches: Field required",
    '{"device": "x", "launches": [{"constant_s": 0}]}': "launches.0.constant_s: Input should be greater than 0",
    '{"device": "x", "launches": [{}]}': "give one of constant_s",
    "{": "not JSON",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_trace_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(UnitError) as raised:
        load_trace(path)
    assert BAD[text] in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_trace_of_an_unknown_device_says_what_comes_near() -> None:
    trace = Trace.model_validate({"device": "nvidia-h1000", "launches": [{"constant_s": 1.0}]})
    with pytest.raises(UnitError, match=r"^t\.json: device: no device is called 'nvidia-h1000': .*nvidia-h100"):
        trace.resolve_device("t.json")


def test_a_sensor_that_is_missing_or_frozen_shows_nothing() -> None:
    faults = [
        {"kind": "sensor_missing", "sensor": "power_w", "at_s": 0.0},
        {"kind": "sensor_frozen", "sensor": "temperature_c", "at_s": 0.5},
        {"kind": "counter_wrap", "at_s": 1.9},
    ]
    trace = Trace.model_validate(
        {
            "device": H100,
            "launches": [{"constant_s": 1.0}],
            "faults": faults,
            "power_w": [[0, 1]],
            "temperature_c": [[0, 5]],
        }
    )
    session = ReplaySession(trace)
    session.watch.begin()
    session.timer.time(lambda count: None, 1)
    assert session.watch.end().conditions.temperature_c == 5.0
    session.watch.begin()
    session.timer.time(lambda count: None, 1)
    seen = session.watch.end()
    assert (seen.conditions.power_w, seen.conditions.temperature_c, seen.conditions.limited_s) == (None, None, None)
    assert seen.cause == ""


def test_a_series_is_straight_between_its_points() -> None:
    assert value_at([(0.0, 0.0), (2.0, 4.0)], 1.0) == 2.0
    assert value_at([(0.0, 0.0), (2.0, 4.0)], 9.0) == 4.0
    assert value_at([], 1.0) is None
