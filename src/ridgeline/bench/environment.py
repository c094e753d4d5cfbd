"""What software and which host a run used, recorded by allow-list."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("ridgeline", "torch", "triton", "numba", "numpy")
"""Packages whose version can move a number."""

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCHINDUCTOR_MAX_AUTOTUNE", "CUDA_VISIBLE_DEVICES")
"""Environment variables worth recording; no other is read, so that no secret is stored."""


@cache
def package_versions() -> dict[str, str]:
    """Installed version of each of :data:`PACKAGES`; absent ones are left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def cpu_facts() -> dict[str, str]:
    """The first processor's fields of /proc/cpuinfo; elsewhere only the machine's name."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {"model name": platform.processor() or platform.machine()}
    block = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


@cache
def unit_hash() -> str:
    """A hash that tells this host from others without naming it."""
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        try:
            identity = path.read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if identity:
            break
    else:
        identity = platform.node()
    return hashlib.sha256(f"ridgeline unit {identity}".encode()).hexdigest()[:12]


def environment() -> dict[str, str]:
    """Versions and host facts of this run, as text by name."""
    facts = {f"version.{name}": value for name, value in package_versions().items()}
    facts |= {
        "python": platform.python_version(),
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": cpu_facts().get("model name", ""),
    }
    facts |= {f"env.{name}": os.environ[name] for name in VARIABLES if name in os.environ}
    return facts
