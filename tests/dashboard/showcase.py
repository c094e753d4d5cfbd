"""A store with something of everything the dashboard shows: operators, protocols, statuses, levels, copies, roofs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.analytical.ceilings import Bandwidth, Rate, Source
from ridgeline.analytical.device import Device, MemoryLevel
from ridgeline.analytical.operators import make_problem
from ridgeline.results.measurement import Measurement
from ridgeline.results.run import RunManifest
from ridgeline.results.store import Store

RUN = "20261121T000000Z-00000001"
OLD_RUN = "20261120T000000Z-00000001"

_MEASURED = Source(title="measured by ridgeline", detail="fma and stream", date="2026-11-21")
_DERIVED = Source(title="Vendor optimisation manual", detail="two 512-bit FMA units per core")


def make_device() -> Device:
    """A two-core CPU with measured ceilings for one and two threads and physical ones for both."""
    memory = (
        MemoryLevel(name="L1", capacity_bytes=32768.0, per_core=True),
        MemoryLevel(name="L2", capacity_bytes=2**20 * 1.0, per_core=True),
        MemoryLevel(name="L3", capacity_bytes=2**25 * 1.0),
        MemoryLevel(name="DRAM", capacity_bytes=2.0**34),
    )
    rates, bandwidths = [], []
    for threads in (1, 2):
        for unit, precision, accumulator, value in (
            ("vector", "float32", "float32", 88e9),
            ("integer", "int8", "int32", 330e9),
        ):
            common: dict[str, Any] = {"unit": unit, "a": precision, "b": precision, "accumulator": accumulator}
            v = value * threads
            rates.append(_ceiling(Rate, common, v, 0.94 * v, 1.03 * v, "measured", threads))
            rates.append(_ceiling(Rate, common, 1.4 * v, 1.4 * v, 1.4 * v, "derived", threads))
        for level, value in (("L1", 310e9), ("L2", 130e9), ("L3", 42e9), ("DRAM", 11e9)):
            v = value * threads
            bandwidths.append(_ceiling(Bandwidth, {"level": level}, v, 0.85 * v, 1.1 * v, "measured", threads))
            bandwidths.append(_ceiling(Bandwidth, {"level": level}, 1.9 * v, 1.9 * v, 1.9 * v, "derived", threads))
    return Device(
        id="showcase-cpu",
        name="Showcase CPU",
        vendor="Nobody",
        kind="cpu",
        memory=memory,
        rates=tuple(rates),
        bandwidths=tuple(bandwidths),
    )


def _ceiling(kind: Any, common: dict[str, Any], value: float, low: float, high: float, how: str, threads: int) -> Any:
    source = _MEASURED if how == "measured" else _DERIVED
    return kind(**common, value_per_s=value, low_per_s=low, high_per_s=high, kind=how, source=source, threads=threads)


def _gemm(m: int, n: int, k: int, precision: str = "float32") -> tuple[str, dict[str, Any]]:
    return "gemm", {"m": m, "n": n, "k": k, "precision": precision}


def _decode(length: int) -> tuple[str, dict[str, Any]]:
    heads = {"batch": 1, "q_heads": 16, "kv_heads": 4, "head_dim": 64}
    return "attention", {**heads, "q_length": 1, "kv_length": length, "precision": "float32"}


def _prefill(length: int) -> tuple[str, dict[str, Any]]:
    return "attention", {**_decode(length)[1], "q_length": length, "causal": True}


def _woq(m: int) -> tuple[str, dict[str, Any]]:
    return "weight_only_gemm", {"m": m, "n": 2048, "k": 2048, "weight": "int4", "group": 128, "precision": "float32"}


def _stream(operation: str, elements: int) -> tuple[str, dict[str, Any]]:
    return "stream", {"operation": operation, "elements": elements}


# operator and problem, implementation, fraction of the roof, further fields of the record
CASES: tuple[tuple[tuple[str, dict[str, Any]], str, float, dict[str, Any]], ...] = (
    (_gemm(1024, 1024, 1024), "torch_matmul", 0.81, {}),
    (_gemm(1024, 1024, 1024), "native_avx512", 0.93, {}),
    (_gemm(256, 256, 256), "torch_matmul", 0.62, {}),
    (_gemm(256, 256, 256), "native_avx512", 1.18, {}),  # above the measured roof, below physics: never clamped
    (_gemm(1, 2048, 2048), "torch_matmul", 0.88, {}),
    (_gemm(1024, 1024, 1024, "int8"), "native_vnni", 0.71, {}),
    (_gemm(1024, 1024, 1024, "int8"), "torch_matmul", 0.0, {"status": "unsupported"}),
    (_decode(4096), "torch_sdpa", 0.44, {}),
    (_decode(4096), "native_flash", 0.79, {}),
    (_prefill(1024), "torch_sdpa", 0.38, {"status": "unstable"}),
    (_prefill(1024), "native_flash", 0.0, {"status": "incorrect"}),
    (_woq(1), "native_int4", 0.66, {}),
    (_woq(16), "native_int4", 0.52, {"blocks": 4}),  # too few for an interval
    (_woq(16), "triton_int4", 0.0, {"status": "timeout"}),
    (_stream("copy", 2**24), "native_stream", 0.97, {}),
    (_stream("copy", 2**24), "native_stream", 0.98, {"role": "roof"}),
    (_stream("triad", 2**24), "native_stream", 0.96, {"role": "roof"}),
    (_gemm(1024, 1024, 1024), "torch_matmul", 0.84, {"threads": 1}),
    (_gemm(256, 256, 256), "torch_matmul", 0.71, {"cache": "warm"}),
)

REASONS = {
    "unsupported": "torch.mm has no int8 kernel on this CPU",
    "unstable": "half-width 4.1 % after 10 s, target 2 %: needs about 42 s",
    "incorrect": "relative error 3.1e-02 against a tolerance of 1.0e-05 in row 17",
    "timeout": "no answer within 60 s",
}


def measurement(index: int, run_id: str) -> Measurement:
    """Record number ``index`` of :data:`CASES`."""
    (operator, parameters), implementation, fraction, more = CASES[index]
    problem = make_problem(operator, parameters)
    status = more.get("status", "ok")
    threads, cache = more.get("threads", 2), more.get("cache", "cold")
    values: dict[str, Any] = {}
    if status in ("ok", "unstable"):
        time_s = _bound_s(problem, threads, cache) / fraction
        values = {
            "samples_s": _samples(time_s, seed=index, n_blocks=more.get("blocks", 40)),
            "error_relative": 2.3e-7,
            "error_worst": 4.1e-6,
            "error_tolerance": 1e-5,
            "rows_checked": 64,
            "prepare_s": 0.012 * (index + 1),
            "working_set_bytes": problem.footprint_bytes(),
            "peak_memory_bytes": 3.1e8,
        }
    return Measurement(
        record_id=f"{run_id[:8]}-{index:03d}",
        run_id=run_id,
        started_at="2026-11-21T00:00:00+00:00",
        role=more.get("role", "case"),
        case_id=f"case-{index:03d}",
        content_key="content",
        operator=operator,
        implementation=implementation,
        baseline="torch_matmul" if operator == "gemm" else "torch_sdpa",
        problem=problem.to_dict(),
        problem_label=problem.label,
        papers=("roofline",),
        placement={"device": "showcase-cpu", "torch_device": "cpu", "unit": "unit-a"},
        protocol={"timer": "perf_counter", "cache": cache, "threads": threads, "version": 1},
        status=status,
        reason=REASONS.get(status, ""),
        energy_reason="no meter: /sys/class/powercap has no readable counter",
        **values,
    )


def _bound_s(problem: Any, threads: int, cache: str) -> float:
    from ridgeline.analytical.roofline import bound

    device = make_device()
    level = device.level_for(problem.footprint_bytes(), cache, threads).name
    found = bound(problem.expected_work(), device.select(["measured"], threads), level)
    assert found is not None
    return found.seconds


def _samples(time_s: float, seed: int, n_blocks: int, per_block: int = 12) -> tuple[tuple[float, ...], ...]:
    """Skewed like real ones: a floor, a tail, and blocks that differ a little."""
    rng = np.random.default_rng(seed)
    blocks = []
    for _ in range(n_blocks):
        shift = 1.0 + 0.008 * rng.standard_normal()
        noise = rng.gamma(1.6, 0.01, per_block) - 0.012
        blocks.append(tuple(float(t) for t in time_s * shift * (1.0 + noise)))
    return tuple(blocks)


def manifest(run_id: str, **overrides: Any) -> RunManifest:
    """Manifest of a run of all cases."""
    values: dict[str, Any] = {
        "run_id": run_id,
        "suite": "quick",
        "plan_digest": f"plan-{run_id}",
        "planned": len(CASES),
        "created_at": "2026-11-21T00:00:00+00:00",
        "device": "showcase-cpu",
        "device_name": "Showcase CPU",
        "environment": {"torch": "2.13.0", "python": "3.11.9", "kernel": "6.1"},
        **overrides,
    }
    return RunManifest(**values)


def make_showcase(path: Path) -> Store:
    """A finished run of every case, and an older one that only has the first three and stayed unfinished."""
    store = Store(path)
    for run_id, count, finish in ((OLD_RUN, 3, False), (RUN, len(CASES), True)):
        with store.create(manifest(run_id), make_device()) as writer:
            for index in range(count):
                writer.append(measurement(index, run_id))
            if finish:
                writer.finish()
    return store


def damage(store: Store) -> None:
    """Ruin the older run's journal in its middle, and add a run whose manifest is no JSON and one from the future."""
    journal = store.path / "runs" / OLD_RUN / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + b'{"kind": "measurement", "broken\n' + b"".join(lines[1:]))
    for name, text in (
        ("20261119T000000Z-00000001", "{ this is not JSON"),
        ("20261118T000000Z-00000001", '{"schema_version": 99, "run_id": "x"}'),
    ):
        folder = store.path / "runs" / name
        folder.mkdir()
        (folder / "run.json").write_text(text)
    truncated = "20261117T000000Z-00000001"
    with store.create(manifest(truncated), make_device()) as writer:
        writer.append(measurement(0, truncated))
        writer.finish()
    parquet = store.path / "runs" / truncated / "records.parquet"
    parquet.write_bytes(parquet.read_bytes()[:-200])


def without_ceilings(device: Device) -> Device:
    """``device`` as before its roofs were measured."""
    return dataclasses.replace(device, rates=(), bandwidths=())
