"""Every fault we know, injected for real: what became of it.

    python benchmarks/faults.py [--only GROUP]

PASS: at least 40 faults; none yields a number, loses a measured record or leaves a process behind.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
for folder in ("bench", "bench/energy", "results"):
    sys.path.insert(0, str(TESTS / folder))

GROUPS = ("kernels", "replayed", "stores", "meters")
LEAST = 40


def main() -> int:
    """Print the table; 0 where every fault was held."""
    options = argparse.ArgumentParser(description="inject every fault")
    options.add_argument("--only", choices=GROUPS, action="append")
    asked = options.parse_args()
    found = []
    for name in asked.only or GROUPS:
        with tempfile.TemporaryDirectory(prefix=f"ridgeline-faults-{name}-") as text:
            folder = Path(text)
            command = importlib.import_module("fault_groups.command").Ridgeline(folder)
            for outcome in importlib.import_module(f"fault_groups.{name}").outcomes(command, folder):
                found.append(outcome)
                held = "held" if outcome.held else f"NOT HELD ({outcome.why})"
                print(f"{outcome.group:16} {outcome.fault:36} {held:8} {outcome.became}", flush=True)
    broken = [outcome for outcome in found if not outcome.held]
    print(f"{len(found)} faults, {len(broken)} not held; at least {LEAST} are asked for")
    passed = not broken and (len(found) >= LEAST or bool(asked.only))
    print("PASS" if passed else "FAIL")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
