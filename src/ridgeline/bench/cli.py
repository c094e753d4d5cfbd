"""The ``ridgeline`` command. Heavy imports wait inside the commands: ``ridgeline --help`` answers at once."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

EXIT_BAD_INPUT = 2
EXIT_ERROR = 4
NATIVE = ("stream", "fma")
"""Operators whose CPU kernels are C++."""
CLICK_INTERRUPTED = 130
"""What typer makes of Ctrl-C outside of a measurement."""

app = typer.Typer(
    name="ridgeline",
    help="Measure inference kernels, hold them against the roof of the hardware, and show the result.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Folder of results (default: $RIDGELINE_STORE, then .ridgeline).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
WithOption = Annotated[list[Path] | None, typer.Option("--with", help="Folder with kernels of your own; repeatable.")]


def main() -> None:
    """Run the command; bad input is one line and exit code 2, never a traceback."""
    try:
        _run_app()
    except KeyboardInterrupt:
        print("ridgeline: interrupted", file=sys.stderr)
        raise SystemExit(EXIT_ERROR) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None
    except Exception:
        # Python's own code for this is 1, which here means "slower".
        traceback.print_exc()
        raise SystemExit(EXIT_ERROR) from None


def _run_app() -> None:
    try:
        app()
    except ValueError as error:
        if not isinstance(error, _refusals()):
            raise
        _refuse(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in ("torch", "triton", "numba"):
            raise
        _refuse(f"this command runs kernels and needs {package}: pip install 'ridgeline[run]'")
    except SystemExit as error:
        if error.code == CLICK_INTERRUPTED:
            raise KeyboardInterrupt from None
        raise


def _refusals() -> tuple[type[Exception], ...]:
    """Errors that are about the input: their text is the one line to show."""
    from ridgeline.analytical.device import DeviceError
    from ridgeline.analytical.problem import ProblemError
    from ridgeline.kernels.registry import RegistryError
    from ridgeline.results.comparison import ComparisonError
    from ridgeline.results.record import RecordError
    from ridgeline.results.store import StoreError
    from ridgeline.workloads.suite import SuiteError

    return ComparisonError, DeviceError, ProblemError, RecordError, RegistryError, StoreError, SuiteError


def _refuse(reason: object) -> NoReturn:
    print(f"ridgeline: {reason}", file=sys.stderr)
    raise SystemExit(EXIT_BAD_INPUT)


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="Name of a shipped suite, or the path of a suite file.")],
    store: StoreOption = None,
    with_folders: WithOption = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Operator to keep; repeatable.")] = None,
    json: JsonOption = False,
) -> None:
    """Measure a suite. The same command continues an unfinished run."""
    from ridgeline.bench.devices.cpu import detect
    from ridgeline.bench.plan import make_plan
    from ridgeline.bench.roofs import roof_cases
    from ridgeline.workloads.suite import load_suite

    loaded = load_suite(suite)
    folders = _load_kernels(with_folders)
    if loaded.roofs or any(case.problem.operator in NATIVE for case in loaded.cases):
        _build_native()
    cpu = detect()
    roofs = roof_cases(cpu) if loaded.roofs else []
    plan = make_plan(loaded, cpu, roofs=roofs, only=only or [], with_folders=folders)
    _measure(plan, cpu, store, json)


@app.command()
def roofs(store: StoreOption = None, json: JsonOption = False) -> None:
    """Measure the ceilings of this machine: bandwidth of each memory level, arithmetic rate of each precision."""
    from ridgeline.bench.devices.cpu import detect
    from ridgeline.bench.plan import Plan
    from ridgeline.bench.roofs import SETTINGS, roof_cases

    _load_kernels(None)
    _build_native()
    cpu = detect()
    _measure(Plan("roofs", (), SETTINGS, (), tuple(roof_cases(cpu))), cpu, store, json)


def _load_kernels(folders: list[Path] | None) -> list[str]:
    """Load all kernels; returns the user's folders as absolute paths."""
    import torch  # noqa: F401  (without it nothing would be registered; `main` says what to install)

    from ridgeline.kernels.registry import load

    resolved = [folder.resolve() for folder in folders or []]
    load(resolved)
    return [str(folder) for folder in resolved]


def _build_native() -> None:
    """Compile the native kernels here, so that a missing compiler is one line and not a crash of every case."""
    from ridgeline.kernels.native.build import NativeBuildError, load

    try:
        for name in NATIVE:
            load(name)
    except NativeBuildError as error:
        _refuse(error)


def _measure(plan: Any, cpu: Any, store: Path | None, json: bool) -> None:
    from ridgeline.bench.progress import Progress
    from ridgeline.bench.run import run_plan
    from ridgeline.bench.summary import print_json, print_summary
    from ridgeline.results.store import Store

    opened = Store(store)
    try:
        with Progress(quiet=json) as progress:
            run_id = run_plan(plan, cpu, opened, progress.report)
    except KeyboardInterrupt:
        print("ridgeline: interrupted; what was measured is kept: the same command continues", file=sys.stderr)
        raise SystemExit(EXIT_ERROR) from None
    if json:
        print_json(opened, run_id)
    else:
        print_summary(opened, run_id, closing=True)


@app.command()
def show(
    run: Annotated[str | None, typer.Argument(help="Run id, a unique start of one, or `latest`.")] = None,
    store: StoreOption = None,
    json: JsonOption = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a record.")] = False,
) -> None:
    """Show the records of a run, or of the whole store."""
    from ridgeline.bench.summary import print_json, print_summary
    from ridgeline.results.record import record_schema
    from ridgeline.results.store import Store

    if schema:
        import json as json_module

        print(json_module.dumps(record_schema(), indent=2))
        return
    opened = Store(store)
    run_id = opened.run(run).run_id if run is not None else None
    if json:
        print_json(opened, run_id)
    else:
        print_summary(opened, run_id)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="OPERATOR/IMPLEMENTATION[@REVISION], or a run id.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same kind; the verdict is about B.")],
    problem: Annotated[
        str | None, typer.Option(help="m=512,n=512,k=512,precision=float32 (default: --suite's).")
    ] = None,
    suite: Annotated[str, typer.Option(help="Suite whose problems to compare on.")] = "quick",
    cache: Annotated[str, typer.Option(help="cold or warm.")] = "warm",
    threads: Annotated[int | None, typer.Option(help="Threads a kernel may use (default: all).")] = None,
    seconds: Annotated[float, typer.Option(help="Longest measuring, for each problem.")] = 5.0,
    margin: Annotated[float, typer.Option(help="Relative difference up to which times are the same.")] = 0.02,
    confidence: Annotated[float, typer.Option(help="That all intervals of one comparison hold.")] = 0.99,
    across_environments: Annotated[bool, typer.Option(help="Compare runs of different environments, marked.")] = False,
    store: StoreOption = None,
    with_folders: WithOption = None,
    json: JsonOption = False,
) -> None:
    """Say whether B is faster, slower or the same as A: kernels, revisions of one, or two stored runs.

    Exit code 0: same or faster, 1: slower, 2: refused, 3: unclear, 4: error.
    """
    from ridgeline.bench.compare_command import Request, run_command
    from ridgeline.results.store import Store

    request = Request(
        a, b, problem, suite, cache, threads, seconds, margin, confidence, across_environments, json
    )  # fmt: skip
    run_command(request, Store(store), lambda: _load_kernels(with_folders))


@app.command(name="list")
def list_(
    what: Annotated[str, typer.Argument(help="operators, implementations, devices, suites or runs")],
    store: StoreOption = None,
    with_folders: WithOption = None,
    json: JsonOption = False,
) -> None:
    """List what there is."""
    from ridgeline.bench.listing import LISTINGS, ListingError, print_listing

    if what not in LISTINGS:
        _refuse(f"cannot list {what!r}: one of {', '.join(LISTINGS)}")
    try:
        print_listing(what, store, with_folders or [], json)
    except ListingError as error:
        _refuse(error)


@app.command()
def doctor(json: JsonOption = False) -> None:
    """Say what this machine can measure and what not, with the remedy for each."""
    from ridgeline.bench.doctor import examine, print_findings

    print_findings(examine(), json)


@app.command()
def dashboard(
    store: StoreOption = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 8501,
) -> None:
    """Open the dashboard over a store, on 127.0.0.1."""
    import os

    from ridgeline.results.store import Store

    # A program of its own: the measuring knows nothing of the showing.
    path = str(Store(store).path.absolute())
    os.execv(sys.executable, [sys.executable, "-m", "ridgeline.dashboard.serve", path, str(port)])


if __name__ == "__main__":
    main()
