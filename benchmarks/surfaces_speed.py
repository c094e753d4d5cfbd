"""Whole-model steps from utilisation surfaces, points a second, against aiconfigurator's tables in the same run.

The same steps of Llama-3.1-8B on an H100 with vLLM 0.24's kernels: decode and prefill at random batches and lengths. Ours is
the sweep with measured kernels (`software = "vllm"`), bound and memory fit included; theirs is `run_static_latency_only`
in mode SILICON in a virtual environment of its own, its session made beforehand, without memory. Rounds alternate. What each of
us predicts at the same points is compared as well. The last line is PASS where ours makes at least 20 times as many points a
second, by the low end of the 95 % interval of the rounds' median, in both phases and on a small and a large grid.

    python benchmarks/surfaces_speed.py [PYTHON]    # of an environment with aiconfigurator==0.12.0
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.analytical.statistics import interval_ranks

BAR = 20.0
ROUNDS = 11
THEIR_POINTS = 3000
GRIDS = ((64, 256), (256, 1024))
"""Batches from 1 on and lengths in steps of 8 tokens: 16,384 points, where what our sweep does once is most of its time, and
262,144. They are asked points of the same grid, at most all of it and none twice: their look-ups remember what was asked before."""
OURS_S = 0.2
"""Sweeps of ours in a round: one of 20 ms against 0.2 s of theirs came out 15 to 29 times as fast on a shared machine."""
DEVICE, SYSTEM, BACKEND, VERSION = "nvidia-h100-sxm5-80gb", "h100_sxm", "vllm", "0.24.0"
MODEL, THEIR_MODEL = "llama-3.1-8b", "meta-llama/Meta-Llama-3.1-8B"
PEER = Path(sys.prefix) / "peer-aiconfigurator" / "bin" / "python"
PHASES = ("decode", "prefill")


def points(grid: tuple[int, int], seed: int) -> list[list[tuple[int, int]]]:
    """(batch, length) of the points that the peer is asked, round by round."""
    batches, lengths = grid
    each = min(THEIR_POINTS, batches * lengths // ROUNDS)
    drawn = np.random.default_rng(seed).permutation(batches * lengths)[: ROUNDS * each].reshape(ROUNDS, each)
    return [[(1 + i // lengths, 8 * (1 + i % lengths)) for i in own.tolist()] for own in drawn]


class Peer:
    """aiconfigurator in a process of its own that answers round after round."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [str(python), str(Path(__file__).with_name("surfaces_speed_peer.py")), SYSTEM, BACKEND, VERSION, THEIR_MODEL],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.ready = self._answer()

    def ask(self, phase: str, asked: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Seconds that it took, and those that it predicts, milliseconds, ``None`` where it predicts nothing."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"phase": phase, "points": asked}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise SystemExit("aiconfigurator ended: run surfaces_speed_peer.py by hand to see why")


def ours(phase: str, batches: int, lengths: int) -> tuple[float, int, Any]:
    """Seconds of a sweep (the mean of as many as fit :data:`OURS_S`), its points, and a function of (batch, length) to its
    prediction."""
    from ridgeline.analytical.architectures import load_architecture
    from ridgeline.analytical.catalogue import catalogue
    from ridgeline.analytical.layout import Layout, Precisions
    from ridgeline.analytical.sweep import Grid, Swept, step_points, sweep

    grid = Grid(
        models={MODEL: load_architecture(MODEL)}, devices=(catalogue()[DEVICE],), phases=(phase,),
        precisions=(Precisions(),), layouts=(Layout(),), batches=np.arange(1.0, batches + 1.0),
        lengths=8.0 * np.arange(1.0, lengths + 1.0),
        software=BACKEND,
    )  # fmt: skip
    begun = time.perf_counter()
    took, sweeps = 0.0, 0
    while took < OURS_S:
        (found,) = sweep(grid)
        took, sweeps = time.perf_counter() - begun, sweeps + 1
    if not isinstance(found, Swept) or found.evidence != "surface":
        raise SystemExit(f"no surfaces for {DEVICE}: {found}")

    def at(asked: Sequence[tuple[int, int]]) -> Any:
        batch, length = np.array(asked, dtype=np.float64).T
        return found.step.columns(step_points(phase, Layout(), batch, length)).predicted_s

    return took / sweeps, len(found.batch), at


def main() -> int:
    """Print points a second of both; 0 where the bar is met."""
    python = Path(sys.argv[1]) if len(sys.argv) > 1 else PEER
    if not python.exists():
        raise SystemExit(f"surfaces_speed: {python} is not there: `make bench-analytical` makes it")
    begun = time.perf_counter()
    ours("decode", *GRIDS[0])
    print(f"fitting the surfaces, once: {time.perf_counter() - begun:.1f} s")
    peer = Peer(python)
    print(f"aiconfigurator {peer.ready['version']}, its tables loaded in {peer.ready['seconds']:.1f} s")
    failed = False
    for number, (grid, phase) in enumerate(itertools.product(GRIDS, PHASES)):
        ratios, own_rates, their_rates, apart = [], [], [], []
        for asked in points(grid, number):
            took, count, at = ours(phase, *grid)
            theirs = peer.ask(phase, asked)
            own_rates.append(count / took)
            their_rates.append(len(asked) / theirs["seconds"])
            ratios.append(own_rates[-1] / their_rates[-1])
            predicted = np.array([np.nan if p is None else 1e-3 * p for p in theirs["predicted_ms"]])
            both = np.isfinite(predicted)
            apart.append(at(asked)[both] / predicted[both])
        together = np.concatenate(apart)
        first, last = interval_ranks(ROUNDS) or (1, ROUNDS)
        low, high = sorted(ratios)[first - 1], sorted(ratios)[last - 1]
        reached = low >= BAR
        failed = failed or not reached
        print(
            f"{phase}, {grid[0]} batches x {grid[1]} lengths: {np.median(own_rates):,.0f} points/s, aiconfigurator "
            f"{np.median(their_rates):,.0f}: {np.median(ratios):.0f} times ({low:.0f} to {high:.0f}, "
            f"{ROUNDS} rounds from {min(ratios):.0f} to {max(ratios):.0f}), bar {BAR:g}: {'pass' if reached else 'FAIL'}; "
            f"ours over theirs at {len(together)} points: median {np.median(together):.3f}, p5 to p95 "
            f"{np.quantile(together, 0.05):.3f} to {np.quantile(together, 0.95):.3f}"
        )
    print("FAIL" if failed else "PASS")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
