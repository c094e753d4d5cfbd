"""A buyer's scenario of 30 devices x 40 layouts, with intervals and simulation: how many seconds it takes, PASS under 10.

``python benchmarks/buy_speed.py``. The time is that of the answer and both reports, in this process; starting Python and
reading the catalogue are printed beside it.
"""

from __future__ import annotations

import sys
import time

BAR_S = 10.0
DEVICES, LAYOUTS = 30, 40


def main() -> int:
    """Print the seconds and what was done in them; 1 where the bar is missed."""
    begun = time.monotonic()
    from ridgeline.analytical.architectures.builtin import load_architecture
    from ridgeline.analytical.catalogue import catalogue
    from ridgeline.analytical.purchase.evaluate import answer
    from ridgeline.analytical.purchase.markdown import as_markdown
    from ridgeline.analytical.purchase.report import as_dict
    from ridgeline.analytical.purchase.scenario import parse_scenario

    known = catalogue()
    model = load_architecture("qwen3-32b")
    usable = [
        device.id
        for device in known.values()
        if device.kind in ("gpu", "asic")
        and any(r.unit == "matrix" and r.a == "bfloat16" for r in device.rates)
        and any(price.basis == "rent_per_hour" for price in device.prices)
        and any(power.tdp_w is not None for power in device.power)
        and any(link.domain_size is None or link.domain_size >= 8 for link in device.links)
    ][:DEVICES]
    scenario = parse_scenario(
        {
            "name": "30 devices x 40 layouts",
            "as_of": "2026-06-15",
            "traffic": [
                {
                    "model": "qwen3-32b",
                    "requests_per_s": 40.0,
                    "input": {"median": 600, "sigma": 0.9, "most": 8000},
                    "output": {"median": 200, "sigma": 0.7, "most": 1500},
                    "levels": [
                        {"metric": "ttft", "percentile": 95, "limit_s": 2.0},
                        {"metric": "tpot", "percentile": 95, "limit_s": 0.1},
                    ],
                }
            ],
            "candidates": [
                {
                    "device": name,
                    "tp": [1, 2, 4, 8],
                    "max_sequences": [16, 24, 32, 48, 64, 96, 128, 192, 256, 512],
                }
                for name in usable
            ],
        },
        "buy_speed",
    )
    start, cpu = time.monotonic(), time.process_time()
    found = answer(scenario, known, {"qwen3-32b": model}, "buy_speed")
    values, page = as_dict(found), as_markdown(found)
    seconds, busy = time.monotonic() - start, time.process_time() - cpu
    screening = values["screening"]
    print(f"start, imports and catalogue: {start - begun:.2f} s")
    print(
        f"{len(usable)} devices x {LAYOUTS} layouts: {screening['layouts']} combinations screened, "
        f"{len(screening['unfit'])} layouts do not fit, {len(screening['simulated'])} deployments simulated in "
        f"{screening['simulations']} simulations of {screening['steps']} steps, {scenario.draws} draws, "
        f"{len(values['options'])} options, report of {len(page.splitlines())} lines"
    )
    print(values["verdict"])
    passed = seconds < BAR_S and len(usable) == DEVICES
    print(f"of which on a processor: {busy:.2f} s")
    print(f"{seconds:.2f} s, bar {BAR_S:g} s: {'PASS' if passed else 'FAIL'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
