"""The attention family against its bars: ratios of the papers' rows, and the compiled code of its GPU kernels.

    python benchmarks/attention.py [--store DIR] [--only PAPER]...

Every ratio is one check of ``ridgeline papers``, carried out in this one run and stored: times of interleaved launches,
cold (warm where the peak rate stands beside it), a median with its 99 % interval. The compiled code is that of
``ridgeline compile``, stored too. PASS: every ratio reaches its threshold, no kernel spills, and the bound of dense
bfloat16 prefill reaches its share of the matrix roof.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ridgeline.bench.devices.choose import choose_unit
from ridgeline.bench.paper_checks import frame
from ridgeline.bench.paper_checks.frame import Check
from ridgeline.bench.paper_run import run_checks
from ridgeline.kernels import registry
from ridgeline.results.check import PaperCheck
from ridgeline.results.store import Store

PAPERS = (
    "flashsigmoid", "sageattention2", "flashdecoding-pp", "s2-attention", "squeezed-attention", "double-sparsity",
    "qwen25-1m", "fastattention", "medusa", "a2ats",
)  # fmt: skip
PREFILL = "attention prefill"
LEAST_BOUND = 0.85
"""Overlapped issue bound of the best tile of dense bfloat16 prefill, head dimension 128, of the matrix roof."""
BOUND_TARGETS = ("sm_90", "sm_100")


def main() -> int:
    """Print the table; 0 where every bar is met."""
    options = argparse.ArgumentParser(description="attention against its bars")
    options.add_argument("--store", type=Path)
    options.add_argument("--only", choices=PAPERS, action="append")
    asked = options.parse_args()
    store = Store(asked.store)
    met = ratios(asked.only or PAPERS, store)
    if not asked.only:
        met &= compiled(store)
    print("PASS" if met else "FAIL")
    return 0 if met else 1


def ratios(papers: Sequence[str], store: Store) -> bool:
    """Carry the ratios out, and print a line for each."""
    registry.load()
    frame.load()
    checks = [c for paper in papers for c in frame.checks(paper) if c.kind == "ratio" and c.on == "cpu"]

    def report(check: Check, record: PaperCheck | None) -> None:
        if record is None:
            return
        figure = "-" if record.value is None else f"{record.value:.3g}{record.unit}"
        bar = "-" if record.threshold is None else f"{record.threshold:.4g}{record.unit}"
        print(f"{check.paper + '/' + check.name:48} {record.status:11} {figure:>8} {bar:>7} {record.seconds:5.0f} s")
        print("    " + "; ".join(filter(None, (record.text, record.reason))), flush=True)

    print(f"{'ratio':48} {'':11} {'value':>8} {'bar':>7} {'took':>7}")
    run_id, records = run_checks(checks, choose_unit("cpu"), store, report)
    missed = [f"{r.paper}/{r.check}" for r in records if r.status != "passed"]
    print(f"run {run_id}: {len(records) - len(missed)} of {len(records)} ratios reach their bar")
    return not missed


def compiled(store: Store) -> bool:
    """Compile everything ahead of time and print what the bars are about."""
    command = [str(Path(sys.executable).parent / "ridgeline"), "compile", "--json", "--store", str(store.path)]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        kernels: list[dict[str, Any]] = json.loads(out.stdout)["kernels"]
    except ValueError:
        print(out.stdout, out.stderr, file=sys.stderr)
        return False
    failed = [k for k in kernels if k["status"] != "ok"]
    spilling = [k for k in kernels if k["spills_bytes"]]
    print(f"{len(kernels)} kernels compiled, not run: {len(failed)} do not compile, {len(spilling)} spill")
    for kernel in (*failed, *spilling):
        print(f"    {kernel['target']} {kernel['label']}: {kernel['reason'] or str(kernel['spills_bytes']) + ' B'}")
    met = not failed and not spilling
    by_target: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for kernel in kernels:
        if kernel["label"].startswith(PREFILL) and "sigmoid" not in kernel["label"] and kernel["overlapped_share"]:
            by_target[kernel["target"]].append(kernel)
    for target in BOUND_TARGETS:
        best = max(by_target[target], key=lambda k: k["overlapped_share"], default=None)
        if best is None:
            print(f"{target}: no dense bfloat16 prefill with an issue bound")
            met = False
            continue
        print(
            f"{target}: {best['label']}: {best['overlapped_share']:.1%} overlapped ({LEAST_BOUND:.0%} is asked for), "
            f"{best['serial_share']:.1%} serial of the matrix roof, bound by {best['issue_bound_by']}"
        )
        met &= best["overlapped_share"] >= LEAST_BOUND
    return met


if __name__ == "__main__":
    sys.exit(main())
