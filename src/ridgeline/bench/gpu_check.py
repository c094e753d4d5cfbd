"""``make gpu-check``: every CUDA path on a few cases, in a report to attach to an issue.

Each check runs in a process of its own, so that a fault that spoils the CUDA context spoils one check: first those of the
harness, one after the other, then every kernel against its float64 reference, several at a time. Without a GPU it says so in
one line and exits 2; where a check failed it exits 4.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ridgeline.bench.gpu_kernels import KernelCheck, kernel_checks, kernel_errors

LIMIT_S = 180.0
"""Longest check, compilation included."""
REPORT = "gpu-check"
MOST_AT_A_TIME = 14
"""Kernels that are checked at a time: most of a check is compiling on the host, and each holds half a gigabyte of the card."""


@dataclass(frozen=True)
class Checked:
    """What became of one check."""

    name: str
    state: Literal["passed", "failed", "not possible here"]
    detail: str
    seconds: float = 0.0
    values: Mapping[str, Any] = field(default_factory=dict)


class NotPossibleError(Exception):
    """A check that this machine does not allow; the text says why."""


def _opened(argument: str = "0") -> tuple[Any, Any]:
    import torch

    from ridgeline.bench.devices.cuda_session import open_cuda

    return torch, open_cuda(argument)


def _matmul(torch: Any, size: int = 1024) -> Callable[[int], None]:
    a = torch.randn(size, size, device="cuda", dtype=torch.float16)
    out = torch.empty_like(a)

    def launch(count: int) -> None:
        for _ in range(count):
            torch.mm(a, a, out=out)

    launch(3)
    return launch


def check_events() -> dict[str, Any]:
    """Times grow with the work, and the launch is hidden."""
    torch, session = _opened()
    launch = _matmul(torch)
    session.timer.block(launch, 10, 8)
    session.timer.take_exposed()
    one = statistics.median(session.timer.block(launch, 10, 16)) / 10
    many = statistics.median(session.timer.block(launch, 40, 16)) / 40
    exposed = session.timer.take_exposed()
    assert 0.8 < one / many < 1.25, f"10 launches take {one:.3g} s each, 40 take {many:.3g} s each"
    assert exposed == 0, f"{exposed} chunks had their launches exposed"
    return {"seconds_of_10": one, "seconds_of_40": many, "exposed": exposed}


def check_graph() -> dict[str, Any]:
    """Replayed graphs agree with events on a kernel that is longer than its launch."""
    torch, session = _opened("0:graph")
    launch = _matmul(torch, 2048)
    graph = statistics.median(session.timer.block(launch, 10, 8)) / 10
    from ridgeline.bench.devices.cuda_session import open_cuda

    events = statistics.median(open_cuda("0").timer.block(launch, 10, 8)) / 10
    assert 0.8 < graph / events < 1.25, f"graph {graph:.3g} s, events {events:.3g} s"
    return {"graph_s": graph, "events_s": events}


def check_watch() -> dict[str, Any]:
    """Clocks, power and limits are seen during a block."""
    from ridgeline.bench.devices.cuda_watch import CardWatch

    torch, session = _opened()
    if not isinstance(session.watch, CardWatch):
        raise NotPossibleError(session.watch.reason)
    launch = _matmul(torch, 2048)
    session.watch.begin()
    session.timer.block(launch, 20, 32)
    seen = session.watch.end()
    assert seen.conditions.clock_mhz, "no SM clock was seen"
    return {"cause": seen.cause, **seen.conditions.model_dump(exclude_none=True)}


def check_profile() -> dict[str, Any]:
    """The profiler counts one kernel or two for a matmul, and leaves the event timer as it was."""
    torch, session = _opened()
    launch = _matmul(torch, 2048)
    before = statistics.median(session.timer.block(launch, 10, 16)) / 10
    found = dict(session.profile(launch))
    if not found:
        raise NotPossibleError("torch's profiler saw no kernels (CUPTI missing or not permitted)")
    after = statistics.median(session.timer.block(launch, 10, 16)) / 10
    assert 1 <= found["kernels_per_launch"] <= 2, found
    assert 0.5 < found["kernel_s"] / before < 1.25, f"kernel_s {found['kernel_s']:.3g}, events {before:.3g}"
    return {**found, "events_before_s": before, "events_after_s": after}


def check_memory() -> dict[str, Any]:
    """The largest allocation is that of the case."""
    torch, session = _opened()
    session.use(1)
    held = torch.empty(64 * 2**20, dtype=torch.uint8, device="cuda")
    peak = session.peak_memory_bytes()
    assert peak is not None
    assert 0.9 <= peak / held.numel() <= 1.1, f"{peak:.0f} bytes for {held.numel()}"
    return {"peak_memory_bytes": peak}


def check_out_of_memory() -> dict[str, Any]:
    """Too large an allocation is an error that the worker knows, and the card is usable after it."""
    torch, session = _opened()
    try:
        torch.empty(2**46, dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError as error:
        session.synchronize()
        return {"message": str(error).splitlines()[0]}
    raise AssertionError("64 TiB were allocated")


def check_illegal_address() -> dict[str, Any]:
    """A kernel that writes where it may not is an error when it is waited for, and spoils only this process."""
    import triton
    import triton.language as tl

    torch, session = _opened()

    @triton.jit
    def write_far(pointer, BLOCK: tl.constexpr):
        tl.store(pointer + (1 << 45) + tl.arange(0, BLOCK), 1.0)

    write_far[(1,)](torch.empty(128, device="cuda"), BLOCK=128)
    try:
        session.synchronize()
    except RuntimeError as error:
        return {"class": type(error).__name__, "message": str(error).splitlines()[0]}
    raise AssertionError("the illegal write was not noticed")


def check_roofs() -> dict[str, Any]:
    """Bandwidth of main memory and the float32 and bfloat16 rates, through the whole pipeline, stay under physics."""
    import tempfile

    from ridgeline.bench.devices.choose import choose_unit
    from ridgeline.bench.plan import Plan
    from ridgeline.bench.roofs import roof_cases
    from ridgeline.bench.run import run_plan
    from ridgeline.bench.time_shares import ROOF_SETTINGS
    from ridgeline.kernels.registry import load
    from ridgeline.results.measurement import Measurement
    from ridgeline.results.store import Store

    load()
    cases = [
        c
        for c in roof_cases(choose_unit("cuda"))
        if c.problem.label.startswith(("read", "vector float32", "matrix bf"))
    ]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        run = run_plan(
            Plan("gpu-check", (), ROOF_SETTINGS, (), tuple(cases)), choose_unit("cuda"), store, lambda *_: None
        )
        records = [r for r in store.records(run)[0] if isinstance(r, Measurement)]
    wrong = [
        f"{r.operator} {r.problem_label}: {r.status}: {r.reason}" for r in records if r.status not in ("ok", "unstable")
    ]
    assert records, "no roof was measured"
    assert not wrong, "; ".join(wrong)
    return {r.problem_label: statistics.median(sum(r.used_samples_s, ())) for r in records}


def check_energy() -> dict[str, Any]:
    """The card's energy counter runs, where the energy meters are part of this version."""
    try:
        from ridgeline.bench.energy.nvml import NvmlSource  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise NotPossibleError("this version has no energy meters") from None
    torch, _ = _opened()
    source = NvmlSource(str(torch.cuda.get_device_properties(0).uuid))
    try:
        before = source.energy_j()
        launch = _matmul(torch, 4096)
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            launch(10)
            torch.cuda.synchronize()
        joules = source.energy_j() - before
    finally:
        source.close()
    assert joules > 0.0, "the counter did not move in a second of matmuls"
    return {"joules_in_a_second": joules}


def check_kernel(check: KernelCheck) -> dict[str, Any]:
    """Its outputs agree with the float64 reference."""
    from ridgeline.bench.paper_checks.lab import open_lab
    from ridgeline.kernels.registry import Unsupported

    try:
        with open_lab("cuda") as lab:
            return kernel_errors(lab, check)
    except Unsupported as refused:
        raise NotPossibleError(str(refused)) from None


CHECKS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "event timer": check_events,
    "graph timer": check_graph,
    "watch": check_watch,
    "profile": check_profile,
    "peak memory": check_memory,
    "out of memory": check_out_of_memory,
    "illegal address": check_illegal_address,
    "roofs": check_roofs,
    "energy": check_energy,
}


def check_named(name: str) -> Callable[[], dict[str, Any]]:
    """One of :data:`CHECKS`, or the check of a kernel."""
    return partial(check_kernel, KernelCheck.named(name)) if "/" in name else CHECKS[name]


def run_check(name: str) -> Checked:
    """One check in a process of its own."""
    began = time.monotonic()
    command = [sys.executable, "-m", "ridgeline.bench.gpu_check", "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return Checked(name, "failed", f"no answer within {LIMIT_S:.0f} s", LIMIT_S)
    return read_check(name, done.returncode, done.stdout, done.stderr, time.monotonic() - began)


def read_check(name: str, code: int, output: str, errors: str, seconds: float) -> Checked:
    """What the process of a check said on its last line, or how it died."""
    try:
        said = json.loads(output.strip().splitlines()[-1])
        return Checked(name, said["state"], said["detail"], seconds, said["values"])
    except (IndexError, ValueError, KeyError, TypeError):
        words = (errors.strip().splitlines() or ["no words"])[-1]
        return Checked(name, "failed", f"the process ended with code {code}: {words[:300]}", seconds)


def one(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a check here; every outcome is an answer."""
    says = check_kernel if isinstance(check, partial) else check
    try:
        return {"state": "passed", "detail": (says.__doc__ or "").strip(), "values": check()}
    except NotPossibleError as error:
        return {"state": "not possible here", "detail": str(error), "values": {}}
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        return {"state": "failed", "detail": f"{type(error).__name__}: {first}", "values": {}}


def markdown(facts: Mapping[str, str], checks: Sequence[Checked]) -> str:
    """The report."""
    lines = ["# GPU check", "", "| fact | value |", "|---|---|", *(f"| {k} | {_cell(v)} |" for k, v in facts.items())]
    lines += ["", "| check | state | seconds | detail |", "|---|---|---|---|"]
    lines += [f"| {c.name} | {c.state} | {c.seconds:.1f} | {_cell(c.detail)} |" for c in checks]
    for check in checks:
        if check.values:
            lines += ["", f"**{check.name}**", "", *(f"- {key}: {value}" for key, value in check.values.items())]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(arguments: Sequence[str]) -> int:
    """Run one check (``--one NAME``) or all of them; returns the exit code."""
    if arguments[:1] == ["--one"]:
        print(json.dumps(one(check_named(arguments[1])), default=str))
        return 0
    from ridgeline.bench.devices.choose import choose_unit
    from ridgeline.bench.devices.unit import UnitError
    from ridgeline.bench.environment import environment

    try:
        unit = choose_unit("cuda")
    except UnitError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    facts = {"card": unit.device.name, **unit.facts(), **environment()}
    checks = _told(map(run_check, CHECKS))
    with ThreadPoolExecutor(min(MOST_AT_A_TIME, os.cpu_count() or 1)) as several:
        waiting = [several.submit(run_check, check.name) for check in kernel_checks("cuda")]
        checks += sorted(_told(done.result() for done in as_completed(waiting)), key=lambda check: check.name)
    Path(f"{REPORT}.md").write_text(markdown(facts, checks), encoding="utf-8")
    document = {"facts": facts, "checks": [asdict(check) for check in checks]}
    Path(f"{REPORT}.json").write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")
    print(f"wrote {REPORT}.md and {REPORT}.json")
    return 4 if any(check.state == "failed" for check in checks) else 0


def _told(checks: Iterable[Checked]) -> list[Checked]:
    """The checks, each printed as it comes."""
    told = []
    for check in checks:
        print(f"{check.name}: {check.state}: {check.detail}", flush=True)
        told.append(check)
    return told


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
