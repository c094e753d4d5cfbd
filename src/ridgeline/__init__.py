"""Ridgeline: benchmarking and roofline analysis of inference kernels.

The names a user's script needs are loaded on first use, so that ``import ridgeline`` costs nothing and the analysis,
the store and the dashboard work where torch is not installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Device": "ridgeline.analytical.device",
    "Problem": "ridgeline.analytical.problem",
    "Work": "ridgeline.analytical.work",
    "measure": "ridgeline.bench.callables",
    "implementation": "ridgeline.kernels.registry",
    "operator": "ridgeline.kernels.registry",
    "Store": "ridgeline.results.store",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ridgeline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
