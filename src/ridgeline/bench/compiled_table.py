"""The table of compiled code that ``ridgeline compile`` and ``ridgeline show`` print."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ridgeline.results.compile import CompiledCode

_RIGHT = ("registers", "spilled B", "shared KiB", "occupancy", "cycles", "overlapped", "serial")


def compiled_table(records: Sequence[CompiledCode]) -> Table:
    """A row for each kernel and target; kernels that do not compile are left to the lines below it."""
    table = Table(
        title="Compiled, not run: code, occupancy, and the issue bound of one turn of the main loop as a share of the "
        "matrix roof",
        title_justify="left",
    )
    columns = ("target", "kernel", *_RIGHT[:4], "limited by", "matrix instructions", "async copies", *_RIGHT[4:])
    for name in (*columns, "bound by"):
        table.add_column(name, justify="right" if name in _RIGHT else "left", overflow="fold")
    for record in records:
        if record.status == "failed":
            continue
        fits = record.occupancy
        bound, reason = record.bound
        table.add_row(
            record.target,
            record.label,
            str(record.registers),
            str(record.spills_bytes),
            f"{(record.shared_bytes or 0) / 1024:.4g}",
            f"{fits.blocks} x {record.num_warps}, {fits.fraction:.0%}" if fits else "",
            ", ".join(fits.limited_by) if fits else "",
            _opcodes(record.matrix_instructions),
            ", ".join(f"{name} {count}" for name, count in record.asynchronous_copies.items()),
            f"{bound.overlapped_cycles:.4g} / {bound.serial_cycles:.4g}" if bound else "",
            "" if bound is None or bound.overlapped_share is None else f"{bound.overlapped_share:.0%}",
            "" if bound is None or bound.serial_share is None else f"{bound.serial_share:.0%}",
            bound.bound_by if bound else reason,
        )
    return table


def _opcodes(names: Sequence[str]) -> str:
    """The opcodes, the first few where they are many."""
    return ", ".join(names[:2]) + (f", {len(names) - 2} more" if len(names) > 2 else "")
