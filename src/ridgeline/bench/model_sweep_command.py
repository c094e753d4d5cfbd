"""``ridgeline model sweep``: a model over devices, layouts, batches and lengths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ridgeline.analytical.sweep_run import Summary

SHOWN = 5
WORKLOADS_SHOWN = 4
ANSWERS_SHOWN = 10
"""What the text shows; --json has all."""


def sweep(
    scenario: Annotated[Path, typer.Argument(help="TOML file: models, devices, phases, batches, lengths, ...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file that gets every point.")],
    engine: Annotated[str, typer.Option(help="numpy, numba, or auto: numba where it is installed.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Evaluate every point of a scenario: bound, prediction, memory fit, throughput, cost; and the best trade-offs."""
    import dataclasses
    import json as json_module

    from ridgeline.analytical.sweep_run import run_scenario
    from ridgeline.analytical.sweep_scenario import SweepError, load_scenario

    if engine not in ("auto", "numpy", "numba"):
        raise SweepError(f"--engine {engine}: one of auto, numpy, numba")
    found = run_scenario(load_scenario(scenario), out, engine)  # type: ignore[arg-type]
    if json:
        print(json_module.dumps({"out": str(out), **dataclasses.asdict(found)}, indent=1, allow_nan=False))
        return
    _show(out, found)


def _show(out: Path, found: Summary) -> None:
    print(f"{out}: {found.points} points, {found.fitting} of them fit the memory")
    for reason, combinations in found.refused.items():
        print(f"no row for {combinations} combinations: {reason}")
    if not found.fronts:
        print("no point fits: use more devices, fewer sequences, shorter lengths or narrower precisions")
    for front in found.fronts[:WORKLOADS_SHOWN]:
        rows = front["rows"]
        where = f"{front['model']}, {front['phase']} at length {front['length']}"
        print(f"{where}: {len(rows)} best trade-offs, from the fastest to the cheapest")
        for i in range(min(SHOWN, len(rows))):
            # Evenly spread, the fastest and the cheapest included.
            row = rows[i * (len(rows) - 1) // max(min(SHOWN, len(rows)) - 1, 1)]
            print(f"  {_row(row, found.objectives[1])}")
    if len(found.fronts) > WORKLOADS_SHOWN:
        print(f"and {len(found.fronts) - WORKLOADS_SHOWN} more workloads (--json, or the file)")
    for answer in found.largest_batches[:ANSWERS_SHOWN]:
        batch = answer["reason"] if answer["batch"] is None else f"batch {answer['batch']} {answer['reason']}".rstrip()
        print(
            f"within {1e3 * answer['step_within_s']:g} ms, {answer['model']} {answer['phase']} on {answer['device']} "
            f"{answer['precision']} tp{answer['tp']} length {answer['length']}: {batch}"
        )
    if len(found.largest_batches) > ANSWERS_SHOWN:
        print(f"and {len(found.largest_batches) - ANSWERS_SHOWN} more answers (--json)")


def _row(row: Mapping[str, Any], cost: str) -> str:
    sizes = " ".join(f"{name}{row[name]}" for name in ("tp", "pp", "ep", "dp") if row[name] > 1) or "1 device"
    most = max(row["elasticity"], key=row["elasticity"].get)
    return (
        f"{row['device']} {sizes} {row['precision']} batch {row['batch']}: {1e3 * row['predicted_s']:.4g} ms "
        f"({row['evidence']}, bound {1e3 * row['bound_s']:.4g}), "
        f"{row['tokens_per_s']:.4g} tokens/s, {row[cost]:.4g} {cost}, most by {most}"
    )
