"""``ridgeline compile``: every Triton kernel compiled for GPUs that are not here, read, stored, and held against last time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ridgeline.kernels.compile_all import Result
    from ridgeline.results.compile import CompiledCode, Identity
    from ridgeline.results.store import Store

EXIT_BELOW = 1
SUITE = "compile"
"""Suite of the runs that hold compiled code."""


class CompileRequestError(ValueError):
    """A request for compiled code that cannot be met. One line."""


def compile_(
    arch: Annotated[
        list[str] | None, typer.Option("--arch", help="Target such as sm_90 or gfx942; repeatable (default: all).")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Operator, or start of a kernel's label, to keep; repeatable.")
    ] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", help="Run to compare with (default: the last code of each kernel).")
    ] = None,
    with_folders: Annotated[
        list[Path] | None, typer.Option("--with", help="Folder of Python files with compilations(); repeatable.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Compilers at a time (default: one per CPU).")] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Folder of results (default: $RIDGELINE_STORE, then .ridgeline).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Compile the Triton kernels ahead of time and say what the machine code holds; no GPU is needed.

    Registers, spills, occupancy, matrix instructions, and the issue bound of the main loop. Nothing is run.
    Exit code 0: fine, 1: a kernel does not compile, does not fit, spills, or is worse than last time, 2: refused.
    """
    import os

    from ridgeline.results.compile import newest_by_identity
    from ridgeline.results.store import Store

    targets = _targets(arch or [])
    opened = Store(store)
    earlier = None if compare is None else newest_by_identity(_code_of(opened, compare))
    files = _files(with_folders or [])
    found = _compile(targets, only or [], files, processes or len(os.sched_getaffinity(0)), quiet=json)
    run_id, records = _records(found)
    if earlier is None:
        earlier = _last_of(opened, {record.identity for record in records})
    _deposit(opened, run_id, records)
    changes = _changes(records, earlier)
    if json:
        _print_json(run_id, records, changes, earlier)
    else:
        _print(opened, run_id, records, changes, earlier)
    if changes or any(_unfit(record) for record in records):
        raise SystemExit(EXIT_BELOW)


def _targets(names: Sequence[str]) -> list[str]:
    """The targets that are asked for, those of one option by commas too.

    Raises:
        CompileRequestError: for one that no kernel is compiled for.
    """
    from ridgeline.kernels.compiled import TARGETS

    asked = [part.strip() for name in names for part in name.split(",")] or list(TARGETS)
    unknown = [name for name in asked if name not in TARGETS]
    if unknown:
        raise CompileRequestError(f"--arch {unknown[0]}: one of {', '.join(TARGETS)}")
    return list(dict.fromkeys(asked))


def _files(folders: Sequence[Path]) -> list[str]:
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise CompileRequestError(f"--with {folder}: not a folder")
        found += [str(path) for path in sorted(folder.resolve().glob("*.py"))]
    return found


def _compile(
    targets: Sequence[str], only: Sequence[str], files: Sequence[str], processes: int, *, quiet: bool
) -> list[Result]:
    import sys

    from ridgeline.kernels.compile_all import compile_modules, kernel_modules
    from ridgeline.kernels.compiled import CompileError

    def report(done: int, planned: int) -> None:
        if not quiet and sys.stderr.isatty():
            print(f"\r{done} of {planned} compiled", end="" if done < planned else "\r", file=sys.stderr)

    try:
        found = compile_modules(
            [*kernel_modules(), *files],
            targets,
            processes=processes,
            wanted=lambda c, target: not only or any(c.label == o or c.label.startswith(f"{o} ") for o in only),
            report=report,
        )
    except CompileError as error:
        raise CompileRequestError(str(error)) from None
    if not found:
        raise CompileRequestError(f"no kernel {' or '.join(only)} for {', '.join(targets)}: `ridgeline list operators`")
    return found


def _records(found: Iterable[Result]) -> tuple[str, list[CompiledCode]]:
    """The id of a new run, and a record of each result."""
    import secrets
    from importlib.metadata import version

    from ridgeline.bench.run import now_utc
    from ridgeline.kernels.compiled import FailedKernel
    from ridgeline.results.compile import CompiledCode
    from ridgeline.results.store import new_run_id

    run_id, started_at = new_run_id(), now_utc()
    records = []
    for result in found:
        figures: dict[str, Any]
        if isinstance(result, FailedKernel):
            figures = {"status": "failed", "reason": result.error}
        else:
            kept = {name for name in CompiledCode.model_fields if hasattr(result, name)}
            figures = {"status": "ok", **{name: getattr(result, name) for name in kept}}
        common = {name: getattr(result, name) for name in ("target", "label", "kernel", "asked_warps", "num_stages")}
        identity = {"record_id": secrets.token_hex(8), "run_id": run_id, "started_at": started_at}
        records.append(CompiledCode(**{**identity, "compiler": f"triton {version('triton')}", **figures, **common}))
    return run_id, records


def _deposit(store: Store, run_id: str, records: Sequence[CompiledCode]) -> None:
    from ridgeline.bench.environment import environment
    from ridgeline.results.deposit import deposit
    from ridgeline.results.run import RunManifest

    manifest = RunManifest(
        run_id=run_id,
        suite=SUITE,
        plan_digest=run_id,  # it is done at once and never continued
        planned=len(records),
        created_at=records[0].started_at,
        device="",
        device_name="no device: compiled, not run",
        environment=environment(),
    )
    deposit(store, manifest, records, None)


# --- against last time ------------------------------------------------------------------------------------------------


def _code_of(store: Store, run: str) -> list[CompiledCode]:
    from ridgeline.results.compile import CompiledCode

    info = store.run(run)
    records = [record for record in store.records(info.run_id)[0] if isinstance(record, CompiledCode)]
    if not records:
        raise CompileRequestError(f"--compare {run}: run {info.run_id} holds no compiled code")
    return records


def _last_of(store: Store, wanted: set[Identity]) -> dict[Identity, CompiledCode]:
    """The last stored code of each kernel, target and configuration; of our own runs."""
    from ridgeline.results.compile import CompiledCode

    found: dict[Identity, CompiledCode] = {}
    for info in store.runs():  # newest first
        if info.suite != SUITE or info.contributed or info.state != "finished":
            continue
        for record in store.records(info.run_id)[0]:
            if isinstance(record, CompiledCode) and record.identity in wanted:
                found.setdefault(record.identity, record)
        if len(found) == len(wanted):
            break
    return found


def _changes(records: Sequence[CompiledCode], earlier: Mapping[Identity, CompiledCode]) -> list[dict[str, str]]:
    """What is worse than before, an entry for each."""
    from ridgeline.results.compile import regressions

    return [
        {"target": record.target, "label": record.label, "change": change, "since_run": before.run_id}
        for record in records
        if (before := earlier.get(record.identity)) is not None
        for change in regressions(before, record)
    ]


def _unfit(record: CompiledCode) -> str:
    """What is wrong with a kernel whatever it was before: it does not compile, does not fit, or spills; else empty."""
    if record.status == "failed":
        return record.reason
    fits = record.occupancy
    if fits is not None and not fits.blocks:
        return f"does not fit: too much of {' and '.join(fits.limited_by)} ({record.shared_bytes} bytes shared)"
    return f"spills {record.spills_bytes} bytes per thread" if record.spills_bytes else ""


# --- what is printed --------------------------------------------------------------------------------------------------


def _print_json(
    run_id: str,
    records: Sequence[CompiledCode],
    changes: Sequence[Mapping[str, str]],
    earlier: Mapping[Identity, CompiledCode],
) -> None:
    import json

    from ridgeline.results.compile import derived

    document = {
        "run_id": run_id,
        "compared": sum(record.identity in earlier for record in records),
        "regressions": list(changes),
        "kernels": [derived(record) for record in records],
    }
    print(json.dumps(document, indent=1, allow_nan=False))


def _print(
    store: Store,
    run_id: str,
    records: Sequence[CompiledCode],
    changes: Sequence[Mapping[str, str]],
    earlier: Mapping[Identity, CompiledCode],
) -> None:
    import sys

    from rich.console import Console

    from ridgeline.bench.compiled_table import compiled_table

    console = Console() if sys.stdout.isatty() else Console(width=220)
    console.print(compiled_table(records))
    for record in records:
        if reason := _unfit(record):
            print(f"{record.target} {record.label}: {reason}")
    compared = sum(record.identity in earlier for record in records)
    print(f"{len(records)} compiled, {compared} compared with earlier code, {len(changes)} worse")
    for change in changes:
        print(f"worse: {change['target']} {change['label']}: {change['change']} (run {change['since_run']})")
    print(f"Stored as {run_id} in {store.path}")
