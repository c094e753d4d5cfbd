"""``ridgeline model bound``: what one kernel needs at least on a device, why, and where a measured time went."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer


def bound(
    operator: Annotated[str, typer.Argument(help="gemm, attention, ... (`ridgeline model bound x y` lists them).")],
    problem: Annotated[str, typer.Argument(help="m=512,n=512,k=512,precision=bfloat16, or a JSON object.")],
    device: Annotated[list[str], typer.Option("--device", help="Id, other name or TOML file; repeatable.")],
    level: Annotated[str | None, typer.Option(help="Memory level the bytes come from (default: main memory).")] = None,
    substitute: Annotated[
        bool, typer.Option("--substitute", help="Let a wider format do a precision that the device lacks.")
    ] = False,
    measured_s: Annotated[
        float | None, typer.Option("--measured", help="A measured time in seconds: where did it go?")
    ] = None,
    launch_s: Annotated[float | None, typer.Option("--launch", help="Seconds one launch costs.")] = None,
    clock_mhz: Annotated[float | None, typer.Option("--clock", help="Core clock that was seen, in MHz.")] = None,
    moved_bytes: Annotated[float | None, typer.Option("--moved", help="Bytes the kernel moves.")] = None,
    warm: Annotated[bool, typer.Option("--warm", help="It was measured with operands in the cache.")] = False,
    j_per_flop: Annotated[float | None, typer.Option(help="Energy of an operation: adds the power roof.")] = None,
    j_per_byte: Annotated[float | None, typer.Option(help="Energy of a byte: adds the power roof.")] = None,
    limit_w: Annotated[float | None, typer.Option(help="Power limit in watts (default: the device's).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Bound of one kernel on one or more devices: every limit, which decides, and what would have to change.

    With --measured, the waterfall from the ideal to the measured time.
    """
    from ridgeline.analytical.catalogue import find_device
    from ridgeline.analytical.limits import LimitError
    from ridgeline.analytical.operators import make_problem, parameters_from_text
    from ridgeline.analytical.problem_bound import Energies, Measured, problem_bound

    asked = make_problem(operator, parameters_from_text(problem))
    if (j_per_flop is None) != (j_per_byte is None):
        raise LimitError("the power roof needs both --j-per-flop and --j-per-byte")
    energies = None
    if j_per_flop is not None and j_per_byte is not None:
        energies = Energies(j_per_flop=j_per_flop, j_per_byte=j_per_byte, limit_w=limit_w)
    elif limit_w is not None:
        raise LimitError("--limit-w alone is no power roof: give --j-per-flop and --j-per-byte too")
    measured = None
    if measured_s is not None:
        measured = Measured(
            seconds=measured_s, launch_s=launch_s, clock_mhz=clock_mhz, moved_bytes=moved_bytes, warm=warm
        )
    documents = [
        problem_bound(
            asked, find_device(name), level=level, substitute=substitute, energies=energies, measured=measured
        )
        for name in device
    ]
    if json:
        import json as json_module

        print(json_module.dumps(documents, indent=1, allow_nan=False))
        return
    for document in documents:
        _show(document)


def _show(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from ridgeline.bench.model_table import PLAIN_WIDTH, time_text

    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=PLAIN_WIDTH, highlight=False)
    intensity = document["intensity_flop_per_byte"]
    per_byte = "" if intensity is None else f", {intensity:.3g} FLOP/B"
    console.print(
        f"{document['operator']} {document['problem_label']} on {document['device']}: "
        f"{document['flop'] / 1e9:.4g} GFLOP, {document['bytes'] / 1e6:.4g} MB{per_byte}"
    )
    table = Table("limit", "kind")
    table.add_column("needs", justify="right")
    table.add_column("of the bound", justify="right")
    for row in document["limits"]:
        share = "" if row["share"] is None else f"{row['share']:.1%}"
        table.add_row(row["limit"], row["kind"], time_text(row["seconds"]), share)
    console.print(table)
    console.print(
        f"at least {time_text(document['bound_s'])}, bound by {document['bound_by']}; "
        f"{time_text(document['serial_s'])} if nothing overlaps"
    )
    for asked, served in document["served_by"].items():
        console.print(f"note: {asked} is done as {served}")
    for part in document["left_out"]:
        console.print(f"note: the device states no ceiling for {part}: the bound is weaker by it")
    bandwidth = document["compute_bound_from_bytes_per_s"]
    if bandwidth is not None:
        console.print(
            f"it would wait for a unit from {bandwidth / 1e9:.4g} GB/s of main memory on, or from "
            f"{document['compute_bound_from_flop_per_byte']:.4g} FLOP/B"
        )
    gap = document["measured"]
    if gap is None:
        return
    console.print(
        f"measured {time_text(gap['seconds'])}: {gap['share_of_ideal']:.1%} of the ideal {time_text(gap['ideal_s'])}"
    )
    table = Table("cause")
    table.add_column("part", justify="right")
    table.add_column("of the measured time", justify="right")
    for cause, part in gap["parts_s"].items():
        sign = "-" if part < 0 else ""
        table.add_row(cause, f"{sign}{time_text(abs(part))}", f"{part / gap['seconds']:.1%}")
    console.print(table)
    for cause, why in gap["unknown"].items():
        console.print(f"note: {cause} is in the residual: {why}")
