"""Where one way of multiplying overtakes the next as rows are added: measured once for a weight matrix's shape.

FlashDecoding++ (Hong et al. 2023) decides for each (K, N) of a model beforehand: GEMV below M1 rows, flat GEMM below M2,
the library above. Here M1 and M2 are those that cost least over a grid of M, all three measured by turns on this
machine, and are kept in a file: ``${RIDGELINE_CACHE:-~/.cache/ridgeline}/gemm-crossovers``, a name for each CPU, number
of threads, version of the kernels and of torch, and shape. Delete the folder to have them measured again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ridgeline.analytical.operators import Gemm
from ridgeline.kernels.gemm.native import flat, flat_panels, gemv
from ridgeline.kernels.native.build import cache_folder, content_key
from ridgeline.kernels.registry import Context, Run, get_implementation

ROWS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96, 128)
"""M that are measured; above the last the library is taken."""
ROUNDS = 5
"""Times of each point, of which the least counts: what disturbs a call only ever makes it longer."""
HOPELESS = 2.0
"""Times slower than another at which GEMV is not measured on more rows: each four cost it another pass over B."""
SETTLED = 1.1
"""The two least times of a point may differ by this factor, in the median over the points. Where they differ by more,
other work shaped them: the crossovers are good for this process, and measured anew by the next."""
COLD_BYTES = 1 << 20
"""Smallest B before which the caches are emptied. A smaller one stays in them between the calls of a decoder too."""


class CrossoverError(ValueError):
    """Crossovers given from outside that cannot be. One line."""


@dataclass(frozen=True)
class Crossovers:
    """``gemv_below`` rows (M1) GEMV is taken, from there and ``flat_below`` rows (M2) flat GEMM, then the library."""

    gemv_below: int
    flat_below: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise CrossoverError(f"{name}: must be a whole number of rows of at least 1, not {value!r}")
        if self.flat_below < self.gemv_below:
            raise CrossoverError(f"flat_below: {self.flat_below} lies below gemv_below, {self.gemv_below}")

    def choose(self, m: int) -> str:
        """Name of the implementation for ``m`` rows."""
        if m < self.gemv_below:
            return "native_gemv"
        return "native_flat" if m < self.flat_below else "torch"


def crossovers(b: torch.Tensor, threads: int) -> Crossovers:
    """Those of B[k, n] (float32, as the operator has it) on this machine, from the file or measured now.

    Raises:
        Unsupported: where the C++ cannot be built. NativeBuildError where the cache cannot be used.
    """
    path = _file(b.shape[1], b.shape[0], threads)
    if path not in _KNOWN:
        _KNOWN[path] = _stored(path) or _measured(b, threads, path)
    return _KNOWN[path]


_KNOWN: dict[Path, Crossovers] = {}
"""Of this process: a case prepares many copies of one B."""


def _stored(path: Path) -> Crossovers | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Crossovers(found["gemv_below"], found["flat_below"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there yet, or damaged


def _measured(b: torch.Tensor, threads: int, path: Path) -> Crossovers:
    times = measure(b, threads)
    best = least_cost({m: {way: min(seconds) for way, seconds in row.items()} for m, row in times.items()})
    if unrest(times) <= SETTLED:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({**asdict(best), "times_s": times}, file, indent=1)
        os.replace(temporary, path)
    return best


def unrest(times: Mapping[int, Mapping[str, Sequence[float]]]) -> float:
    """Median over the points of the second least time over the least."""
    least = [sorted(seconds)[:2] for row in times.values() for seconds in row.values()]
    return statistics.median(second / first for first, second in least)


def _file(n: int, k: int, threads: int) -> Path:
    """content_key holds the CPU, the compiler and the sources."""
    facts = (content_key("gemm"), torch.__version__, torch.__config__.show(), ROWS, threads, n, k)
    name = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
    return cache_folder("gemm-crossovers") / f"{k}x{n}-{threads}t-{name}.json"


def measure(b: torch.Tensor, threads: int) -> dict[int, dict[str, list[float]]]:
    """Seconds of each round by M and implementation, of B[k, n] with that many threads.

    Raises:
        Unsupported: where the C++ cannot be built.
    """
    k, n = b.shape
    context = Context("cpu", threads)
    panels = flat_panels(b)
    evict = _evictor(b)
    generator = torch.Generator().manual_seed(0)
    ways: dict[str, Callable[[Gemm], Run]] = {
        "native_gemv": lambda problem: gemv(problem, b, threads),
        "native_flat": lambda problem: flat(problem, panels, threads),
        "torch": lambda problem: get_implementation("gemm", "torch").prepare(problem, {"b": b}, context),
    }
    times: dict[int, dict[str, list[float]]] = {}
    for m in ROWS:
        problem = Gemm(m=m, n=n, k=k, precision="float32")
        inputs, out = {"a": torch.randn(m, k, generator=generator)}, torch.empty(m, n)
        runs = {name: make(problem) for name, make in ways.items()}
        times[m] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, run in runs.items():
                run(inputs, out)  # wakes its threads; those of the one before go to sleep
                evict()
                began = time.perf_counter_ns()
                run(inputs, out)
                times[m][name].append((time.perf_counter_ns() - began) * 1e-9)
        if "native_gemv" in ways and min(times[m]["native_gemv"]) > HOPELESS * min(map(min, times[m].values())):
            del ways["native_gemv"]
    return times


def _evictor(b: torch.Tensor) -> Callable[[], None]:
    """Empties the caches, where B could stay in them from call to call though a decoder's other weights evict it."""
    size = b.numel() * b.element_size()
    last_level = max(os.sysconf("SC_LEVEL3_CACHE_SIZE") if "SC_LEVEL3_CACHE_SIZE" in os.sysconf_names else 0, 0)
    if size < COLD_BYTES or size >= 2 * last_level:
        return lambda: None
    other = np.zeros(2 * last_level // 4, np.float32)

    def evict() -> None:
        np.add(other, 1.0, out=other)  # not torch: its threads would still spin when the next run begins

    return evict


def least_cost(times: Mapping[int, Mapping[str, float]]) -> Crossovers:
    """The crossovers with the least sum of log seconds over the measured M; what was not measured is out of question."""
    rows = sorted(times)

    def cost(way: str, chosen: list[int]) -> float:
        return sum(math.log(times[m][way]) if way in times[m] else math.inf for m in chosen)

    options = (
        (
            cost("native_gemv", rows[:first]) + cost("native_flat", rows[first:second]) + cost("torch", rows[second:]),
            first,
            second,
        )
        for first in range(len(rows) + 1)
        for second in range(first, len(rows) + 1)
    )
    _, first, second = min(options)
    beyond = [*rows, rows[-1] + 1]
    return Crossovers(beyond[first], beyond[second])
