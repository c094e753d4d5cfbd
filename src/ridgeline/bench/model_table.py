"""``ridgeline model table`` for people: a table for each phase, or the document as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from ridgeline.analytical.prediction import EVIDENCE

PLAIN_WIDTH = 160


def print_table(document: dict[str, Any], as_json: bool) -> None:
    """Print the document: JSON, or a table for each phase."""
    if as_json:
        print(json.dumps(document, indent=1))
        return
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    console.print(
        f"{document['model']} ({document['parameters'] / 1e9:.4g} B parameters) on {document['device']}, "
        f"{document['precisions']}, {document['layout']}; formulas: {document['formulas']}",
        highlight=False,
    )
    held = document["memory"]
    if held is not None:
        most = "" if held["largest_batch"] is None else f"; at most {held['largest_batch']} sequences fit"
        console.print(
            f"memory of a device: weights {held['weights_bytes'] / 1e9:.2f} GB, cache {held['kv_bytes'] / 1e9:.2f} GB, "
            f"activations {held['activations_bytes'] / 1e9:.2f} GB of {held['capacity_bytes'] / 1e9:.0f} GB{most}",
            highlight=False,
        )
        if held["reason"]:
            console.print(held["reason"], highlight=False)
    for phase in document["phases"]:
        console.print(_table(phase))
        extra = ""
        if "unfused_s" in phase:
            extra = (
                f"; {time_text(phase['unfused_s'])} with norms, rotations, activations and sums as kernels of their own"
            )
        console.print(
            f"{phase['phase']}: at least {time_text(phase['seconds'])} for {phase['tokens']:.0f} tokens{extra}",
            highlight=False,
        )
        if phase.get("predicted_s") is not None:
            console.print(
                f"{phase['phase']}: predicted {time_text(phase['predicted_s'])}, {EVIDENCE[phase['evidence']]}",
                highlight=False,
            )
    for note in document["notes"]:
        console.print(f"note: {note}", highlight=False)


def _table(phase: dict[str, Any]) -> Table:
    table = Table(title=f"{phase['phase']}, {phase['sequences']:.0f} sequences", title_justify="left")
    predicted = phase.get("predicted_s") is not None
    for heading in (
        "block", "operator", "x", "GFLOP", "MB", "FLOP/B", "bound by", "bound", "share", *(["predicted"] if predicted else []),
    ):  # fmt: skip
        table.add_column(heading, justify="left" if heading in ("block", "operator", "bound by") else "right")
    for row in phase["operators"]:
        intensity = row["intensity_flop_per_byte"]
        table.add_row(
            row["block"],
            row["operator"],
            str(row["count"]),
            f"{row['operations'] / 1e9:.4g}",
            f"{row['bytes'] / 1e6:.4g}",
            "-" if intensity is None else f"{intensity:.3g}",
            row["bound_by"],
            time_text(row["seconds"]),
            "fused" if row["share"] is None else f"{row['share']:.1%}",
            *([time_text(row["predicted_s"])] if predicted else []),
        )
    table.add_section()
    table.add_row(
        "total", "", "", f"{phase['operations'] / 1e9:.4g}", f"{phase['bytes'] / 1e6:.4g}", "", "",
        time_text(phase["seconds"]), "", *([time_text(phase["predicted_s"])] if predicted else []),
    )  # fmt: skip
    return table


def time_text(seconds: float) -> str:
    """Seconds with four figures, as s, ms or us."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.4g} {unit}"
    return f"{seconds / 1e-6:.4g} us"
