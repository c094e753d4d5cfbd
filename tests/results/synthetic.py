"""Synthetic devices, records and stores with known answers, for the tests of results and of the dashboard."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from ridgeline.analytical.ceilings import Bandwidth, Rate, Source
from ridgeline.analytical.device import Device, MemoryLevel
from ridgeline.results.measurement import Measurement
from ridgeline.results.run import RunManifest
from ridgeline.results.store import Store, new_run_id

MEASURED = Source(title="measured by ridgeline", detail="synthetic", date="2026-11-22")
SHEET = Source(title="synthetic data sheet", detail="table 1")
_numbers = itertools.count()


def rate(value: float, low: float | None = None, high: float | None = None, **overrides: Any) -> Rate:
    """A float32 vector rate, operations per second."""
    return Rate(
        **{
            "unit": "vector",
            "a": "float32",
            "b": "float32",
            "accumulator": "float32",
            "value_per_s": value,
            "low_per_s": value if low is None else low,
            "high_per_s": value if high is None else high,
            "kind": "measured",
            "source": MEASURED,
            **overrides,
        }
    )


def bandwidth(level: str, value: float, low: float | None = None, high: float | None = None, **more: Any) -> Bandwidth:
    """A bandwidth, bytes per second."""
    return Bandwidth(
        **{
            "level": level,
            "value_per_s": value,
            "low_per_s": value if low is None else low,
            "high_per_s": value if high is None else high,
            "kind": "measured",
            "source": MEASURED,
            **more,
        }
    )


def make_device(**overrides: Any) -> Device:
    """Two cores: L1 32 KiB a core, L2 2 MiB, DRAM. For 2 threads measured: 1e11 FLOP/s, L2 1e11 B/s, DRAM 1e10 B/s.

    Physical ceilings are twice the measured ones.
    """
    values: dict[str, Any] = {
        "id": "synthetic-cpu",
        "name": "Synthetic CPU",
        "vendor": "Nobody",
        "kind": "cpu",
        "memory": (
            MemoryLevel(name="L1", capacity_bytes=32768.0, per_core=True),
            MemoryLevel(name="L2", capacity_bytes=2.0 * 2**20),
            MemoryLevel(name="DRAM", capacity_bytes=2.0**34),
        ),
        "rates": (
            rate(1e11, 0.9e11, 1.1e11, threads=2),
            rate(2e11, kind="derived", source=SHEET),
        ),
        "bandwidths": (
            bandwidth("L2", 1e11, threads=2),
            bandwidth("DRAM", 1e10, 0.8e10, 1.2e10, access="copy", threads=2),
            bandwidth("L2", 2e11, kind="derived", source=SHEET),
            bandwidth("DRAM", 2e10, kind="datasheet", source=SHEET),
        ),
        **overrides,
    }
    return Device(**values)


def blocks(median_s: float, spread: float = 0.01, n_blocks: int = 7) -> tuple[tuple[float, ...], ...]:
    """Blocks of three samples whose medians spread evenly over median_s * (1 -+ spread), in an order without trend."""
    middle = n_blocks // 2
    offsets = [(i - middle) / max(middle, 1) * spread for i in range(n_blocks)]
    shuffled = [offsets[(i * 3 + 1) % n_blocks] for i in range(n_blocks)] if n_blocks % 3 else offsets
    return tuple((median_s * (1 + o) * 0.999, median_s * (1 + o), median_s * (1 + o) * 1.2) for o in shuffled)


def make_measurement(**overrides: Any) -> Measurement:
    """An ``ok`` float32 gemm of 512^3, two threads, cold, 10 ms; ``status`` of a failure drops the samples."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "record_id": f"record-{number:06d}",
        "run_id": "20261122T000000Z-00000000",
        "started_at": "2026-11-22T00:00:00+00:00",
        "case_id": f"case-{number:06d}",
        "content_key": "content",
        "operator": "gemm",
        "implementation": "torch-matmul",
        "problem": {"m": 512, "n": 512, "k": 512, "precision": "float32"},
        "problem_label": "512x512x512 float32",
        "papers": ("roofline",),
        "placement": {"device": "synthetic-cpu", "torch_device": "cpu", "unit": "unit0"},
        "protocol": {"timer": "perf_counter", "cache": "cold", "threads": 2, "version": 1},
        "status": "ok",
        "energy_reason": "no meter",
    }
    status = overrides.get("status", "ok")
    if status in ("ok", "unstable", "impossible"):
        values |= {
            "samples_s": blocks(0.01),
            "error_relative": 1e-7,
            "error_worst": 1e-6,
            "error_tolerance": 1e-5,
            "rows_checked": 512,
            "prepare_s": 0.5,
            "working_set_bytes": 3.0 * 512 * 512 * 4,
            "peak_memory_bytes": 1e8,
        }
    if status != "ok":
        values["reason"] = f"synthetic {status}"
    return Measurement(**{**values, **overrides})


def make_manifest(**overrides: Any) -> RunManifest:
    """A manifest of a run of three measurements with a fresh run id."""
    values: dict[str, Any] = {
        "run_id": new_run_id(),
        "suite": "synthetic",
        "plan_digest": "plan0",
        "planned": 3,
        "created_at": "2026-11-22T00:00:00+00:00",
        "device": "synthetic-cpu",
        "device_name": "Synthetic CPU",
        "environment": {"torch": "2.13.0"},
        **overrides,
    }
    return RunManifest(**values)


def make_run(store: Store, index: int = 0, finish: bool = True) -> str:
    """A run of three cases in two processes each: the baseline, one about 1.25 times as fast, one that crashes."""
    manifest = make_manifest(planned=6, plan_digest=f"plan{index}")
    with store.create(manifest, make_device()) as writer:
        for process in range(2):
            for implementation, status, time_s in (
                ("torch-matmul", "ok", 0.0100),
                ("native-gemm", "ok", 0.0080 * (1.0 + 0.01 * index)),
                ("triton-gemm", "crashed", 0.0),
            ):
                timed = {"samples_s": blocks(time_s * (1.0 + 0.002 * process))} if status == "ok" else {}
                writer.append(
                    make_measurement(
                        run_id=manifest.run_id,
                        implementation=implementation,
                        baseline="torch-matmul",
                        case_id=f"gemm-{implementation}",
                        process=process,
                        status=status,
                        **timed,
                    )
                )
        if finish:
            writer.finish()
    return manifest.run_id


def make_store(path: Path, runs: int = 2) -> Store:
    """A store of ``runs`` finished runs (see :func:`make_run`), the later ones a little slower."""
    store = Store(path)
    for index in range(runs):
        make_run(store, index)
    return store
