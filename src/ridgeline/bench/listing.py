"""Lists: operators, implementations, devices, suites and runs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Rows = list[dict[str, Any]]


class ListingError(ValueError):
    """A list that cannot be made. One line."""


def _load(with_folders: Sequence[Path]) -> None:
    from ridgeline.kernels.registry import RegistryError, load, unavailable

    try:
        load(with_folders)
    except RegistryError as error:
        raise ListingError(str(error)) from None
    left_out: dict[str, list[str]] = {}
    for module, need in unavailable().items():
        left_out.setdefault(need, []).append(module.removeprefix("ridgeline.kernels."))
    for need, modules in left_out.items():
        print(f"ridgeline: left out: {', '.join(modules)}: {need}", file=sys.stderr)


def _operators(store: Path | None, with_folders: Sequence[Path]) -> Rows:
    _load(with_folders)
    from ridgeline.kernels.registry import implementations, operators

    return [
        {
            "operator": name,
            "implementations": len(implementations(name)),
            "baseline": ", ".join(f"{device}: {baseline}" for device, baseline in op.baselines.items()),
            "description": (type(op).__doc__ or "").strip().splitlines()[0],
        }
        for name, op in sorted(operators().items())
    ]


def _implementations(store: Path | None, with_folders: Sequence[Path]) -> Rows:
    _load(with_folders)
    from ridgeline.kernels.registry import implementations

    return [
        {
            "operator": i.operator,
            "implementation": i.name,
            "devices": sorted(i.devices),
            "precisions": sorted(i.precisions),
            "papers": list(i.papers),
            "file": str(i.path),
        }
        for i in implementations()
    ]


def _devices(store: Path | None, with_folders: Sequence[Path]) -> Rows:
    from ridgeline.bench.device_listing import device_rows

    return device_rows()


def _models(store: Path | None, with_folders: Sequence[Path]) -> Rows:
    from ridgeline.analytical.architectures import builtin_models

    return [
        {**model.architecture.summary(), "source": model.source, "checked": model.checked}
        for model in builtin_models().values()
    ]


def _suites(store: Path | None, with_folders: Sequence[Path]) -> Rows:
    from ridgeline.workloads.suite import load_suite, shipped

    return [
        {"suite": name, "problems": len(suite.cases), "roofs": suite.roofs, "description": suite.description}
        for name, suite in ((name, load_suite(name)) for name in shipped())
    ]


def _runs(store: Path | None, with_folders: Sequence[Path]) -> Rows:
    from ridgeline.results.store import Store

    return [dataclasses.asdict(info) for info in Store(store).runs()]


LISTINGS: dict[str, Callable[[Path | None, Sequence[Path]], Rows]] = {
    "operators": _operators,
    "implementations": _implementations,
    "devices": _devices,
    "models": _models,
    "suites": _suites,
    "runs": _runs,
}


def print_listing(what: str, store: Path | None, with_folders: Sequence[Path], as_json: bool) -> None:
    """Print one of :data:`LISTINGS`.

    Raises:
        ListingError: where a kernel file cannot be loaded.
    """
    rows = LISTINGS[what](store, with_folders)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    if not rows:
        print(f"no {what}")
        return
    if what == "devices":
        from ridgeline.bench.device_listing import device_table

        table = device_table(rows)
    else:
        table = _table(rows)
    (Console() if sys.stdout.isatty() else Console(width=200)).print(table)


def _table(rows: Rows) -> Table:
    table = Table()
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_text(value).replace("[", r"\[") for value in row.values()))
    return table


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
