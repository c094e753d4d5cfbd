"""The doctor: what this machine can measure and what not, each with its one-line remedy."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from ridgeline.bench.devices.cpu import available_threads, detect
from ridgeline.bench.environment import package_versions

State = Literal["ok", "missing", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    detail: str
    remedy: str = ""
    """What to do about it; empty when nothing is needed."""


def examine() -> list[Finding]:
    """Look at everything; takes about two seconds, most of them for the noise."""
    return [check() for check in CHECKS]


def _processor() -> Finding:
    cpu = detect()
    caches = ", ".join(f"{m.name} {m.capacity_bytes / 2**20:.3g} MiB" for m in cpu.device.memory[:-1])
    detail = f"{cpu.device.name}; {caches or 'caches unknown'}"
    if cpu.device.rates and cpu.device.rates[0].kind == "assumed":
        return Finding(
            "processor",
            "warning",
            f"{detail}; its core is in no file of ours, so `impossible` is judged by a loose assumption",
            "add a file for it in analytical/hardware/cores",
        )
    return Finding("processor", "ok", detail)


def _threads() -> Finding:
    usable, all_of_them = available_threads(), os.cpu_count() or 1
    if usable < all_of_them:
        return Finding(
            "threads",
            "warning",
            f"{usable} of {all_of_them} processors may be used",
            "run without taskset or a CPU limit",
        )
    return Finding("threads", "ok", f"{usable}")


def _compiler() -> Finding:
    from ridgeline.kernels.native.build import NativeBuildError, compiler

    try:
        return Finding("C++ compiler", "ok", " ".join(compiler()))
    except NativeBuildError as error:
        return Finding("C++ compiler", "missing", str(error), "apt-get install g++, or set CXX")


def _packages() -> Finding:
    versions = package_versions()
    absent = [name for name in ("torch", "triton", "numba") if name not in versions]
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    if absent:
        return Finding("kernel packages", "missing", f"{text}; no {', '.join(absent)}", "pip install 'ridgeline[run]'")
    return Finding("kernel packages", "ok", text)


def _gpu() -> Finding:
    from ridgeline.bench.devices.cuda import identified
    from ridgeline.bench.devices.cuda_probe import probe, something_there

    if importlib.util.find_spec("torch") is None:
        return Finding("GPU", "missing", "torch is not installed, so none can be used", "pip install 'ridgeline[run]'")
    if not something_there():
        return Finding("GPU", "missing", "none; Triton kernels are shown as unsupported", "run on a machine with one")
    probed = probe()
    if not probed.cards:
        return Finding("GPU", "missing", f"a card is there, but {probed.reason}", "make run TORCH=system")
    names = ", ".join(f"cuda:{card.index} {card.name} ({card.architecture})" for card in probed.cards)
    unknown = {found.reason for found in map(identified, probed.cards) if found.id is None}
    if unknown:
        return Finding(
            "GPU",
            "warning",
            f"{names}; {'; '.join(sorted(unknown))}, so `impossible` cannot be judged there",
            "describe it in a TOML file of the folder that RIDGELINE_DEVICES names: docs/add-a-device.md",
        )
    return Finding("GPU", "ok", names)


def _nvml() -> Finding:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Finding("NVML", "missing", str(error), "install the NVIDIA driver, on a machine with a card")
    try:
        count = pynvml.nvmlDeviceGetCount()
        version = pynvml.nvmlSystemGetDriverVersion()
        return Finding("NVML", "ok", f"driver {version}, {count} devices")
    except pynvml.NVMLError as error:
        return Finding("NVML", "missing", str(error), "check the driver with nvidia-smi")
    finally:
        pynvml.nvmlShutdown()


def _energy() -> Finding:
    from ridgeline.bench.energy.choose import meters_seen

    seen = meters_seen()
    working = [f"{meter.meter} ({meter.scope})" for meter in seen if not meter.reason]
    missing = "; ".join(f"{meter.meter}: {meter.reason}" for meter in seen if meter.reason)
    if working:
        return Finding("energy meter", "ok", ", ".join(working) + (f"; {missing}" if missing else ""))
    granted = [meter.reason.partition(": ")[2] for meter in seen if "sudo " in meter.reason]
    return Finding(
        "energy meter", "missing", missing, granted[0] if granted else "measure on bare metal with RAPL, or on a GPU"
    )


def _noise() -> Finding:
    """What precision this machine gives just now."""
    from ridgeline.bench.noise import CASE_S, measure_noise

    noise = measure_noise()
    precision = (
        "no interval could be had"
        if noise.precision_relative is None
        else f"a case of {CASE_S:g} s can be known to ±{noise.precision_relative:.2%}"
    )
    stolen = "" if noise.steal_s is None else f"; {noise.steal_s:.2f} s stolen"
    detail = (
        f"{precision}; middle 80 % of a fixed loop's blocks spread over {noise.spread_relative:.1%}{stolen}; "
        f"load {noise.load:.1f}"
    )
    if noise.left_out_share > 0.0:
        detail += f"; {noise.left_out_share:.0%} of blocks shaped by {' and '.join(noise.causes)}"
    noisy = noise.precision_relative is None or noise.precision_relative > 0.02 or noise.left_out_share > 0.2
    if noisy or noise.spread_relative > 0.10 or noise.load > available_threads():
        return Finding("noise", "warning", detail, "stop other programs; expect `unstable` results until then")
    return Finding("noise", "ok", detail)


def _foreign_kernels() -> Finding:
    spec = importlib.util.find_spec("kernels")
    if spec is None or spec.origin is None:
        return Finding("package `kernels`", "ok", "none installed")
    if Path(spec.origin).resolve().is_relative_to(Path(__file__).resolve().parents[1]):
        return Finding(
            "package `kernels`",
            "warning",
            "the top-level link of this repository is importable as `kernels`",
            "run python from outside the repository, or with -P, where you need Hugging Face's package",
        )
    return Finding("package `kernels`", "ok", f"{spec.origin} (another package; Ridgeline's is ridgeline.kernels)")


def _store() -> Finding:
    from ridgeline.results.store import Store

    path = Store().path
    parent = path if path.exists() else path.absolute().parent
    if not os.access(parent, os.W_OK):
        return Finding("store", "missing", f"{path} cannot be written", "choose another: --store or RIDGELINE_STORE")
    free = psutil.disk_usage(str(parent)).free
    if free < 1e9:
        return Finding("store", "warning", f"{path}: {free / 1e9:.2f} GB free", "free some space")
    return Finding("store", "ok", f"{path}, {free / 1e9:.0f} GB free")


CHECKS: tuple[Callable[[], Finding], ...] = (
    _processor, _threads, _compiler, _packages, _gpu, _nvml, _energy, _noise, _foreign_kernels, _store,
)  # fmt: skip


def print_findings(findings: list[Finding], as_json: bool) -> None:
    """Print a table, or one JSON document."""
    if as_json:
        print(json.dumps([dataclasses.asdict(f) for f in findings], indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    style = {"ok": "green", "missing": "yellow", "warning": "red"}
    table = Table()
    for column in ("what", "state", "found", "remedy"):
        table.add_column(column, overflow="fold")
    for f in findings:
        table.add_row(
            f.what, f"[{style[f.state]}]{f.state}[/]", f.detail.replace("[", r"\["), f.remedy.replace("[", r"\[")
        )
    (Console() if sys.stdout.isatty() else Console(width=160)).print(table)
