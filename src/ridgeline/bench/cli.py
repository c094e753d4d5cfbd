"""The ``ridgeline`` command. Heavy imports wait inside the commands: ``ridgeline --help`` answers at once."""

from __future__ import annotations

import dataclasses
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ridgeline.bench.compile_command import compile_
from ridgeline.bench.model_commands import model_app
from ridgeline.bench.store_commands import store_app

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
app.add_typer(store_app, name="store")
app.add_typer(model_app, name="model")
app.command(name="compile")(compile_)

StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Folder of results (default: $RIDGELINE_STORE, then .ridgeline).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="Unit to measure on: cpu, ... (default: the best one of this machine).")
]
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
        from ridgeline.bench.refusals import REFUSALS

        if not isinstance(error, REFUSALS):
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


def _refuse(reason: object) -> NoReturn:
    print(f"ridgeline: {reason}", file=sys.stderr)
    raise SystemExit(EXIT_BAD_INPUT)


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="Name of a shipped suite, or the path of a suite file.")],
    store: StoreOption = None,
    with_folders: WithOption = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Operator to keep; repeatable.")] = None,
    device: DeviceOption = None,
    meter: Annotated[
        str | None, typer.Option(help="Energy meter: auto, none, nvml, rapl, zeus, replay:FILE (default: the suite's).")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="First search the configurations of the kernels that declare some.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure a suite. The same command continues an unfinished run.

    Kernels run in the configuration that the last --tune on this unit found for them, else in their default.
    """
    from ridgeline.bench.devices.choose import choose_unit
    from ridgeline.bench.energy.choose import check_meter
    from ridgeline.bench.plan import make_plan
    from ridgeline.bench.roofs import roof_cases
    from ridgeline.bench.tuning import tuned_plan
    from ridgeline.results.store import Store
    from ridgeline.workloads.suite import load_suite

    loaded = load_suite(suite)
    if meter is not None:
        loaded = dataclasses.replace(loaded, settings=loaded.settings.model_copy(update={"meter": meter}))
    check_meter(loaded.settings.meter)
    folders = _load_kernels(with_folders)
    unit = choose_unit(device)
    if unit.torch_device == "cpu" and (loaded.roofs or any(c.problem.operator in NATIVE for c in loaded.cases)):
        _build_native()
    roofs = roof_cases(unit) if loaded.roofs else []
    plan = make_plan(loaded, unit, roofs=roofs, only=only or [], with_folders=folders)
    if tune:
        _tune(plan, unit, store, json)
    _measure(tuned_plan(plan, Store(store)), unit, store, json)


@app.command()
def roofs(store: StoreOption = None, device: DeviceOption = None, json: JsonOption = False) -> None:
    """Measure the ceilings of this machine: bandwidth of each memory level, arithmetic rate of each precision."""
    from ridgeline.bench.devices.choose import choose_unit
    from ridgeline.bench.plan import Plan
    from ridgeline.bench.roofs import roof_cases
    from ridgeline.bench.time_shares import ROOF_SETTINGS

    _load_kernels(None)
    unit = choose_unit(device)
    if unit.torch_device == "cpu":
        _build_native()
    _measure(Plan("roofs", (), ROOF_SETTINGS, (), tuple(roof_cases(unit))), unit, store, json)


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


def _tune(plan: Any, unit: Any, store: Path | None, json: bool) -> None:
    """Search what has no choice yet; the choices are in the store when this returns."""
    from ridgeline.bench.tuning import tuning_plan
    from ridgeline.results.store import Store
    from ridgeline.results.tuning import stored_choices

    search = tuning_plan(plan, unit, stored_choices(Store(store)))
    if search is not None:
        _measure(search, unit, store, json, silent=json)
    elif not json:
        print(
            "ridgeline: nothing to tune: no kernel of this suite has configurations without a choice", file=sys.stderr
        )


def _measure(plan: Any, unit: Any, store: Path | None, json: bool, silent: bool = False) -> None:
    from ridgeline.bench.devices.unit import UnitLostError
    from ridgeline.bench.progress import Progress
    from ridgeline.bench.run import run_plan
    from ridgeline.bench.summary import print_json, print_summary
    from ridgeline.results.store import Store

    opened = Store(store)
    try:
        with Progress(quiet=json) as progress:
            run_id = run_plan(plan, unit, opened, progress.report)
    except KeyboardInterrupt:
        print("ridgeline: interrupted; what was measured is kept: the same command continues", file=sys.stderr)
        raise SystemExit(EXIT_ERROR) from None
    except UnitLostError as error:
        print(f"ridgeline: {error}; what was measured is kept: the same command continues", file=sys.stderr)
        raise SystemExit(EXIT_ERROR) from None
    if silent:
        return
    if json:
        print_json(opened, run_id)
    else:
        print_summary(opened, run_id, closing=True)


@app.command()
def measure(
    target: Annotated[str, typer.Argument(help="FILE.py:function, called without arguments unless --arguments.")],
    arguments: Annotated[
        str | None, typer.Option("--arguments", help="Function of the file that returns argument tuples, used in turn.")
    ] = None,
    flop: Annotated[float | None, typer.Option("--flop", help="Operations of one call, for the rate.")] = None,
    moved_bytes: Annotated[float | None, typer.Option("--bytes", help="Bytes one call has to move.")] = None,
    precision: Annotated[str, typer.Option(help="Of the operations, for the roof.")] = "float32",
    target_percent: Annotated[float, typer.Option("--target", help="Stop at this half-width of the interval, %.")] = 2,
    budget_s: Annotated[float, typer.Option("--budget", help="Seconds after which it stops anyway.")] = 5.0,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds after which it is killed.")] = 120.0,
    store: StoreOption = None,
    device: DeviceOption = None,
    json: JsonOption = False,
) -> None:
    """Measure any function of a Python file; the roof is that of the newest run in the store."""
    from ridgeline.bench import measure_command as command
    from ridgeline.bench.devices.choose import choose_unit
    from ridgeline.results.store import Store

    try:
        path, function = command.parse_target(target)
        if arguments is not None:
            command.parse_target(f"{path}:{arguments}")
        work = command.make_work(flop, moved_bytes, precision)
        settings = command.make_settings(target_percent, budget_s, timeout_s)
    except command.TargetError as error:
        _refuse(error)
    unit = choose_unit(device)
    status, reason, measured = command.run_callable(
        unit,
        path,
        function,
        arguments=arguments,
        settings=settings,
        work=work,
        roofs=command.newest_roofs(Store(store), unit),
    )
    command.print_measured(target, status, reason, measured, json)
    raise SystemExit(command.EXIT_CODES.get(status, EXIT_ERROR))


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
    device: DeviceOption = None,
    store: StoreOption = None,
    with_folders: WithOption = None,
    json: JsonOption = False,
) -> None:
    """Say whether B is faster, slower or the same as A: kernels, revisions of one, or two stored runs.

    Kernels run as in a run: in the configuration that the last --tune on this unit found. Revisions run in their default.

    Exit code 0: same or faster, 1: slower, 2: refused, 3: unclear, 4: error.
    """
    from ridgeline.bench.compare_command import Request, run_command
    from ridgeline.results.store import Store

    request = Request(
        a, b, problem, suite, cache, threads, seconds, margin, confidence, across_environments, json, device
    )  # fmt: skip
    run_command(request, Store(store), lambda: _load_kernels(with_folders))


@app.command(name="list")
def list_(
    what: Annotated[str, typer.Argument(help="operators, implementations, devices, models, suites or runs")],
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
def buy(
    scenario: Annotated[Path, typer.Argument(help="A scenario file (docs/buy.md).")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File for the report.")] = None,
    json: JsonOption = False,
) -> None:
    """Say which hardware to buy or rent for a scenario, how many, at what cost and energy, and how sure that is.

    Exit code 0: an answer, 1: no candidate meets the service levels, 2: refused, 3: the evidence separates no options.
    """
    from ridgeline.bench.buy_command import run_buy

    run_buy(scenario, json, output)


@app.command()
def papers(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of papers (default: all).")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Carry out their checks; the same command continues an unfinished run.")
    ] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds after which a check is killed.")] = 300.0,
    pages: Annotated[Path | None, typer.Option("--pages", help="Write a page per paper into this folder.")] = None,
    store: StoreOption = None,
    device: DeviceOption = None,
    json: JsonOption = False,
) -> None:
    """Say of each paper what it claims, what was shown of it here, and what is missing.

    Exit code 0: fine, 1: a check failed (--check), 2: refused.
    """
    from ridgeline.bench.papers_command import papers_command

    raise SystemExit(papers_command(ids or [], store, device, check, timeout_s, json, pages))


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
