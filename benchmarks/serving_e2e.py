"""The simulation against public end-to-end runs: dense models, aggregated serving, a closed loop of so many users.

``python benchmarks/serving_e2e.py [rows]``. Rows are those of ``silicon_sample.csv`` in ``aiconfigurator-core`` (extra ``data``,
Apache-2.0), whose ``batch_size`` is the concurrency of the load generator. Step times are those of the buyer's step model; what a
row's time per output token is over the simulated one is the slowdown that the model does not know: its median is what
``SOFTWARE_EFFICIENCY`` stands for, its spread between systems what ``DEVICE_SIGMA`` does. Printed: both, the
same of TTFT, and errors and coverage with the factor of the *other* systems.
"""

from __future__ import annotations

import csv
import importlib.metadata
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from ridgeline.analytical.architectures.builtin import load_architecture
from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.layout import Layout, Precisions
from ridgeline.analytical.purchase.step_model import UnservableError, step_model
from ridgeline.analytical.serving.server import Server
from ridgeline.analytical.serving.simulation import simulate
from ridgeline.analytical.serving.table import StepTable
from ridgeline.analytical.serving.traffic import ClosedLoop, Empirical, make_requests

DEVICES = {
    "h100_sxm": "nvidia-h100-sxm5-80gb", "h200_sxm": "nvidia-h200-sxm-141gb", "b200_sxm": "nvidia-b200-sxm-180gb",
    "b300_sxm": "nvidia-b300-sxm", "gb200": "nvidia-gb200-nvl72", "gb300": "nvidia-gb300-nvl72",
}  # fmt: skip
MODELS = {
    "meta-llama/Llama-3.1-70B": "llama-3-70b", "Qwen/Qwen3-32B": "qwen3-32b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b", "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
}  # fmt: skip
PRECISIONS = {"fp8": "float8_e4m3fn", "bf16": "bfloat16"}
ROUNDS = 10
"""Requests of each user: InferenceMAX's README gives ``--num-prompts $(( $CONC * 10 )) --request-rate inf``, so all users begin
at once."""
SHORTEST = 0.8
"""Its ``--random-range-ratio``: lengths are spread evenly from this share of the nominal one on."""


def rows(count: int) -> list[dict[str, str]]:
    """Rows that the model covers, ``count`` of them drawn with a fixed seed."""
    files = importlib.metadata.files("aiconfigurator-core") or []
    path = next((Path(str(file.locate())) for file in files if file.name == "silicon_sample.csv"), None)
    if path is None:
        sys.exit("serving_e2e: no silicon_sample.csv: pip install 'ridgeline[data]'")
    with path.open() as file:
        found = [
            row
            for row in csv.DictReader(file)
            if row["mode"] == "agg" and row["model_path"] in MODELS and row["precision"] in PRECISIONS
            and row["system"] in DEVICES and float(row["batch_size"] or 0) >= 1 and float(row["attention_dp_size"] or 1) <= 1
        ]  # fmt: skip
    order = np.random.default_rng(1).permutation(len(found))[:count]
    print(f"{len(order)} of {len(found)} rows: dense, aggregated, fp8 or bf16")
    return [found[i] for i in order]


def simulated(row: dict[str, str]) -> tuple[float, float]:
    """Mean TTFT and TPOT of the row's load, seconds."""
    device = catalogue_of[DEVICES[row["system"]]]
    isl, osl, users = int(row["isl"]), int(row["osl"]), int(float(row["batch_size"]))
    precision = PRECISIONS[row["precision"]]
    layout, precisions = Layout(tp=int(float(row["tp_size"]))), Precisions(weights=precision, activations=precision)
    model = step_model(load_architecture(MODELS[row["model_path"]]), device, layout, precisions, isl + osl, 8192)
    most = min(max(users, 8), 1024)
    table = StepTable(model.step_times, most, 8192, isl + osl)
    inputs, outputs = (Empirical(tuple(range(int(SHORTEST * length), length + 1))) for length in (isl, osl))
    requests = make_requests(ClosedLoop(users), inputs, outputs, users * ROUNDS, 1)
    run = simulate(table, requests, Server(kv_tokens=model.kv_tokens, max_sequences=most))
    return float(np.mean(run.ttft_s)), float(np.mean(run.tpot_s))


catalogue_of = catalogue()


def main() -> int:
    """Print the table."""
    by_system: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
    unfit = 0
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 120):
        try:
            ttft, tpot = simulated(row)
        except UnservableError:
            unfit += 1
            continue
        by_system[row["system"]].append(
            (float(row["silicon_ttft_ms"]) / 1e3, float(row["silicon_tpot_ms"]) / 1e3, ttft, tpot)
        )
    print(f"{unfit} rows do not fit by the model's memory")
    columns = {name: np.log(np.asarray(found)) for name, found in by_system.items()}
    ratios = {name: (own[:, 1] - own[:, 3], own[:, 0] - own[:, 2]) for name, own in columns.items()}
    print(
        "measured over simulated; error and coverage of 90 % intervals with the factor and spread of the other systems"
    )
    print(
        f"{'':10}{'rows':>6}{'TPOT':>7}{'sigma':>7}{'error':>8}{'cover':>7}{'TTFT':>8}{'sigma':>7}{'error':>8}{'cover':>7}"
    )
    left_out: tuple[list[float], list[float]] = ([], [])
    held: tuple[list[bool], list[bool]] = ([], [])
    for name, pair in sorted(ratios.items()):
        line = f"{name:10}{len(pair[0]):6}"
        for metric, own in enumerate(pair):
            others = np.concatenate([v[metric] for other, v in ratios.items() if other != name])
            errors = np.abs(np.exp(np.median(others) - own) - 1.0)
            inside = np.abs(own - np.median(others)) <= 1.645 * np.std(others)
            left_out[metric].extend(errors)
            held[metric].extend(inside)
            line += f"{np.exp(np.median(own)):8.2f}{np.std(own):7.2f}{np.median(errors):8.1%}{np.mean(inside):7.0%}"
        print(line)
    line = f"{'all':10}{len(left_out[0]):6}"
    for metric in (0, 1):
        own = np.concatenate([v[metric] for v in ratios.values()])
        line += f"{np.exp(np.median(own)):8.2f}{np.std(own):7.2f}{np.median(left_out[metric]):8.1%}{np.mean(held[metric]):7.0%}"
    print(line)
    centres = [float(np.median(v[0])) for v in ratios.values()]
    print(f"between systems: sigma of the TPOT medians {np.std(centres, ddof=1):.2f}, of {len(centres)}")
    bar = float(np.median(left_out[0]))
    print(f"TPOT on a left-out system: median {bar:.1%}, bar 25 %: {'PASS' if bar <= 0.25 else 'FAIL'}")
    if bar > 0.25:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
