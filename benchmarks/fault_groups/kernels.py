"""Kernels that compute wrongly, hang, crash, flood the memory or leave processes behind, in one run between good ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
from test_faults import EXPECTED, GOOD, KERNELS, SUITE

from fault_groups.command import Ridgeline
from fault_groups.outcome import Outcome, judge

GROUP = "kernel"


def outcomes(ridgeline: Ridgeline, folder: Path) -> Iterator[Outcome]:
    """One for every faulty kernel of ``tests/bench/faulty_kernels``."""
    (folder / "faults.toml").write_text(SUITE)
    done = ridgeline.run("run", folder / "faults.toml", "--with", KERNELS, "--store", folder / "store", "--json")
    records = json.loads(done.stdout)
    left = [p for p in psutil.process_iter(["cmdline"]) if any("sleep(3217)" in a for a in p.info["cmdline"] or [])]
    good = [r for r in records if r["implementation"] in GOOD]
    for name, (status, part) in EXPECTED.items():
        (record,) = (r for r in records if r["implementation"] == name and r["problem"]["precision"] == "float32")
        yield judge(
            GROUP,
            name,
            f"{record['status']}: {record['reason']}",
            its_status=record["status"] == status,
            its_reason=part in record["reason"],
            no_speed=record["status"] == "impossible" or record["median_s"] is None,
            good_kernels_measured=len(good) == len(GOOD) + 2 and all(r["median_s"] for r in good),
            no_process_left=not left,
        )
