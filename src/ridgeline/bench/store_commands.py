"""``ridgeline store``: runs that travel, measurements of other tools, and the health of a store."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

EXIT_BAD_INPUT = 2
EXIT_DAMAGED = 1
FORMATS = ("csv", "json")

store_app = typer.Typer(
    help="Pack and add runs, import what other tools measured, export tables, check a store.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
import_app = typer.Typer(
    help="Import what another tool measured. A file that was imported before changes nothing.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
store_app.add_typer(import_app, name="import")

StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Folder of results (default: $RIDGELINE_STORE, then .ridgeline).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

FileArgument = Annotated[Path, typer.Argument(help="What the tool wrote.")]
CaseOption = Annotated[str, typer.Option("--case", help="case_id of the kernel's record, or a unique start of one.")]
OperatorOption = Annotated[str, typer.Option("--operator", help="Instead of --case, with the two below.")]
ImplementationOption = Annotated[str, typer.Option("--implementation")]
ProblemOption = Annotated[str, typer.Option("--problem", help="Its parameters: m=512,n=512,k=512,precision=float32")]
KernelOption = Annotated[str | None, typer.Option("--kernel", help="Regular expression: only kernels that match.")]
CallsOption = Annotated[int | None, typer.Option("--calls", min=1, help="Calls of the implementation in the profile.")]


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


@store_app.command()
def export(
    run: Annotated[str | None, typer.Argument(help="Run id, a unique start of one, or `latest`; all without.")] = None,
    store: StoreOption = None,
    format_: Annotated[str, typer.Option("--format", help="csv or json.")] = "csv",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; standard output without.")
    ] = None,
) -> None:
    """Write the measurements as a table: stored and derived columns, by their stored names."""
    from ridgeline.results.export import export_csv, export_json
    from ridgeline.results.store import Store

    if format_ not in FORMATS:
        print(f"ridgeline: --format {format_!r}: one of {', '.join(FORMATS)}", file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT)
    text = (export_csv if format_ == "csv" else export_json)(Store(store), run)
    if output is None:
        sys.stdout.write(text)
        return
    from ridgeline.results.durable import write_durably

    write_durably(output, text.encode())
    print(output)


@import_app.command(name="pytest-benchmark")
def import_pytest_benchmark(file: FileArgument, store: StoreOption = None) -> None:
    """Timings of pytest-benchmark, from its JSON."""
    from ridgeline.results.importers.pytest_benchmark import import_pytest_benchmark as read
    from ridgeline.results.store import Store

    opened = Store(store)
    run_id, count, written = read(opened, file)
    _say_imported(f"{count} benchmark{'s' if count != 1 else ''}", run_id, opened.path, written)


@import_app.command(name="vllm")
def import_vllm(
    file: FileArgument,
    store: StoreOption = None,
    device: Annotated[str, typer.Option(help="The hardware, where the file does not say.")] = "",
    gpus: Annotated[int | None, typer.Option(min=1, help="Devices that served, for the figures per GPU.")] = None,
    tp: Annotated[int | None, typer.Option(min=1, help="Tensor parallelism.")] = None,
    version: Annotated[str, typer.Option(help="Version of the engine.")] = "",
    precision: Annotated[str, typer.Option(help="Precision that was served.")] = "",
) -> None:
    """Serving runs of `vllm bench serve --save-result`."""
    from ridgeline.results.importers.vllm_serve import Stated
    from ridgeline.results.importers.vllm_serve import import_vllm as read
    from ridgeline.results.store import Store

    opened = Store(store)
    run_id, count, written = read(opened, file, Stated(device, gpus, tp, version, precision))
    _say_imported(f"{count} serving run{'s' if count != 1 else ''}", run_id, opened.path, written)


@import_app.command(name="inferencex")
def import_inferencex(file: FileArgument, store: StoreOption = None) -> None:
    """Serving runs of InferenceX: its agg_*.json, or rows of its dashboard."""
    from ridgeline.results.importers.inferencex import import_inferencex as read
    from ridgeline.results.store import Store

    opened = Store(store)
    run_id, count, written = read(opened, file)
    _say_imported(f"{count} serving run{'s' if count != 1 else ''}", run_id, opened.path, written)


PROFILERS = {
    "ncu": "Counters of Nsight Compute: `ncu --csv --page raw` or `--page details`.",
    "rocprof": "Counters of rocprof (results.csv) or rocprofv3 (counter_collection.csv).",
    "proton": "Kernel times of Proton: its .hatchet file.",
    "torch-profiler": "Kernel times of the torch profiler: its Chrome trace, also as .json.gz.",
}
"""Commands that import a profile, and what they say of themselves."""


def _add_profiler(tool: str) -> None:
    @import_app.command(name=tool, help=PROFILERS[tool])
    def command(
        file: FileArgument,
        store: StoreOption = None,
        case: CaseOption = "",
        operator: OperatorOption = "",
        implementation: ImplementationOption = "",
        problem: ProblemOption = "",
        kernel: KernelOption = None,
        calls: CallsOption = None,
    ) -> None:
        from ridgeline.analytical.operators import parameters_from_text
        from ridgeline.results.importers.profile import Target, import_profile
        from ridgeline.results.store import Store

        opened = Store(store)
        target = Target(case, operator, implementation, parameters_from_text(problem) if problem else None)
        run_id, written = import_profile(opened, file, tool, target, kernel, calls)
        _say_imported("a profile", run_id, opened.path, written)


for _tool in PROFILERS:
    _add_profiler(_tool)


@import_app.command(name="aiconfigurator")
def import_aiconfigurator(
    store: StoreOption = None,
    system: Annotated[str | None, typer.Option("--system", help="Such as h100_sxm; all without.")] = None,
    family: Annotated[str | None, typer.Option("--family", help="gemm or attention; all without.")] = None,
    backend: Annotated[str | None, typer.Option("--backend", help="vllm, sglang or trtllm; all without.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="Of the backend, such as 0.24.0.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Rows of each table and precision.")] = 2000,
) -> None:
    """Kernel times that aiconfigurator publishes (extra `data`), as records of kind `published`."""
    from ridgeline.results.importers.aiconfigurator import import_aiconfigurator as read
    from ridgeline.results.store import Store

    opened = Store(store)
    for run_id, count, written in read(
        opened, system=system, family=family, backend=backend, version=version, limit=limit
    ):
        _say_imported(f"{count} published times", run_id, opened.path, written)


def _say_imported(what: str, run_id: str, store: Path, written: bool) -> None:
    print(f"imported {what} as run {run_id} of {store}" if written else f"imported before as run {run_id} of {store}")
