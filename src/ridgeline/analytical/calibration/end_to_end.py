"""Served models: time per output token and time to the first one, from the bound of a step and what stacks add to it.

The rows are aggregated serving runs at a fixed concurrency (``silicon_sample.csv`` of the ``data`` extra): a closed form gives
the seconds that weights, KV cache, arithmetic, interleaved prefill and all-reduces need at least; a robust sum of them with
fitted shares is the base, and boosting learns what is left from the stack and the shape of the load.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from ridgeline.analytical.calibration.inside import one_thread
from ridgeline.analytical.calibration.public_tables import SYSTEMS, PublicTableError
from ridgeline.analytical.device import Device
from ridgeline.analytical.work import fma_key

DENSE: Mapping[str, str] = {
    "Qwen/Qwen3-32B": "Qwen--Qwen3-32B",
    "nvidia/Qwen3-32B-NVFP4": "Qwen--Qwen3-32B",
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama--Meta-Llama-3.1-8B",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "meta-llama--Meta-Llama-3.1-8B",
    "meta-llama/Llama-3.1-70B": "meta-llama--Meta-Llama-3.1-70B",
}
"""The sample's dense models to the configurations in the wheel."""
_WEIGHT_BYTES = {"": 2.0, "bfloat16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "nvfp4": 0.5625}
_RATE = {"": "bfloat16", "bfloat16": "bfloat16", "fp8": "float8_e4m3fn", "fp8_block": "float8_e4m3fn",
         "nvfp4": "float4_e2m1fn"}  # fmt: skip
_BACKENDS = ("trtllm", "vllm", "sglang")
PARTS = ("weights", "kv", "arithmetic", "prefill", "links", "layers", "reduces")


@dataclass(frozen=True, kw_only=True)
class ServingRows:
    """Dense aggregated rows; columns of one length."""

    tpot_s: Any
    ttft_s: Any
    parts: Any
    """Seconds of each of :data:`PARTS` in one step; the last two are counts: layers, and all-reduces over links."""
    prefill_s: Any
    """Seconds in which the device could compute the prompt of one request."""
    features: Any
    system: Any
    stack: Any
    """Software, its version, device, model and precision; object column."""
    curve: Any
    """The stack, its tensor parallelism and lengths: the rows of one differ in concurrency only."""


def read_serving(root: Path, devices: Mapping[str, Device]) -> ServingRows:
    """The dense aggregated rows of the sample.

    Raises:
        PublicTableError: where the sample or a model's configuration cannot be read.
    """
    try:
        with (root / "silicon_sample.csv").open(newline="", encoding="utf-8") as file:
            rows = [
                r for r in csv.DictReader(file)
                if r["mode"] == "agg" and r["model_path"] in DENSE and r["system"] in SYSTEMS
                and float(r["silicon_tpot_ms"] or 0.0) > 0.0 and float(r["silicon_ttft_ms"] or 0.0) > 0.0
            ]  # fmt: skip
        configs = {
            name: json.loads((root.parent / "model_configs" / f"{name}_config.json").read_text(encoding="utf-8"))
            for name in set(DENSE.values())
        }
    except (OSError, ValueError, KeyError) as error:
        raise PublicTableError(f"{root}: the end-to-end sample: {error}") from None
    parts, prefill, features = [], [], []
    for row in rows:
        config = configs[DENSE[row["model_path"]]]
        part, prompt, feature = _one(row, config, devices[SYSTEMS[row["system"]]])
        parts.append(part)
        prefill.append(prompt)
        features.append(feature)

    def labels(*names: str) -> Any:
        return np.array(["|".join(row[n] for n in names) for row in rows], dtype=object)

    stack = ("backend", "backend_version", "system", "model_path", "gemm_quant_mode")
    return ServingRows(
        tpot_s=np.array([float(r["silicon_tpot_ms"]) * 1e-3 for r in rows]),
        ttft_s=np.array([float(r["silicon_ttft_ms"]) * 1e-3 for r in rows]),
        parts=np.array(parts),
        prefill_s=np.array(prefill),
        features=np.array(features),
        system=labels("system"),
        stack=labels(*stack),
        curve=labels(*stack, "tp_size", "pp_size", "isl", "osl"),
    )


def _one(row: Mapping[str, str], config: Mapping[str, Any], device: Device) -> tuple[list[float], float, list[float]]:
    hidden, layers = float(config["hidden_size"]), float(config["num_hidden_layers"])
    heads, kv_heads = float(config["num_attention_heads"]), float(config["num_key_value_heads"])
    dim = float(config.get("head_dim") or hidden / heads)
    inner, vocabulary = float(config["intermediate_size"]), float(config["vocab_size"])
    batch, tp = float(row["batch_size"]), float(row["tp_size"])
    prompt, output = float(row["isl"]), float(row["osl"])
    quantised = row["gemm_quant_mode"]
    linear = layers * (hidden * dim * (2.0 * heads + 2.0 * kv_heads) + 3.0 * hidden * inner)
    head = hidden * vocabulary
    weight_bytes = linear * _WEIGHT_BYTES[quantised] + head * 2.0
    rate = device.rate(fma_key(_RATE[quantised])) or device.rate(fma_key("bfloat16"))
    bandwidth = device.bandwidth(device.main_memory.name)
    if rate is None or bandwidth is None:
        raise PublicTableError(f"{device.id} states no rate or bandwidth")
    per_s, bytes_per_s = rate.value_per_s * tp, bandwidth.value_per_s * tp
    context = prompt + output / 2.0
    kv_bytes = batch * context * layers * 2.0 * kv_heads * dim * 2.0
    causal = 2.0 * layers * heads * dim * prompt * prompt
    prefill_s = max((2.0 * linear * prompt + causal) / per_s, weight_bytes / bytes_per_s)
    link = max((each.per_direction_bytes_per_s for each in device.links), default=0.0)
    reduces = 2.0 * layers if tp > 1.0 else 0.0
    reduced = 2.0 * (tp - 1.0) / tp * batch * hidden * 2.0
    links = reduces * reduced / link if link > 0.0 else 0.0
    part = [
        weight_bytes / bytes_per_s, kv_bytes / bytes_per_s, 2.0 * (linear + head) * batch / per_s,
        batch / output * prefill_s, links, layers, reduces,
    ]  # fmt: skip
    feature = [
        np.log2(batch), np.log2(tp), np.log2(prompt), np.log2(output), layers, np.log2(hidden), _WEIGHT_BYTES[quantised],
        *(float(row["backend"] == b) for b in _BACKENDS), np.log2(prefill_s * batch), np.log2(per_s / bytes_per_s),
        float(device.unit_count or 0), np.log2(bytes_per_s),
    ]  # fmt: skip
    return part, prefill_s, feature


def _base(parts: Any, x: Any) -> Any:
    """Seconds of a step: memory against arithmetic, then prefill, links, and fixed costs of a layer and an all-reduce."""
    shares, fixed = np.exp(x[:4]), np.exp(x[4:])
    busy = np.maximum(parts[:, 0] / shares[0] + parts[:, 1] / shares[1], parts[:, 2] / shares[2])
    step = fixed[0] + fixed[1] * parts[:, 5] + fixed[2] * parts[:, 6]
    return step + busy + parts[:, 3] / shares[3] + parts[:, 4]


@dataclass(frozen=True, kw_only=True)
class StepModel:
    """A fitted model of the time per output token, or of the time to the first."""

    target: str
    constants: Any
    boosting: Any
    with_stack: bool
    stacks: tuple[str, ...]

    def predict(self, rows: ServingRows, which: Any) -> Any:
        """Seconds of the rows that an index or boolean column selects."""
        base = _target_base(self.target, rows, which, self.constants)
        with one_thread():
            correction = self.boosting.predict(_step_features(rows, which, base, self.stacks, self.with_stack))
        return base * np.exp(correction)


def fit_step(rows: ServingRows, which: Any, target: str = "tpot", *, with_stack: bool, seed: int = 0) -> StepModel:
    """Learn from the selected rows.

    Args:
        rows: the sample.
        which: rows to learn from, an index or boolean column.
        target: ``tpot`` or ``ttft``.
        with_stack: whether the stack itself is known: inside a stack that was measured it is, on another system not.
        seed: of the trees.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    tpot = np.log(rows.tpot_s[which])
    parts = rows.parts[which]
    first = np.log([0.6, 0.5, 0.5, 0.4, 1e-3, 2e-5, 1e-5])
    lower, upper = np.log([0.05] * 4 + [1e-6] * 3), np.log([1.5] * 4 + [1e-1, 1e-3, 1e-3])

    def residuals(x: Any) -> Any:
        return np.log(_base(parts, x)) - tpot

    found = least_squares(residuals, first, bounds=(lower, upper), loss="soft_l1", f_scale=0.15)
    base = _target_base(target, rows, which, found.x)
    truth = np.log((rows.tpot_s if target == "tpot" else rows.ttft_s)[which])
    stacks = tuple(sorted(set(rows.stack[which])))
    regressor = HistGradientBoostingRegressor(
        loss="absolute_error", max_iter=200 if with_stack else 60, learning_rate=0.08, max_leaf_nodes=12,
        min_samples_leaf=8 if with_stack else 25, l2_regularization=1.0, early_stopping=False, random_state=seed,
    )  # fmt: skip
    with one_thread():
        regressor.fit(_step_features(rows, which, base, stacks, with_stack), truth - np.log(base))
    return StepModel(target=target, constants=found.x, boosting=regressor, with_stack=with_stack, stacks=stacks)


def _target_base(target: str, rows: ServingRows, which: Any, constants: Any) -> Any:
    step = _base(rows.parts[which], constants)
    if target == "tpot":
        return step
    return step + rows.prefill_s[which] / np.exp(constants[3])


def _step_features(rows: ServingRows, which: Any, base: Any, stacks: tuple[str, ...], with_stack: bool) -> Any:
    parts = np.log2(np.maximum(rows.parts[which][:, :5], 1e-9)) - np.log2(base)[:, None]
    columns = [rows.features[which][:, : None if with_stack else 11], parts, np.log2(base)]
    if with_stack:
        code = {name: float(i) for i, name in enumerate(stacks)}
        columns.append(np.array([code.get(name, np.nan) for name in rows.stack[which]]))
    return np.column_stack(columns)
