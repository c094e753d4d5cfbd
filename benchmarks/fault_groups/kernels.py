"""Kernels of one process or two that compute wrongly, hang, crash, flood the memory or leave processes behind, each in a
run between good ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import test_faults
import test_ranks

from fault_groups.command import Ridgeline
from fault_groups.outcome import Outcome, judge


def outcomes(ridgeline: Ridgeline, folder: Path) -> Iterator[Outcome]:
    """One for every kernel of ``tests/bench/faulty_kernels`` and ``tests/bench/faulty_ranks``."""
    for group, suite in (("kernel", test_faults), ("rank", test_ranks)):
        (folder / f"{group}.toml").write_text(suite.SUITE)
        asked = ["--with", suite.KERNELS, "--store", folder / group, "--device", "cpu", "--json"]
        records = json.loads(ridgeline.run("run", folder / f"{group}.toml", *asked).stdout)
        cache = ridgeline.environment["RIDGELINE_CACHE"]  # what the run started inherits it
        left = [
            p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("RIDGELINE_CACHE") == cache
        ]
        good = [r for r in records if r["implementation"] in suite.GOOD]
        for name, (status, part) in suite.EXPECTED.items():
            (record,) = (r for r in records if (r["implementation"], r["problem"]["precision"]) == (name, "float32"))
            yield judge(
                group,
                name,
                f"{record['status']}: {record['reason']}",
                its_status=record["status"] == status,
                its_reason=part in record["reason"],
                no_speed=record["status"] == "impossible" or record["median_s"] is None,
                good_cases_measured=len(good) == suite.GOOD_RECORDS and all(r["median_s"] for r in good),
                no_process_left=not left,
            )
