"""``ridgeline measure FILE.py:function``: a callable of the user's own in an isolated worker."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path
from typing import Any

import psutil
from pydantic import ValidationError

from ridgeline.analytical.device import Device
from ridgeline.analytical.work import RateKey, Work, fma_key
from ridgeline.bench.callables import Measured, describe
from ridgeline.bench.devices.unit import Unit
from ridgeline.bench.summary import time_text
from ridgeline.bench.supervisor import Supervisor
from ridgeline.bench.timing import Timing
from ridgeline.results.store import Store, StoreError
from ridgeline.workloads.suite import Settings

EXIT_CODES = {"ok": 0, "unstable": 3}
"""Other statuses are errors: 4."""


class TargetError(ValueError):
    """A function that is not there. One line: what, where, what to do."""


def parse_target(text: str) -> tuple[Path, str]:
    """``FILE.py:function`` as a path and a name that the file defines at its top level.

    Raises:
        TargetError: for another form, an unreadable file, a syntax error, or a name it does not define.
    """
    name, colon, function = text.rpartition(":")
    if not colon or not name.endswith(".py") or not function.isidentifier():
        raise TargetError(f"{text!r}: write FILE.py:function")
    path = Path(name)
    _check_defines(path, function)
    return path.resolve(), function


def _check_defines(path: Path, function: str) -> None:
    """Read, not run, the file: what it does on import happens in the worker alone."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise TargetError(f"{path}: cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise TargetError(f"{path}{f':{line}' if line else ''}: not Python: {getattr(error, 'msg', error)}") from None
    defined = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    defined |= {
        alias.asname or alias.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for alias in n.names
    }
    functions = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    if function not in defined | set(functions):
        raise TargetError(f"{path}: no function {function!r}: it defines {', '.join(functions) or 'none'}")


def make_work(flop: float | None, moved_bytes: float | None, precision: str) -> Work | None:
    """The work of one call from its totals; ``None`` where none was stated.

    Raises:
        TargetError: for an amount that is not positive.
    """
    for name, amount in (("--flop", flop), ("--bytes", moved_bytes)):
        if amount is not None and not 0.0 < amount < float("inf"):
            raise TargetError(f"{name}: {amount:g} is no amount of work: give a positive number")
    if flop is None and moved_bytes is None:
        return None
    operations: dict[RateKey, float] = {fma_key(precision): flop} if flop is not None else {}
    return Work(operations, {"activations": moved_bytes} if moved_bytes is not None else {})


def make_settings(target_percent: float, budget_s: float, timeout_s: float) -> Settings:
    """Settings of one measurement.

    Raises:
        TargetError: for a number that cannot be; names the option.
    """
    try:
        return Settings(target_relative=target_percent / 100.0, budget_s=budget_s, timeout_s=timeout_s)
    except ValidationError as error:
        first = error.errors()[0]
        name = {"target_relative": "--target", "budget_s": "--budget", "timeout_s": "--timeout"}[str(first["loc"][0])]
        raise TargetError(f"{name}: {first['msg']}") from None


def newest_roofs(store: Store, unit: Unit) -> Device | None:
    """The ceilings of the newest finished run in which this device's roofs were measured."""
    try:
        for run in store.runs():
            if run.state == "finished" and run.device == unit.device.id:
                device = store.device(run.run_id)
                measured = device.select(("measured",), unit.threads)
                if measured.rates or measured.bandwidths:
                    return device
    except StoreError:
        return None  # the callable can be measured without roofs
    return None


def run_callable(
    unit: Unit,
    path: Path,
    function: str,
    *,
    arguments: str | None,
    settings: Settings,
    work: Work | None,
    roofs: Device | None,
) -> tuple[str, str, Measured | None]:
    """Status, reason and, where it was timed, the result of a function measured in a worker of its own."""
    limit = settings.memory_limit_bytes or 0.75 * psutil.virtual_memory().available
    request = {
        "unit": unit.spec,
        "callable": {"file": str(path), "function": function, "arguments": arguments},
        "threads": unit.threads,
        "settings": settings.model_dump(),
    }
    with Supervisor(settings.timeout_s, limit) as supervisor:
        fields = supervisor.run(request).fields
    status, reason = str(fields["status"]), str(fields["reason"])
    if status not in EXIT_CODES:
        return status, reason, None
    timing = Timing.from_fields(fields)
    return status, reason, describe(timing, unit.device.id, unit.timer, unit.threads, work, roofs)


def print_measured(target: str, status: str, reason: str, measured: Measured | None, as_json: bool) -> None:
    """One line a person reads and the detail under it, or one JSON document."""
    if as_json:
        document: dict[str, Any] = {"target": target, "status": status, "reason": reason}
        if measured is not None:
            fields = {f.name: getattr(measured, f.name) for f in dataclasses.fields(measured)}
            fields["conditions"] = [block.model_dump() for block in measured.conditions]
            fields["left_out"] = [block.model_dump() for block in measured.left_out]
            document |= fields
        print(json.dumps(document, indent=1, allow_nan=False))
        return
    if measured is None:
        print(f"{target}: {status}: {reason}")
        return
    half = measured.half_width_relative
    spread = "no interval" if half is None else f"± {half:.1%}"
    print(f"{target}: {time_text(measured.median_s)} {spread}" + (f"  ({status}: {reason})" if reason else ""))
    samples = sum(len(block) for block in measured.samples_s)
    print(
        f"  {samples} samples of {measured.calls_per_sample} calls in {len(measured.samples_s)} blocks, "
        f"{measured.threads} threads, {measured.timer}, arguments as called, results not checked"
    )
    if measured.left_out:
        causes = ", ".join(sorted({block.cause for block in measured.left_out}))
        print(f"  {len(measured.left_out)} blocks left out: {causes}")
    rates = [
        f"{rate / 1e9:.4g} {name}"
        for rate, name in ((measured.flop_per_s, "GFLOP/s"), (measured.bytes_per_s, "GB/s"))
        if rate is not None
    ]
    if measured.roof_fraction is not None:
        rates.append(f"{measured.roof_fraction:.0%} of the measured roof, bound by {measured.bound_by}")
    if rates:
        print(f"  {', '.join(rates)}")
