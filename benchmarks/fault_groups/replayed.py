"""Faults of a card and of its sensors, scripted in a trace and played through the whole pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fault_groups.command import Ridgeline
from fault_groups.outcome import Outcome, judge

GROUP = "card (replayed)"
LAUNCH_S = 0.15
"""So long that the ten blocks of a case pass the second after which a frozen sensor shows nothing."""
SUITE = """
name = "replayed"
description = "one case"
[settings]
target_relative = 0.1
budget_s = 3.0
timeout_s = 5.0
[[case]]
operator = "gemm"
implementations = ["torch"]
cache = ["warm"]
problems = [{ m = 32, n = 64, k = 128, precision = "float32" }]
"""

Records = list[dict[str, Any]]


def _status(status: str, part: str) -> Callable[[Records], dict[str, bool]]:
    def check(records: Records) -> dict[str, bool]:
        return {
            "its_status": all(r["status"] == status for r in records),
            "its_reason": all(part in r["reason"] for r in records),
            "no_speed": all(r["median_s"] is None for r in records),
        }

    return check


def _unmoved(sensor: str = "", cause: str = "") -> Callable[[Records], dict[str, bool]]:
    """The time is the scripted one; the sensor shows nothing; disturbed blocks have the cause."""

    def check(records: Records) -> dict[str, bool]:
        last = [r["conditions"][-1] for r in records]
        return {
            "the_true_time": all(abs(r["median_s"] / LAUNCH_S - 1.0) < 1e-6 for r in records),
            "no_reading": not sensor or all(c[sensor] is None for c in last),
            "its_cause": {left["cause"] for r in records for left in r["left_out"]} == ({cause} if cause else set()),
        }

    return check


FAULTS: dict[str, tuple[dict[str, Any], Callable[[Records], dict[str, bool]], int]] = {
    "launch failure": ({"kind": "launch_failure", "at_launch": 2}, _status("crashed", "unspecified launch failure"), 0),
    "illegal address": ({"kind": "illegal_address", "at_launch": 2}, _status("crashed", "illegal memory access"), 0),
    "out of memory": ({"kind": "out_of_memory", "at_launch": 2}, _status("out_of_memory", "out of memory"), 0),
    "hang": ({"kind": "hang", "at_launch": 2}, _status("timeout", "no result after 5 s"), 0),
    "crash of the driver": ({"kind": "crash", "at_launch": 2}, _status("crashed", "SIGSEGV"), 0),
    "wrong result": ({"kind": "wrong_result", "at_launch": 2}, _status("incorrect", "relative error"), 0),
    "card lost, comes back": ({"kind": "gpu_lost", "at_s": 0.01}, _status("crashed", "GPU is lost"), 0),
    "card lost for good": ({"kind": "gpu_lost", "at_s": 0.01, "stays": True}, _status("crashed", "GPU is lost"), 0),
    "driver replaced": ({"kind": "driver_mismatch", "at_s": 0.01}, _status("crashed", "river"), 0),
    "clock of the host jumps": ({"kind": "clock_jump", "at_s": 0.1, "seconds": -7200.0}, _unmoved(), 0),
    "throttled": (
        {"kind": "throttle", "at_s": 1.0, "duration_s": 0.2, "factor": 2.0}, _unmoved(cause="power limit"), 0,
    ),
    "power sensor missing": ({"kind": "sensor_missing", "sensor": "power_w", "at_s": 0.0}, _unmoved("power_w"), 0),
    "temperature frozen": (
        {"kind": "sensor_frozen", "sensor": "temperature_c", "at_s": 0.0}, _unmoved("temperature_c"), 0,
    ),
    "counter of limits wraps": ({"kind": "counter_wrap", "at_s": 0.1}, _unmoved(), 0),
}  # fmt: skip


def outcomes(ridgeline: Ridgeline, folder: Path) -> Iterator[Outcome]:
    """One for every scripted fault."""
    suite, path = folder / "suite.toml", folder / "trace.json"
    suite.write_text(SUITE)
    for name, (fault, check, code) in FAULTS.items():
        trace = {
            "device": "nvidia-h100-sxm5-80gb",
            "launches": [{"constant_s": LAUNCH_S}],
            "power_w": [[0, 300], [10, 310]],
            "temperature_c": [[0, 40], [10, 50]],
            "faults": [fault],
        }
        path.write_text(json.dumps(trace))
        store = folder / name.replace(" ", "-").replace(",", "")
        done = ridgeline.run("run", suite, "--device", f"replay:{path}", "--store", store, "--json")
        shown = ridgeline.run("show", "--store", store, "--json") if done.returncode else done
        records = json.loads(shown.stdout or "[]")
        became = ", ".join(sorted({f"{r['status']}: {r['reason']}" if r["reason"] else r["status"] for r in records}))
        yield judge(
            GROUP, name, became or done.stderr, a_record=len(records) == 1, exit_code=done.returncode == code,
            **check(records),
        )  # fmt: skip
