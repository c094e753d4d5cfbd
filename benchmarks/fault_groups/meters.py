"""Faults of an energy meter: the real pynvml on a library that fails at a chosen moment, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pynvml
from fake_nvml import UUID, FakeNvml, VirtualCard, build

from fault_groups.command import Ridgeline
from fault_groups.outcome import Outcome, judge
from ridgeline.bench.energy.choose import choose_source
from ridgeline.bench.energy.meter import measure_energy
from ridgeline.results.energy import EnergyFacts

GROUP = "energy meter"
COUNTER = "nvmlDeviceGetTotalEnergyConsumption"
CODES = ("GPU_IS_LOST", "LIB_RM_VERSION_MISMATCH", "NO_PERMISSION", "NOT_SUPPORTED", "UNKNOWN", "TIMEOUT")


def _measure(fake: FakeNvml) -> EnergyFacts:
    card = VirtualCard(fake)
    source = choose_source("nvml", UUID, clock=card.clock)
    try:
        return measure_energy(
            source, card.launch, card.launch_s, synchronize=card.synchronize, budget_s=20.0, clock=card.clock,
            sleep=card.sleep,
        )  # fmt: skip
    finally:
        source.close()


def outcomes(ridgeline: Ridgeline, folder: Path) -> Iterator[Outcome]:
    """A code at the start, one on the way, and sensors that lie."""
    fake = FakeNvml(build(folder))
    failing: dict[str, Callable[[], None]] = {}
    for name in CODES:
        code = getattr(pynvml, f"NVML_ERROR_{name}")
        failing[f"{name} at the start"] = lambda code=code: fake.fault("nvmlInitWithFlags", code)  # type: ignore[misc]
        if name in ("GPU_IS_LOST", "UNKNOWN"):
            failing[f"{name} on the way"] = lambda code=code: [  # type: ignore[misc]
                fake.fault(f, code, 12.0)
                for f in (COUNTER, "field186", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetFieldValues")
            ]
    for fault, inject in failing.items():
        fake.reset()
        inject()
        facts = _measure(fake)
        yield judge(
            GROUP, fault, facts.reason or f"{facts.method}, quality {facts.quality}", no_joules=facts.gross_j is None,
            a_reason=bool(facts.reason_code and facts.reason),
        )  # fmt: skip
    fake.disable()
