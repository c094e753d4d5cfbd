"""InferenceX (formerly InferenceMAX): ``agg_*.json`` of a run, a list of them, or rows of its dashboard.

Field names as in utils/process_result.py and utils/summarize.py of SemiAnalysisAI/InferenceX: ``hw``, ``tp``, ``ep``, ``conc``,
``isl``, ``osl``, ``tput_per_gpu``, ``output_tput_per_gpu`` and times ``<statistic>_<metric>`` *in seconds* (it divides
vLLM's milliseconds by 1000); ``intvty`` is one over tpot. The dashboard's rows (InferenceX-app) say ``hardware``,
``decode_tp``, ``num_prefill_gpu`` and hold the figures under ``metrics``.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ridgeline.results.durable import StoreError
from ridgeline.results.importers.source_file import SourceFile, now_utc, read_source
from ridgeline.results.importers.vllm_serve import (
    SERVING_SUFFIX,
    documents,
    first_of,
    number,
    put,
    put_statistic,
    serving_record,
)
from ridgeline.results.serving import METRICS, Serving
from ridgeline.results.store import Store, new_run_id

TOOL = "inferencex"
_MADE_BY = "not of InferenceX: an agg_*.json of its runs, or rows of its dashboard"
_TIME = re.compile(rf"^(mean|median|std|p(\d+(?:\.\d+)?))_({'|'.join(METRICS)})$")
_FURTHER = ("image", "mtp", "spec_decoding", "spec_method", "infmax_model_prefix", "run_url", "offload_mode",
            "benchmark_type", "scenario_type", "prefill_tp", "prefill_ep", "prefill_num_workers", "decode_num_workers",
            "num_prefill_gpu", "num_decode_gpu")  # fmt: skip


def import_inferencex(store: Store, path: Path) -> tuple[str, int, bool]:
    """Put the results of a file into the store as records of kind ``serving``.

    Returns:
        id of the run, records in it, and whether it was written: ``False`` where it was imported before.

    Raises:
        StoreError: where the file is not of InferenceX, was cut off, or its times are not in seconds. Nothing is written
            then.
    """
    source = read_source(path)
    run_id = f"{new_run_id()}{SERVING_SUFFIX}"
    records = [
        read_row(source, values, run_id, f"{source.path}: result {place}")
        for place, values in enumerate(documents(source), start=1)
    ]
    return put(store, source, TOOL, records, {})


def read_row(source: SourceFile, values: Any, run_id: str, where: str) -> Serving:
    """The record of one result.

    Raises:
        StoreError: as :func:`import_inferencex`.
    """
    if not isinstance(values, dict):
        raise StoreError(f"{where}: {_MADE_BY}")
    figures = values["metrics"] if isinstance(values.get("metrics"), dict) else values
    hardware, model = first_of(values, ("hw", "hardware")), values.get("model")
    if not hardware or not model or figures.get("tput_per_gpu") is None:
        raise StoreError(f"{where}: no hw, model or tput_per_gpu: {_MADE_BY}")
    latencies = _latencies(figures, where)
    _check_seconds(figures, where)
    tensor_parallel = _count(values, ("tp", "decode_tp"), where)
    gpus = _gpus(values, tensor_parallel, where)
    total, output = (number(figures, key, where) for key in ("tput_per_gpu", "output_tput_per_gpu"))
    return serving_record(
        where,
        {
            "record_id": secrets.token_hex(8),
            "run_id": run_id,
            "started_at": now_utc(),
            "tool": TOOL,
            "source_file": source.name,
            "source_digest": source.digest,
            "measured_at": str(values.get("date") or ""),
            "served_model": str(model),
            "device_text": str(hardware),
            "backend": str(values.get("framework") or ""),
            "precision": str(values.get("precision") or ""),
            "gpu_count": gpus,
            "tensor_parallel": tensor_parallel,
            "expert_parallel": _count(values, ("ep", "decode_ep"), where),
            "dp_attention": _truth(first_of(values, ("dp_attention", "decode_dp_attention")), where),
            "disaggregated": bool(_truth(values.get("disagg"), where)),
            "concurrency": _count(values, ("conc",), where),
            "mean_input_tokens": first_of({**values, **figures}, ("mean_input_tokens", "isl")),
            "mean_output_tokens": first_of({**values, **figures}, ("mean_output_tokens_actual", "osl")),
            "duration_s": number(figures, "duration_seconds", where),
            "output_tokens_per_s": output * gpus if output is not None and gpus else None,
            "total_tokens_per_s": total * gpus if total is not None and gpus else None,
            "output_tokens_per_s_per_gpu": output,
            "total_tokens_per_s_per_gpu": total,
            "power_w_per_gpu": number(figures, "avg_power_w", where),
            "latencies": latencies,
            "further": {key: values[key] for key in _FURTHER if isinstance(values.get(key), int | float | bool | str)},
        },
    )


def _latencies(figures: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for key in figures:
        match = _TIME.match(key)
        seconds = number(figures, key, where) if match is not None else None
        if match is not None and seconds is not None:
            statistic, percentile, metric = match.groups()
            put_statistic(found.setdefault(metric, {}), statistic, percentile, seconds)
    return found


def _check_seconds(figures: Mapping[str, Any], where: str) -> None:
    """``intvty`` is one over tpot in seconds: refuse where it is not."""
    for statistic in ("mean", "median"):
        tpot, rate = number(figures, f"{statistic}_tpot", where), number(figures, f"{statistic}_intvty", where)
        if tpot and rate and not math.isclose(tpot * rate, 1.0, rel_tol=0.01):
            raise StoreError(
                f"{where}: a {statistic} tpot of {tpot:g} with {rate:g} tokens per second and user: its times are not in "
                f"seconds"
            )


def _gpus(values: Mapping[str, Any], tensor_parallel: int | None, where: str) -> int | None:
    """Devices of the deployment; disaggregated ones say those of each role, the others have as many as ``tp``."""
    prefill, decode = (_count(values, (key,), where) for key in ("num_prefill_gpu", "num_decode_gpu"))
    if _truth(values.get("disagg"), where):
        return prefill + decode if prefill and decode else None
    return decode or tensor_parallel


def _count(values: Mapping[str, Any], keys: tuple[str, ...], where: str) -> int | None:
    value = first_of(values, keys)
    if value is None:
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        raise StoreError(f"{where}: {keys[0]}: {value!r} is not a count") from None


def _truth(value: Any, where: str) -> bool | None:
    """Booleans come as such or as the shell's words."""
    if value is None or isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false", ""):
        return str(value).lower() == "true"
    raise StoreError(f"{where}: {value!r} is neither true nor false")
