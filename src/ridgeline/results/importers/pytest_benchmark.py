"""pytest-benchmark's JSON: what ``--benchmark-json`` and ``--benchmark-autosave`` write.

``stats`` is in seconds per call, whatever unit the terminal showed (pytest-benchmark documentation, "Usage": the unit
is one of display), ``ops`` is its reciprocal, and ``data`` holds the samples where ``--benchmark-save-data`` or
``--benchmark-json`` kept them. That the file says seconds is checked: by ``ops``, and by the samples.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ridgeline.analytical.quantities import digest
from ridgeline.results.durable import StoreError
from ridgeline.results.imported import Imported
from ridgeline.results.importers.source_file import SourceFile, known_import, now_utc, read_source, store_import
from ridgeline.results.store import Store, new_run_id

TOOL = "pytest-benchmark"
IMPORTED_SUFFIX = "-imported"
_MADE_BY = "not of pytest-benchmark: make it with `pytest --benchmark-json=FILE`"
_NO_SAMPLES = "the file holds only the summary: save with --benchmark-save-data to keep the samples"
_CPU = ("brand_raw", "brand", "arch_string_raw", "arch")


def import_pytest_benchmark(store: Store, path: Path) -> tuple[str, int, bool]:
    """Put the benchmarks of a file into the store as records of kind ``imported``.

    Returns:
        id of the run, benchmarks in it, and whether it was written: ``False`` where it was imported before.

    Raises:
        StoreError: where the file is not of pytest-benchmark, was cut off, or its times are not in seconds. Nothing
            is written then.
    """
    source = read_source(path)
    values = source.json()
    run_id = f"{new_run_id()}{IMPORTED_SUFFIX}"
    records = read_benchmarks(source, values, run_id)
    identity = digest({"tool": TOOL, "source": source.digest})
    known = known_import(store, identity)
    if known is not None:
        return known, len(records), False
    text = records[0].device_text
    store_import(store, run_id=run_id, tool=TOOL, identity=identity, records=records, device=None, name=text)
    return run_id, len(records), True


def read_benchmarks(source: SourceFile, values: Any, run_id: str) -> list[Imported]:
    """The records of a parsed file.

    Raises:
        StoreError: as :func:`import_pytest_benchmark`.
    """
    if not isinstance(values, dict) or not isinstance(values.get("benchmarks"), list):
        raise StoreError(f"{source.path}: no list of benchmarks: {_MADE_BY}")
    if not values["benchmarks"]:
        raise StoreError(f"{source.path}: no benchmark in it: none ran, or all were deselected")
    machine = _device_text(values.get("machine_info"))
    records = []
    for number, entry in enumerate(values["benchmarks"], start=1):
        where = f"{source.path}: benchmark {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("stats"), dict):
            raise StoreError(f"{where}: no stats: {_MADE_BY}")
        where = f"{where} ({entry.get('fullname')})"
        stats = entry["stats"]
        _check_seconds(entry, stats, where)
        data = stats.get("data")
        try:
            record = Imported.model_validate(
                {
                    "record_id": secrets.token_hex(8),
                    "run_id": run_id,
                    "started_at": now_utc(),
                    "tool": TOOL,
                    "tool_version": str(values.get("version", "")),
                    "source_file": source.name,
                    "source_digest": source.digest,
                    "benchmark": entry.get("fullname"),
                    "group": entry.get("group") or "",
                    "parameters": _scalars(entry.get("params")),
                    "extra_info": _scalars(entry.get("extra_info")),
                    "device_text": machine,
                    "statistics": {
                        "rounds": stats.get("rounds"),
                        **{f"{name}_s": stats.get(name) for name in ("min", "max", "mean", "median", "stddev", "iqr")},
                    },
                    "samples_s": (tuple(data),) if data else (),
                    "samples_reason": "" if data else _NO_SAMPLES,
                    "launches_per_sample": stats.get("iterations", 1),
                }
            )
        except (ValidationError, TypeError) as error:
            raise StoreError(f"{where}: {_said(error)}") from None
        records.append(record)
    return records


def _said(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, ")


def _check_seconds(entry: Mapping[str, Any], stats: Mapping[str, Any], where: str) -> None:
    """Refuse times that are not seconds: another unit is stated, or ``ops`` is not one over the mean."""
    for holder in (entry, stats, entry.get("options") or {}):
        unit = holder.get("unit", holder.get("units"))
        if unit is not None and unit not in ("s", "sec", "second", "seconds"):
            raise StoreError(f"{where}: unknown unit {unit!r}: pytest-benchmark saves seconds")
    mean, ops = stats.get("mean"), stats.get("ops")
    if not isinstance(mean, int | float) or not isinstance(ops, int | float):
        return
    if mean > 0 and ops > 0 and not math.isclose(mean * ops, 1.0, rel_tol=1e-6):
        raise StoreError(f"{where}: a mean of {mean:g} with {ops:g} calls per second: its times are not in seconds")


def _scalars(values: Any) -> dict[str, int | float | bool | str]:
    """The mapping with nested values as JSON text; without those that are null."""
    if not isinstance(values, dict):
        return {}
    return {
        str(key): value if isinstance(value, int | float | bool | str) else json.dumps(value)
        for key, value in values.items()
        if value is not None
    }


def _device_text(machine: Any) -> str:
    """The processor and the system, by allow-list: ``machine_info`` names the host too."""
    if not isinstance(machine, dict):
        return "unknown machine"
    cpu = machine.get("cpu")
    parts = [str(cpu[key]) for key in _CPU if cpu.get(key)][:1] if isinstance(cpu, dict) else []
    if isinstance(cpu, dict) and isinstance(cpu.get("count"), int):
        parts.append(f"{cpu['count']} processors")
    parts += [str(machine[key]) for key in ("machine", "system", "python_version") if machine.get(key)]
    return ", ".join(dict.fromkeys(parts)) or "unknown machine"
