"""Our joules against the exact ones, and Zeus on the same power traces.

    python benchmarks/energy.py [--traces 400] [--zeus-python /path/to/python]

The card is the C library of tests/bench/energy/fake_nvml.c, read through the real pynvml on a virtual clock: its energy
counter updates every 100 ms, each update visible up to 4 ms late (2 ms jitter either way), and it knows the exact
integral. Each trace is a kernel of random length whose power has a random level, drift, ripple and steps.

Ours: 5 trials per trace at windows of 1 and 5 s; truth is the exact energy of the windows, per launch. The row of 0.5 s
is one window of the estimator alone. Zeus: begin_window and end_window around as much work, from idle to idle, truth is
the exact energy between. Passes if at least 95 % of the truths lie in our intervals, of measurements and of single
windows, in every row, and if the 95th percentile of the error of single windows of 1 s is at most 0.5 %. Exit
codes: 0 PASS, 1 FAIL, 2 no C compiler.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).resolve().parents[1] / "tests" / "bench" / "energy"
sys.path.insert(0, str(TESTS))
from fake_nvml import UUID, FakeNvml, VirtualCard, build  # noqa: E402

LEAST_COVERAGE = 0.95
MOST_ERROR_1_S = 0.005
ESTIMATOR_S = 0.5
WINDOWS_S = (1.0, 5.0)
TRACES_PER_METER = 20
"""Traces after which what was learnt about the counter is learnt again, so that its errors enter the coverage."""
JITTER_US = 2000


def random_kernel(seed: int) -> tuple[Callable[[float], float], float]:
    """Power under load by time, W, and seconds per launch."""
    rng = np.random.default_rng(seed)
    level, drift = rng.uniform(120.0, 600.0), rng.uniform(-0.02, 0.02)
    ripple, period_s, phase = rng.uniform(0.0, 0.3), 10.0 ** rng.uniform(-1.5, 0.5), rng.uniform(0.0, 6.3)
    step, step_s = rng.uniform(-0.3, 0.3), rng.uniform(0.5, 3.0)
    launch_s = 10.0 ** rng.uniform(-4.5, -2.0)

    def power_w(t: float) -> float:
        wave = ripple * math.sin(2.0 * math.pi * t / period_s + phase)
        jump = step if int(t / step_s) % 2 else 0.0
        return level * (1.0 + wave + jump + drift * math.sin(t / 7.0))

    return power_w, launch_s


def fresh_card(fake: FakeNvml, seed: int) -> VirtualCard:
    """An idle card whose counter has its own jitter."""
    fake.reset()
    fake.set(jitter_us=JITTER_US, seed=seed)
    return VirtualCard(fake, cell_s=0.005)


def ours(fake: FakeNvml, traces: int, window_s: float) -> tuple[list[tuple[float, bool]], list[tuple[float, bool]]]:
    """Relative error and whether the truth lies inside: of measurements, and of their single windows."""
    from ridgeline.bench.energy.choose import choose_source
    from ridgeline.bench.energy.meter import EnergyMeter, EnergySettings

    measured, windows = [], []
    for seed in range(traces):
        if seed % TRACES_PER_METER == 0:
            card = fresh_card(fake, seed + 1)
            settings = EnergySettings(window_s=window_s, periods=2.0, seed=seed)
            meter = EnergyMeter(choose_source("nvml", UUID), settings, clock=card.clock, sleep=card.sleep)
        power_w, launch_s = random_kernel(seed)
        card.play(power_w, launch_s)
        facts = meter.measure(card.launch, launch_s, budget_s=1e3, synchronize=card.synchronize)
        if facts.gross_j is None:
            raise SystemExit(f"trace {seed}: no figure: {facts.reason}")
        truths = []
        for window in facts.windows:
            exact_w = (fake.exact_j(window.end_s) - fake.exact_j(window.start_s)) / (window.end_s - window.start_s)
            truths.append(exact_w * window.launch_s)
            error_w = window.power_w.value - exact_w
            windows.append((error_w / exact_w, abs(error_w) <= window.power_w.random))
        error_j = facts.gross_j.value - float(np.mean(truths))
        measured.append((error_j / float(np.mean(truths)), abs(error_j) <= facts.gross_j.random))
    return measured, windows


def ours_alone(fake: FakeNvml, traces: int, window_s: float) -> list[tuple[float, bool]]:
    """The estimator alone: one window per trace."""
    from ridgeline.analytical.energy import edge_window
    from ridgeline.bench.energy.choose import choose_source
    from ridgeline.bench.energy.discovery import learn_counter
    from ridgeline.bench.energy.window import Hands, Load, run_window

    found = []
    for seed in range(traces):
        if seed % TRACES_PER_METER == 0:
            card = fresh_card(fake, seed + 1)
            hands = Hands(card.clock, card.sleep)
            source = choose_source("nvml", UUID)
            profile = learn_counter(source, Load(card.launch, card.synchronize, card.launch_s, hands), hands)
        power_w, launch_s = random_kernel(seed)
        card.play(power_w, launch_s)
        load = Load(card.launch, card.synchronize, launch_s, hands)
        trace = run_window(source, load, hands, window_s, profile)
        power = edge_window(trace.edges, profile.jitter_s, 1e-3)
        exact_w = (fake.exact_j(power.end_s) - fake.exact_j(power.start_s)) / power.window_s
        found.append((power.power_w / exact_w - 1.0, abs(power.power_w - exact_w) <= power.random_w))
    return found


def zeus(fake: FakeNvml, traces: int, window_s: float) -> list[float]:
    """Relative errors of Zeus' windows; runs in an interpreter that has Zeus."""
    from zeus.monitor import ZeusMonitor

    errors = []
    for seed in range(traces):
        if seed % TRACES_PER_METER == 0:
            card = fresh_card(fake, seed + 1)
            fake.lib.nvmlInitWithFlags(0)  # Zeus starts NVML once and keeps it
            monitor = ZeusMonitor(gpu_indices=[0], cpu_indices=[])
        power_w, launch_s = random_kernel(seed)
        card.play(power_w, launch_s)
        card.sleep(1.0 + 0.1 * float(np.random.default_rng(seed).uniform()))
        monitor.begin_window("work", sync_execution=False)
        begin_j = fake.exact_j(card.now_s)
        card.launch(math.ceil(window_s / launch_s))
        card.synchronize()
        answer = monitor.end_window("work", sync_execution=False)
        exact_j = fake.exact_j(card.now_s) - begin_j
        errors.append(answer.gpu_energy[0] / exact_j - 1.0)
    return errors


def zeus_elsewhere(python: str, library: Path, traces: int) -> dict[float, list[float]] | str:
    """Zeus in its own process: its errors by window, or why there are none."""
    asked = subprocess.run([python, "-c", "import zeus.monitor"], capture_output=True, text=True, timeout=120)
    if asked.returncode != 0:
        return f"zeus: not in {python}: pip install 'ridgeline[energy]', or name another with --zeus-python"
    command = [python, __file__, "--zeus-worker", str(library), "--traces", str(traces)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        return f"zeus: failed: {' '.join(done.stderr.split())[-300:]}"
    return {float(window): errors for window, errors in json.loads(done.stdout.splitlines()[-1]).items()}


def row(name: str, window_s: float, errors: list[float], inside: list[bool] | None) -> str:
    """One line of the table."""
    magnitude = np.abs(errors)
    covered = "" if inside is None else f"{100.0 * np.mean(inside):.1f} %"
    return (
        f"{name:<26}{window_s:>8.1f}{len(errors):>8}{100.0 * float(np.mean(errors)):>10.3f} %"
        f"{100.0 * float(np.percentile(magnitude, 50)):>10.3f} %{100.0 * float(np.percentile(magnitude, 95)):>10.3f} %{covered:>14}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Energy against exact truth, beside Zeus.")
    parser.add_argument("--traces", type=int, default=400)
    parser.add_argument("--zeus-python", default=sys.executable, help="interpreter that has zeus")
    parser.add_argument("--zeus-worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.traces < 20:
        parser.error("--traces: at least 20")
    if options.zeus_worker:
        fake = FakeNvml(options.zeus_worker)
        print(json.dumps({w: zeus(fake, options.traces, w) for w in (ESTIMATOR_S, *WINDOWS_S)}))
        return 0
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            library = build(Path(folder))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 2
        return compare(FakeNvml(library), library, options, begin)


def compare(fake: FakeNvml, library: Path, options: Any, begin: float) -> int:
    """Print the table; the exit code."""
    print(
        "virtual clock, counter of 100 ms with 2 ms jitter, random power traces; errors relative to the exact integral"
    )
    print(f"{'method':<26}{'window s':>8}{'n':>8}{'bias':>12}{'median':>12}{'95th pct':>12}{'truth inside':>14}")
    failures = []

    def report(name: str, window_s: float, found: list[tuple[float, bool]]) -> None:
        errors, inside = [e for e, _ in found], [i for _, i in found]
        print(row(name, window_s, errors, inside), flush=True)
        if np.mean(inside) < LEAST_COVERAGE:
            failures.append(f"{name} at {window_s} s: {100 * np.mean(inside):.1f} % of truths inside")
        if window_s == 1.0 and np.percentile(np.abs(errors), 95) > MOST_ERROR_1_S:
            failures.append(f"{name} at 1 s: 95th percentile above 0.5 %")

    report("ridgeline, estimator", ESTIMATOR_S, ours_alone(fake, options.traces, ESTIMATOR_S))
    for window_s in WINDOWS_S:
        measured, windows = ours(fake, options.traces, window_s)
        report("ridgeline, single window", window_s, windows)
        report("ridgeline, measurement", window_s, measured)
    theirs = zeus_elsewhere(options.zeus_python, library, options.traces)
    if isinstance(theirs, str):
        print(theirs)
    else:
        for window_s, errors in theirs.items():
            print(row("zeus", window_s, errors, None))
    print(f"{time.monotonic() - begin:.0f} s")
    for failure in failures:
        print(failure)
    print("FAIL" if failures else "PASS")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
