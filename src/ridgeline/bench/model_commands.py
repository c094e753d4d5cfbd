"""``ridgeline model``: what hardware could do, without measuring. Runs without torch."""

from __future__ import annotations

import typer

from ridgeline.bench.model_device_command import device
from ridgeline.bench.model_scorecard_command import scorecard

model_app = typer.Typer(
    help="What hardware could do: tables, idealized runtimes, sweeps, scorecards, audits.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
model_app.command("device")(device)
model_app.command("scorecard")(scorecard)
