"""``ridgeline model``: what hardware could do, without measuring. Runs without torch."""

from __future__ import annotations

import typer

from ridgeline.bench.model_audit_command import audit
from ridgeline.bench.model_bound_command import bound
from ridgeline.bench.model_device_command import device
from ridgeline.bench.model_idealize_command import idealize
from ridgeline.bench.model_scorecard_command import scorecard
from ridgeline.bench.model_sweep_command import sweep
from ridgeline.bench.model_table_command import table

model_app = typer.Typer(
    help="What hardware could do: bounds, tables, idealized runtimes, sweeps, scorecards, audits.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
model_app.command("audit")(audit)
model_app.command("bound")(bound)
model_app.command("device")(device)
model_app.command("idealize")(idealize)
model_app.command("sweep")(sweep)
model_app.command("table")(table)
model_app.command("scorecard")(scorecard)
