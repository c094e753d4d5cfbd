"""The bars of the calibration, on the public tables: every prediction is of what its model had not seen. Last line PASS or FAIL.

Needs the extra `data`. Takes some minutes on two threads: one of them is used.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.analytical.calibration.decisions import data_sheet_decisions, decide
from ridgeline.analytical.calibration.end_to_end import fit_step, read_serving
from ridgeline.analytical.calibration.errors import error_figures
from ridgeline.analytical.calibration.gate import LABEL, NO_SIZE, TOO_FAST, gate
from ridgeline.analytical.calibration.measured import check_table, measured_rows
from ridgeline.analytical.calibration.public_tables import (
    SYSTEMS,
    PublicTableError,
    public_tables,
    require_data_root,
    source_version,
)
from ridgeline.analytical.calibration.scorecard import (
    by_group,
    load_hardware,
    long_rows,
    pooled,
    score_hardware,
    score_sites,
)
from ridgeline.analytical.calibration.splits import group_folds, group_ids, leave_one_out
from ridgeline.analytical.calibration.spread import fit_spread
from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.device import Device

DATA_CENTRE = ("a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "gb300")
"""Devices of the GEMM tables whose bound peers-analytical.md 0.2 names."""


class Bars:
    """Counts what was missed."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def bar(self, name: str, value: float, limit: float, *, unit: str = "%", most: bool = True) -> None:
        """Print a figure against its limit."""
        fine = value <= limit if most else value >= limit
        sign = "<=" if most else ">="
        print(f"{'PASS' if fine else 'FAIL'}  {name}: {value:.2f} {unit} (bar {sign} {limit:g} {unit})", flush=True)
        if not fine:
            self.missed.append(name)


def _bounds(bars: Bars, root: Path, devices: Mapping[str, Device]) -> None:
    larger = under = warm = named_larger = named_under = 0
    for table in public_tables(root):
        checked = check_table(table, devices[table.device_id], "bfloat16")
        if checked is None:
            continue
        counts = checked.gated.counts()
        if not table.is_clean:
            print(f"      not clean: {table.relative}: {counts or 'nothing caught'}")
            continue
        larger, under, warm = larger + checked.larger, under + checked.under_bound, warm + checked.under_warm_bound
        if table.family == "gemm" and table.system in DATA_CENTRE:
            named_larger, named_under = named_larger + checked.larger, named_under + checked.under_bound
        share = 100.0 * checked.under_bound / max(checked.larger, 1)
        if share > 0.2:
            print(f"      {table.relative}: {share:.2f} % of the rows larger than the cache under main memory's bound, "
                  f"{checked.under_warm_bound} under the bound that counts what the cache can hold; {counts}")  # fmt: skip
    bars.bar("bf16 GEMM of the seven named devices, rows larger than the cache under the bound",
             100.0 * named_under / named_larger, 0.2)  # fmt: skip
    bars.bar("all clean tables, under the bound that counts what the cache can hold", 100.0 * warm / larger, 0.2)
    bars.bar("all clean tables, under main memory's bound alone", 100.0 * under / larger, 0.2)
    bad = next((t for t in public_tables(root, family="attention decode", system="a100_sxm", backend="trtllm")), None)
    caught = check_table(bad, devices[bad.device_id], "bfloat16") if bad is not None else None
    share = float(np.mean(~caught.gated.passed)) if caught is not None else 0.0
    bars.bar("bad table in the wheel (A100 decode, TensorRT-LLM 1.0.0) quarantined", 100.0 * share, 99.0, most=False)
    m = np.arange(1.0, 101.0)
    synthetic = {"seconds": 1e-6 * m, "warm_bound_s": 1e-5 * m, "working_set_bytes": np.full(100, 1e8)}
    zeros = gate({"m": np.zeros(100)}, **{**synthetic, "seconds": 1e-4 * m}, cache_bytes=5e7)
    fast = gate({"m": m}, **{**synthetic, "seconds": np.where(m == 5.0, 1e-6, 1e-4 * m)}, cache_bytes=5e7)
    label = gate({"m": m}, **synthetic, cache_bytes=5e7)
    found = [zeros.counts().get(NO_SIZE) == 100, fast.counts().get(TOO_FAST) == 1, label.counts().get(LABEL) == 100]
    bars.bar("synthetic defects caught (zero sizes, impossible row, label)", sum(found), 3, unit="of 3", most=False)


def _inside(bars: Bars, root: Path, devices: Mapping[str, Device]) -> None:
    for system in ("h100_sxm", "a100_sxm", "b200_sxm"):
        rows = measured_rows(root, devices, "gemm", system)
        assert rows is not None
        scored = score_sites(rows, SYSTEMS[system])
        figures = scored.figures()
        assert figures is not None
        for name in np.unique(rows.software.astype(str)):
            part = scored.figures(rows.software == name)
            if part is not None:
                print(f"      {system} {name}: median {100 * part.median:.2f} %, p90 {100 * part.p90:.2f} %")
        print(f"      {system}: 90 % intervals cover {100 * (figures.coverage or 0):.1f} %, width {figures.width:.2f}")
        bars.bar(f"{system} bf16 GEMM, unseen sites, median", 100 * figures.median, 3.0)
        bars.bar(f"{system} bf16 GEMM, unseen sites, p90", 100 * figures.p90, 10.0)
    for family in ("attention prefill", "attention decode"):
        rows = measured_rows(root, devices, family, "h100_sxm")
        assert rows is not None
        figures = pooled([score_sites(long_rows(rows), SYSTEMS["h100_sxm"])])
        assert figures is not None
        bars.bar(f"h100_sxm {family} > 50 us, unseen heads, median", 100 * figures.median, 3.0)
        bars.bar(f"h100_sxm {family} > 50 us, unseen heads, p90", 100 * figures.p90, 9.0)


def _hardware(bars: Bars, root: Path, devices: Mapping[str, Device]) -> None:
    for family in ("gemm", "attention decode", "attention prefill"):
        rows = load_hardware(root, devices, family)
        for split in ("device", "architecture"):
            scored = score_hardware(rows, devices, split)
            groups, every = by_group(scored), pooled(scored)
            assert every is not None
            for name, g in groups.items():
                print(f"      {family}, {split} {name} left out, > 50 us: median {100 * g.median:.1f} %, p90 "
                      f"{100 * g.p90:.1f} %, covered {100 * (g.coverage or 0):.1f} %, width {g.width:.2f}")  # fmt: skip
            middle = 100 * float(np.median([g.median for g in groups.values()]))
            covered = 100 * (every.coverage or 0.0)
            worst = 100 * min(g.coverage or 0.0 for g in groups.values())
            print(f"      {family}, {split} left out: median over groups {middle:.1f} %, pooled p90 {100 * every.p90:.1f} %, "
                  f"covered {covered:.1f} %, worst group {worst:.1f} %, width {every.width:.2f}")  # fmt: skip
            if split == "architecture":
                if family == "gemm":
                    bars.bar("GEMM on a left-out architecture, median over groups", middle, 12.0)
                    _decisions(scored)
                if family == "attention decode":
                    bars.bar("decode attention on a left-out architecture, p90", 100 * every.p90, 60.0)
                bars.bar(f"{family}: 90 % intervals cover, pooled, at least", covered, 87.0, most=False)
                bars.bar(f"{family}: 90 % intervals cover, pooled, at most", covered, 97.0)
                bars.bar(f"{family}: 90 % intervals cover in every group", worst, 70.0, most=False)


def _decisions(scored: list[Any]) -> None:
    ours, sheet = decide(scored), data_sheet_decisions(scored)
    print(f"      decisions, {ours.workloads} workloads x {ours.pairs} pairs of devices: right order {100 * ours.right:.1f} % "
          f"(data sheet {100 * sheet.right:.1f} %), expected regret {100 * ours.regret:.2f} % "
          f"(data sheet {100 * sheet.regret:.2f} %)")  # fmt: skip
    for low, high, stated, true, count in ours.reliability:
        print(f"      said {100 * low:.0f} to {100 * high:.0f} %, on average {100 * stated:.1f} %: "
              f"true {100 * true:.1f} % of {count}")  # fmt: skip


def _served(bars: Bars, root: Path, devices: Mapping[str, Device]) -> None:
    rows = read_serving(root, devices)
    count = len(rows.tpot_s)
    curves = group_ids(rows.curve.astype(str))
    inside, outside = np.empty(count), np.empty(count)
    first, fold_of = np.empty(count), np.empty(count, dtype=int)
    for fold, (train, test) in enumerate(group_folds(curves, 5, 0)):
        inside[test] = fit_step(rows, train, with_stack=True).predict(rows, test)
        first[test] = fit_step(rows, train, "ttft", with_stack=True).predict(rows, test)
        fold_of[test] = fold
    for system, train, test in leave_one_out(rows.system.astype(str)):
        outside[test] = fit_step(rows, train, with_stack=False).predict(rows, test)
        left = error_figures(rows.tpot_s[test], outside[test])
        assert left is not None
        print(
            f"      TPOT, {system} left out: {left.count} rows, median {100 * left.median:.1f} %, bias {100 * left.bias:+.1f} %"
        )
    known, unknown = error_figures(rows.tpot_s, inside), error_figures(rows.tpot_s, outside)
    assert known is not None
    assert unknown is not None
    bars.bar(f"dense TPOT in a known stack ({count} rows, whole curves left out), median", 100 * known.median, 12.5)
    bars.bar("dense TPOT on a left-out system, median", 100 * unknown.median, 25.0)
    ratio, low, high = np.log(rows.ttft_s / first), np.empty(count), np.empty(count)
    for fold in range(5):
        own, others = fold_of == fold, fold_of != fold
        spread = fit_spread(ratio[others], first[others], curves[others], device_effect=False)
        low[own], high[own] = (first[own] * np.exp(end) for end in spread.log_interval(first[own], 0.9))
    ttft = error_figures(rows.ttft_s, first, low, high)
    assert ttft is not None
    print(f"      TTFT in a known stack: median {100 * ttft.median:.1f} %, width of the 90 % interval {ttft.width:.2f}")
    bars.bar("TTFT's 90 % intervals cover, at least", 100 * (ttft.coverage or 0.0), 87.0, most=False)


def main() -> int:
    """Run every bar; 0 where all hold."""
    started = time.perf_counter()
    try:
        root = require_data_root()
    except PublicTableError as error:
        print(f"SKIPPED: {error}")
        print("FAIL")
        return 1
    devices = catalogue()
    print(f"aiconfigurator-core {source_version(root)}, tables of {len(SYSTEMS)} devices")
    bars = Bars()
    chosen = set(sys.argv[1:])
    for name, part in (("bounds", _bounds), ("served", _served), ("hardware", _hardware), ("inside", _inside)):
        if not chosen or name in chosen:
            part(bars, root, devices)
            print(f"      ({name}: {time.perf_counter() - started:.0f} s so far)", flush=True)
    print(
        "      power of B200 GEMM: not judged: the wheel's GEMM tables carry no power (attention and MoE of vLLM 0.22 do)"
    )
    print("      surfaces against aiconfigurator's table mode: not run")
    if bars.missed:
        print(f"missed: {'; '.join(bars.missed)}")
    print("FAIL" if bars.missed else "PASS")
    return 1 if bars.missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
