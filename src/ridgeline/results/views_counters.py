"""Measured bytes beside modelled ones: counters of profiles, joined to the measurements of the same kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ridgeline.analytical.quantities import canonical_json
from ridgeline.results.counters import Counters, LaunchCounters
from ridgeline.results.durable import StoreError
from ridgeline.results.store import Store

COUNTERS_SUFFIX = "-counters"
"""How the id of a run that holds a profile ends: joining need not open all others."""

COUNTER_NUMBERS = (
    "dram_bytes_measured",
    "l2_bytes_measured",
    "dram_bytes_ratio",
    "l2_hit_percent",
    "occupancy_percent",
    "issue_percent",
    "profiled_kernel_s",
)
"""Columns that are numbers: bytes and seconds of one call, ``dram_bytes_measured / bytes``, and percentages."""

COUNTER_NAMES = ("counter_tools",)
"""The profilers that the numbers are of."""


def all_counters(store: Store) -> list[Counters]:
    """The profiles of the store, from the oldest to the newest; damaged ones are left to :meth:`Store.records`.

    Raises:
        StoreError: where the store cannot be read.
    """
    found: list[Counters] = []
    for folder in sorted((store.path / "runs").glob(f"*{COUNTERS_SUFFIX}")):
        try:
            records, _ = store.records(folder.name)
        except StoreError:
            continue
        found += [record for record in records if isinstance(record, Counters)]
    return found


def figures(counters: Counters) -> dict[str, float | None]:
    """Figures of one call: bytes and seconds summed over its kernels, percentages weighted by the kernels' time.

    ``None`` where one launch of one kernel lacks the figure: a sum without it would be too small.
    """
    launches = [launch for kernel in counters.kernels for launch in kernel.launches]

    def per_call(value: Callable[[LaunchCounters], float | None]) -> float | None:
        values = [value(launch) for launch in launches]
        return None if None in values else sum(v for v in values if v is not None) / counters.calls

    def weighted(value: Callable[[LaunchCounters], float | None]) -> float | None:
        timed = all(launch.kernel_s is not None for launch in launches)
        weights = [(launch.kernel_s or 0.0) if timed else float(launch.launches) for launch in launches]
        values = [value(launch) for launch in launches]
        if None in values:
            return None
        return sum(v * w for v, w in zip(values, weights, strict=True) if v is not None) / sum(weights)

    return {
        "dram_bytes_measured": per_call(lambda launch: launch.dram_bytes),
        "l2_bytes_measured": per_call(lambda launch: launch.l2_bytes),
        "l2_hit_percent": weighted(lambda launch: launch.l2_hit_percent),
        "occupancy_percent": weighted(lambda launch: launch.occupancy_percent),
        "issue_percent": weighted(lambda launch: launch.issue_percent),
        "profiled_kernel_s": per_call(lambda launch: launch.kernel_s),
    }


def join_counters(rows: Iterable[dict[str, Any]], profiles: Iterable[Counters]) -> None:
    """Fill :data:`COUNTER_NUMBERS` and :data:`COUNTER_NAMES` of rows of measurements, ``None`` where nothing counted.

    Of several profiles of a kernel, the newest that holds a figure gives it.
    """
    by_case: dict[str, list[Counters]] = {}
    by_kernel: dict[str, list[Counters]] = {}
    for profile in profiles:
        if profile.case_id:
            by_case.setdefault(profile.case_id, []).append(profile)
        else:
            key = _key(profile.operator, profile.implementation, profile.problem, profile.device)
            by_kernel.setdefault(key, []).append(profile)
    for row in rows:
        row.update(dict.fromkeys((*COUNTER_NUMBERS, *COUNTER_NAMES)))
        if not by_case and not by_kernel:
            continue
        key = _key(row["operator"], row["implementation"], row["problem"], row["device"])
        tools: dict[str, None] = {}
        # By the case last: it says more than the kernel alone.
        for profile in (*by_kernel.get(key, ()), *by_case.get(row["case_id"], ())):
            held = {name: value for name, value in figures(profile).items() if value is not None}
            row.update(held)
            tools.update(dict.fromkeys([profile.tool] if held else []))
        row["counter_tools"] = ", ".join(tools) or None
        if row["dram_bytes_measured"] is not None and row["bytes"]:
            row["dram_bytes_ratio"] = row["dram_bytes_measured"] / row["bytes"]


def _key(operator: str, implementation: str, problem: Any, device: str) -> str:
    return canonical_json([operator, implementation, problem, device])
