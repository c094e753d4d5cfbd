"""``ridgeline store``: runs that travel, measurements of other tools, and the health of a store."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

EXIT_DAMAGED = 1

store_app = typer.Typer(
    help="Pack and add runs, import what other tools measured, export tables, check a store.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Folder of results (default: $RIDGELINE_STORE, then .ridgeline).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@store_app.command()
def pack(
    run: Annotated[str, typer.Argument(help="Run id, a unique start of one, or `latest`.")] = "latest",
    store: StoreOption = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write.")] = None,
) -> None:
    """Make one file of a run, to send: records, roofs, environment; nothing in it names the host."""
    from ridgeline.results.pack import pack as pack_run
    from ridgeline.results.store import Store

    print(pack_run(Store(store), run, output))


@store_app.command()
def add(
    file: Annotated[Path, typer.Argument(help="A file that `ridgeline store pack` made.")],
    store: StoreOption = None,
) -> None:
    """Add a packed run, marked as contributed. A file that was added before changes nothing."""
    from ridgeline.results.pack import add as add_run
    from ridgeline.results.store import Store

    opened = Store(store)
    run_id, written = add_run(opened, file)
    print(f"added run {run_id} to {opened.path}" if written else f"run {run_id} is in {opened.path} already")


@store_app.command()
def check(store: StoreOption = None, json: JsonOption = False) -> None:
    """Read every run of a store and name what is damaged (exit code 1)."""
    import json as json_module

    from ridgeline.results.store import Store
    from ridgeline.results.store_check import check_store

    opened = Store(store)
    report = check_store(opened)
    if json:
        print(json_module.dumps(dataclasses.asdict(report), indent=1))
    else:
        for finding in report.findings:
            print(f"{finding.severity}: {finding.run_id}: {finding.what}")
        damaged = sum(finding.severity == "damaged" for finding in report.findings)
        print(f"{opened.path}: {report.runs} runs, {report.records} records, {damaged or 'nothing'} damaged")
    if report.damaged:
        raise SystemExit(EXIT_DAMAGED)
