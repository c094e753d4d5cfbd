"""A rank that dies, hangs or adds wrongly while another one waits for it, in one run between good cases of two ranks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
from test_ranks import EXPECTED, KERNELS, SUITE

from fault_groups.command import Ridgeline
from fault_groups.outcome import Outcome, judge

GROUP = "rank"
GOOD = 4
"""Cases of the suite that nothing is wrong with."""


def outcomes(ridgeline: Ridgeline, folder: Path) -> Iterator[Outcome]:
    """One for every kernel of ``tests/bench/faulty_ranks``."""
    (folder / "ranks.toml").write_text(SUITE)
    asked = ["--with", KERNELS, "--store", folder / "store", "--device", "cpu", "--json"]
    done = ridgeline.run("run", folder / "ranks.toml", *asked)
    records = json.loads(done.stdout)
    cache = ridgeline.environment["RIDGELINE_CACHE"]
    left = [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("RIDGELINE_CACHE") == cache]
    good = [r for r in records if r["implementation"] == "torch_distributed"]
    for name, (status, part) in EXPECTED.items():
        (record,) = (r for r in records if r["implementation"] == name)
        yield judge(
            GROUP,
            name,
            f"{record['status']}: {record['reason']}",
            its_status=record["status"] == status,
            its_reason=part in record["reason"],
            no_speed=record["median_s"] is None,
            good_cases_measured=len(good) == GOOD and all(r["median_s"] for r in good),
            no_process_left=not left,
        )
