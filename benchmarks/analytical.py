"""Every bar of the analytical side, one program after the other; the last line says PASS or FAIL of all.

python benchmarks/analytical.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PARTS = (
    ("analytical_calibration.py", "bounds and predictions against public measurements"),
    ("serving_e2e.py", "the serving simulation against public end-to-end runs"),
    ("idealized_published.py", "published request times"),
    ("analytical_speed.py", "design points a second"),
    ("surfaces_speed.py", "steps from utilisation surfaces against aiconfigurator's tables"),
    ("buy_speed.py", "a buyer's scenario of 30 devices and 40 layouts"),
)


def main() -> int:
    """Run the parts; 0 where all pass."""
    here = Path(__file__).resolve().parent
    failed = []
    for program, what in PARTS:
        print(f"\n== {what}: {program}", flush=True)
        if subprocess.run([sys.executable, str(here / program)]).returncode != 0:
            failed.append(program)
    print("\n" + (f"not passed: {', '.join(failed)}" if failed else "all parts passed"))
    print("FAIL" if failed else "PASS")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
