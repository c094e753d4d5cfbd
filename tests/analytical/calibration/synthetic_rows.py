"""Synthetic rows with a known truth: constants, a device effect, and no noise unless asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ridgeline.analytical.calibration.shapes import Rows, rows_of
from ridgeline.analytical.calibration.three_parameters import ThreeParameters
from ridgeline.analytical.catalogue import catalogue

DEVICES = ("nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb", "nvidia-b200-sxm-180gb", "nvidia-l40s",
           "nvidia-rtx-pro-6000-blackwell-server", "intel-arc-pro-b60")  # fmt: skip


def gemm_rows(
    device: str,
    truth: ThreeParameters,
    *,
    noise: float = 0.0,
    seed: int = 0,
    ms: Sequence[int] = (1, 16, 64, 256, 1024, 4096),
    ns: Sequence[int] = (512, 1024, 2048, 4096, 8192),
) -> Rows:
    """A GEMM table of every m, n, k with times by ``truth`` and log-normal noise."""
    m, n, k = (v.ravel().astype(np.float64) for v in np.meshgrid(ms, ns, ns, indexing="ij"))
    columns = {"m": m, "n": n, "k": k, "seconds": np.ones(len(m)), "software": np.full(len(m), "vllm", dtype=object)}
    rows = rows_of("gemm", columns, catalogue()[device], "bfloat16")
    seconds = truth.seconds(rows.compute_s, rows.memory_s)
    jitter = np.exp(noise * np.random.default_rng(seed).standard_normal(len(m)))
    return rows_of("gemm", {**columns, "seconds": seconds * jitter}, catalogue()[device], "bfloat16")
