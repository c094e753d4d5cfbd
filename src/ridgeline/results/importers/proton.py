"""Proton, Triton's profiler: the tree that ``proton.finalize()`` writes (``NAME.hatchet``, hatchet's literal JSON).

A list of the tree's root and a description of the devices. A node has a frame, children and metrics; the leaves are
kernels, whose ``time (ns)`` is the sum over ``count`` launches. ``bytes`` and ``flops`` in it are what the kernel's
author states, not what was counted, so they are not read. Format: ``third_party/proton/README.md`` of Triton, and
``triton/profiler/viewer.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ridgeline.results.counters import LaunchCounters
from ridgeline.results.durable import StoreError
from ridgeline.results.importers.source_file import SourceFile
from ridgeline.results.importers.trace import Trace, launch
from ridgeline.results.importers.units import SECONDS

_MADE_BY = "not of Proton: make it with triton.profiler (proton.start ... proton.finalize), data='tree'"
_METADATA = "__proton_launch_metadata"
"""Frames of kernels that compute what other kernels' authors state."""
_TIME = re.compile(r"time \((.*)\)")


def read_proton(source: SourceFile) -> Trace:
    """Read a tree.

    Raises:
        StoreError: where the file is no such tree, is cut off, or has a time of unknown unit.
    """
    origin, values = str(source.path), source.json()
    if not isinstance(values, list) or not values or not isinstance(values[0], dict) or "frame" not in values[0]:
        raise StoreError(f"{origin}: {_MADE_BY}")
    kernels: dict[str, list[LaunchCounters]] = {}
    for name, metrics in _leaves(values[0], origin):
        for key, value in metrics.items():
            unit = _TIME.fullmatch(key)
            if unit is None:
                continue
            where = f"{origin}: {name}: {key}"
            if unit.group(1) not in SECONDS:
                raise StoreError(f"{where}: unknown unit {unit.group(1)!r}: one of {', '.join(SECONDS)}")
            count = metrics.get("count")
            if not isinstance(value, int | float) or not isinstance(count, int | float) or count != int(count):
                raise StoreError(f"{where}: needs a number, and a whole count beside it")
            entry = launch(where, launches=int(count), kernel_s=value * SECONDS[unit.group(1)])
            kernels.setdefault(name, []).append(entry)
    if not kernels:
        raise StoreError(
            f"{origin}: no kernel with a time in it: profile on a GPU, with hook='triton' or without a hook"
        )
    return Trace("proton", kernels, ("times are Proton's sums over all launches of a kernel",))


def _leaves(root: dict[str, Any], origin: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and metrics of every node that has metrics and no children; a stack, since the tree may be deep."""
    stack: list[Any] = [root]
    while stack:
        node = stack.pop()
        try:
            name, metrics, children = node["frame"]["name"], node["metrics"], node.get("children", [])
            if not (isinstance(name, str) and isinstance(metrics, dict) and isinstance(children, list)):
                raise TypeError
        except (KeyError, TypeError, AttributeError):
            raise StoreError(f"{origin}: a node without frame, name or metrics: {_MADE_BY}") from None
        if name.startswith(_METADATA):
            continue
        stack += reversed(children)
        if not children:
            yield name, metrics
