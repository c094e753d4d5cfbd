"""Whole-model design points per second: numpy and numba against a scalar loop, in one process.

A design point is one step of Llama-3-8B at a batch and a length on a device, with its bound, its three-parameter
prediction and its memory fit; every operator of the model is counted. The scalar loop does what other tools do: for each
point it lists the operations, asks each one's limits, and adds up. The figure of an engine contains everything from the
grid to the columns: finding the polynomials, one table for each device, and the evaluation; numba's compilation is left
out and shown beside it. The last line is PASS where, in each phase, the fastest engine that is installed reaches the
bar, and every engine agrees with the scalar loop.

    python benchmarks/analytical_speed.py
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

from ridgeline.analytical.architectures import load_architecture
from ridgeline.analytical.architectures.operations import operations
from ridgeline.analytical.calibration.three_parameters import ASSUMED
from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.device import Device
from ridgeline.analytical.layout import Layout, Precisions
from ridgeline.analytical.limits import limits
from ridgeline.analytical.memory import MEMORY_SHARE, memory
from ridgeline.analytical.phases import Phase
from ridgeline.analytical.step_table import Engine
from ridgeline.analytical.sweep import Grid, Swept, sweep

BAR_POINTS_PER_S = 1e7
"""The issue's bar, on two hardware threads."""
DEVICES = ("nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb", "nvidia-h200-sxm-141gb", "nvidia-b200-sxm-180gb")
BATCHES = np.arange(1.0, 1025.0)
LENGTHS = 16.0 * np.arange(1.0, 1025.0)
"""Whole pages of the KV cache: up to 16,384 tokens."""
REPEATS = 5
SCALAR_POINTS = 150
AGREEMENT = 1e-9


def main() -> int:
    """Print points per second of each engine; 0 where the bar is met and all agree, else 1."""
    llama = load_architecture("llama-3-8b")
    devices = tuple(catalogue()[name] for name in DEVICES)
    print(
        f"{os.cpu_count()} hardware threads, {len(devices)} devices x {len(BATCHES)} batches x {len(LENGTHS)} lengths"
    )
    failed = False
    for phase in ("decode", "prefill"):
        grid = Grid(
            models={"llama-3-8b": llama},
            devices=devices,
            phases=(phase,),
            precisions=(Precisions(),),
            layouts=(Layout(),),
            batches=BATCHES,
            lengths=LENGTHS,
        )
        rows = np.random.default_rng(0).integers(0, len(BATCHES) * len(LENGTHS), SCALAR_POINTS)
        scalar, scalar_per_s = scalar_loop(llama, devices[1], phase, rows)
        print(f"{phase}: scalar loop {scalar_per_s:.3g} points/s")
        fastest = 0.0
        for engine in ("numpy", "numba"):
            if engine == "numba" and not importable():
                print(f"{phase}: numba is not installed (pip install 'ridgeline[run]')")
                continue
            error, per_s, per_cpu_s, first_s = timed(grid, engine, devices[1].id, rows, scalar)
            fastest = max(fastest, per_s)
            failed = failed or error > AGREEMENT
            print(
                f"{phase}: {engine} {per_s:.3g} points/s ({per_s / scalar_per_s:,.0f} times the scalar loop; {per_cpu_s:.3g} "
                f"a second of one thread; first sweep {first_s:.2f} s; largest difference {error:.1e})"
            )
        reached = fastest >= BAR_POINTS_PER_S
        failed = failed or not reached
        print(f"{phase}: {fastest:.3g} points/s, at least {BAR_POINTS_PER_S:.0e}: {'pass' if reached else 'FAIL'}")
    print("FAIL" if failed else "PASS")
    return int(failed)


def scalar_loop(llama: Any, device: Device, phase: str, rows: Any) -> tuple[Any, float]:
    """Bound, prediction and memory of some points, one after the other; and points per second."""
    found = []
    start = time.perf_counter()
    for row in rows:
        batch, length = float(BATCHES[row // len(LENGTHS)]), float(LENGTHS[row % len(LENGTHS)])
        step = Phase.decode(batch, length) if phase == "decode" else Phase.prefill(batch, length)
        bound_s = predicted_s = 0.0
        for operation in operations(llama, step, Precisions(), Layout()):
            terms = limits(operation.work, device)
            own = ASSUMED.get(operation.family, ASSUMED[""])
            least = terms.overlapped_s
            slowed = own.seconds(terms.of("unit"), terms.of("memory"))
            predicted_s += operation.count * max(least + own.overhead_s, slowed)
            bound_s += 0.0 if operation.fusible else operation.count * least
        tokens = batch if phase == "decode" else batch * length
        held = memory(llama, Precisions(), Layout(), sequences=batch, length=length, tokens=tokens).total_bytes
        found.append((bound_s, predicted_s, held, held <= device.main_memory.capacity_bytes * MEMORY_SHARE))
    return np.array(found), len(rows) / (time.perf_counter() - start)


def timed(grid: Grid, engine: Engine, device: str, rows: Any, scalar: Any) -> tuple[float, float, float, float]:
    """Largest relative difference to the scalar loop, points per second of the fastest sweep, seconds of the first.

    Third of the four: points per second of processor time, which other programs on the machine disturb less.
    """
    seconds, processor_s, error, points = [], [], 0.0, 0
    for _ in range(REPEATS):
        start, processor_start = time.perf_counter(), time.process_time()
        points, checked = 0, None
        for item in sweep(grid, engine):
            if not isinstance(item, Swept):
                raise SystemExit(f"{item.combination.device}: {item.reason}")
            points += len(item.batch)
            if item.combination.device == device:
                checked = item.columns
        seconds.append(time.perf_counter() - start)
        processor_s.append(time.process_time() - processor_start)
        assert checked is not None
        columns = (checked.bound_s, checked.predicted_s, checked.memory_bytes, checked.fits)
        error = max(
            error, *(float(np.max(np.abs(c[rows] / s - 1.0))) for c, s in zip(columns[:3], scalar.T, strict=False))
        )
        if not np.array_equal(checked.fits[rows], scalar[:, 3] != 0.0):
            raise SystemExit("FAIL: the memory fit differs from the scalar loop's")
    return error, points / min(seconds), points / min(processor_s), seconds[0]


def importable() -> bool:
    """Whether numba is installed."""
    try:
        import numba  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
