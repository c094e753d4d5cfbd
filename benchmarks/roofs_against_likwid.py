"""Our roof kernels against likwid-bench, interleaved: float32 and float64 FMA peak, DRAM read, DRAM copy.

    python benchmarks/roofs_against_likwid.py [--rounds 7] [--threads 2] [--size-mb 1000]

Each round runs ours, likwid, likwid, ours (or the reverse, by turns), so that a drift of the machine falls on both
alike. Passes if every ratio of medians lies within 0.9 to 1.1. Exit codes: 0 PASS, 1 FAIL, 2 no likwid-bench.

What is made equal: threads and their CPUs; arrays of as many bytes, in 4 KiB pages as likwid's malloc gives (numpy
would ask for huge pages); ordinary stores, 16 bytes counted per double copied; seconds long enough that starting
threads does not count. likwid-bench counts its own time around the loop only, without process start and allocation.
"""

from __future__ import annotations

import argparse
import mmap
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ridgeline.kernels.native import fma, stream

BAND = (0.9, 1.1)
"""Accepted ratio of medians, ours over likwid's: the acceptance bar of the product."""

LIKWID = {"avx512": "avx512", "avx2": "avx"}
"""What likwid calls the instructions of our path."""
FMA_S = 0.3
"""Aimed length of one FMA sample."""


@dataclass(frozen=True)
class Contest:
    name: str
    unit: str
    likwid_test: str
    likwid_work: str
    """Working set as likwid's -W takes it, without the domain."""
    likwid_field: str
    likwid_options: tuple[str, ...]
    ours: Callable[[], float]
    """Runs one sample; returns the rate in ``unit``."""


def likwid(contest: Contest, program: str, threads: int) -> float:
    """One run of likwid-bench; its rate in GFLOP/s or GB/s."""
    work = f"N:{contest.likwid_work}:{threads}"
    command = [program, "-t", contest.likwid_test, "-W", work, *contest.likwid_options]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(rf"^{contest.likwid_field}:\s*([\d.]+)", answer.stdout, re.MULTILINE)
    if answer.returncode != 0 or found is None:
        message = " ".join((answer.stderr or answer.stdout).split())[:300]
        raise SystemExit(f"{' '.join(command)} failed: {message}")
    return float(found.group(1)) / 1e3


def small_pages(size_bytes: int) -> stream.Floats:
    """Zero-filled float32 in 4 KiB pages, every page present. 64-byte aligned (a page is)."""
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    array = np.frombuffer(memory, np.float32)
    array[:] = 1.0
    return array


def fma_contest(precision: str, likwid_test: str, threads: int) -> Contest:
    shape = fma.fma_shape(precision)
    x, y = fma.fma_inputs(precision)
    out = np.zeros((threads, shape.chains, shape.lanes), fma.TYPES[precision].out)
    start = time.perf_counter()
    fma.fma_run(precision, x, y, out, 1_000_000, threads)
    iterations = int(1_000_000 * FMA_S / (time.perf_counter() - start))
    run = fma.bind_fma(precision, x, y, out, iterations, threads)
    operations = fma.fma_operations(precision, iterations, threads)

    def sample() -> float:
        out[:] = np.nan
        begin = time.perf_counter()
        run()
        elapsed = time.perf_counter() - begin
        expected = fma.fma_reference(precision, x, y, iterations)
        np.testing.assert_allclose(out, np.broadcast_to(expected, out.shape), rtol=fma.TOLERANCE[precision])
        return operations / elapsed / 1e9

    options = ("-s", "1")  # seconds; likwid takes whole ones
    return Contest(f"fma {precision}", "GFLOP/s", likwid_test, f"{16 * threads}kB", "MFlops/s", options, sample)


def stream_contests(size_mb: int, instructions: str, threads: int) -> list[Contest]:
    elements = size_mb * 1_000_000 // 4 // 16 * 16
    half = elements // 2 // 16 * 16  # likwid's size is that of all its arrays together
    passes = 10

    def bind_read(memory: stream.Floats) -> Callable[[], object]:
        return stream.bind_read(memory, np.zeros(16, np.float32), elements, passes, threads)

    def bind_copy(memory: stream.Floats) -> Callable[[], object]:
        return stream.bind_copy(memory[:half], memory[half : 2 * half], half, passes, threads)

    def rate(bind: Callable[[stream.Floats], Callable[[], object]], moved_bytes: float) -> Callable[[], float]:
        def sample() -> float:
            # New pages for every sample, as likwid's new process has: one unlucky placement of a buffer kept for all
            # rounds cost read 7 % here (29.6 against 31.7 GB/s, medians of 14 and 7, interleaved).
            run = bind(small_pages(4 * elements))
            begin = time.perf_counter()
            run()
            return moved_bytes / (time.perf_counter() - begin) / 1e9

        return sample

    moved = {"read": 4.0 * elements * passes, "copy": 8.0 * half * passes}
    options = ("-i", str(passes))
    size = f"{size_mb}MB"
    return [
        Contest("DRAM read", "GB/s", f"load_{instructions}", size, "MByte/s", options, rate(bind_read, moved["read"])),
        Contest("DRAM copy", "GB/s", f"copy_{instructions}", size, "MByte/s", options, rate(bind_copy, moved["copy"])),
    ]


def compare(contest: Contest, program: str, rounds: int, threads: int) -> tuple[list[float], list[float]]:
    """Samples of ours and of likwid's, two a round, in the order A B B A, then B A A B."""
    ours: list[float] = []
    theirs: list[float] = []
    contest.ours()  # warm
    for turn in range(rounds):
        for mine in (True, False, False, True) if turn % 2 == 0 else (False, True, True, False):
            if mine:
                ours.append(contest.ours())
            else:
                theirs.append(likwid(contest, program, threads))
    return ours, theirs


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="of four runs each (at least 5)")
    parser.add_argument("--threads", type=int, default=min(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--size-mb", type=int, default=1000, help="bytes of all arrays of a DRAM test, in 1e6")
    chosen = parser.parse_args()
    if chosen.rounds < 5 or chosen.threads < 1 or chosen.size_mb < 1:
        parser.error("at least 5 rounds, 1 thread and 1 MB")
    program = shutil.which("likwid-bench")
    if program is None:
        print("likwid-bench is missing: install the Debian package likwid (apt-get install likwid)", file=sys.stderr)
        return 2
    instructions = LIKWID.get(fma.fma_path("float32"))
    if instructions is None:
        print("this CPU has neither AVX-512 nor AVX2 with FMA, which the four likwid tests need", file=sys.stderr)
        return 2

    contests = [
        fma_contest("float32", f"peakflops_sp_{instructions}_fma", chosen.threads),
        fma_contest("float64", f"peakflops_{instructions}_fma", chosen.threads),
        *stream_contests(chosen.size_mb, instructions, chosen.threads),
    ]
    print(
        f"{chosen.rounds} rounds, {chosen.threads} threads, {chosen.size_mb} MB, {instructions}; medians, ratio ours / likwid"
    )
    print(f"{'test':12} {'ours':>9} {'likwid':>9} {'unit':8} {'ratio':>6}  ratios of rounds (median, least to most)")
    failed = []
    for contest in contests:
        ours, theirs = compare(contest, program, chosen.rounds, chosen.threads)
        ratio = statistics.median(ours) / statistics.median(theirs)
        turns = [sum(ours[i : i + 2]) / sum(theirs[i : i + 2]) for i in range(0, len(ours), 2)]
        spread = f"{statistics.median(turns):.3f}, {min(turns):.3f} to {max(turns):.3f}"
        print(
            f"{contest.name:12} {statistics.median(ours):9.1f} {statistics.median(theirs):9.1f} {contest.unit:8} "
            f"{ratio:6.3f}  {spread}",
            flush=True,
        )
        if not BAND[0] <= ratio <= BAND[1]:
            failed.append(contest.name)
    print(f"FAIL: outside {BAND[0]} to {BAND[1]}: {', '.join(failed)}" if failed else "PASS")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
