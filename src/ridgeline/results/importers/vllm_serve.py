"""The JSON of ``vllm bench serve --save-result``, and of ``benchmark_serving.py``, its predecessor.

Field names as in vllm/benchmarks/serve.py (vllm at 009e6d4): times are ``<statistic>_<metric>_ms`` with the statistics
``mean``, ``median``, ``std`` and ``p99`` ..., metrics ttft, tpot, itl, e2el. The file names neither the device nor how many
there were, unless ``--metadata KEY=VALUE`` did; the command's options say it. ``--append-result`` writes one document after
the other.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ridgeline.analytical.quantities import digest
from ridgeline.results.durable import StoreError, one_line
from ridgeline.results.importers.source_file import SourceFile, known_import, now_utc, read_source, store_import
from ridgeline.results.serving import METRICS, Serving
from ridgeline.results.store import Store, new_run_id

TOOL = "vllm bench serve"
SERVING_SUFFIX = "-serving"
_MADE_BY = "not of vllm bench serve: make it with --save-result"
_TIME = re.compile(rf"^(mean|median|std|p(\d+(?:\.\d+)?))_({'|'.join(METRICS)})_ms$")
_TENSOR_PARALLEL = ("tensor_parallel_size", "tensor_parallel", "tp")
_GPUS = ("num_gpus", "gpu_count", "gpus")
_DEVICE = ("device", "gpu", "hardware", "hw")
_KNOWN = {
    "date", "endpoint_type", "backend", "label", "model_id", "request_rate", "max_concurrency", "duration", "completed",
    "failed", "total_input_tokens", "total_output_tokens", "request_throughput", "request_goodput", "output_throughput",
    "total_token_throughput", *_TENSOR_PARALLEL, *_GPUS, *_DEVICE,
}  # fmt: skip


@dataclass(frozen=True)
class Stated:
    """What the user says of a run whose file does not."""

    device_text: str = ""
    gpu_count: int | None = None
    tensor_parallel: int | None = None
    version: str = ""
    precision: str = ""


def import_vllm(store: Store, path: Path, stated: Stated | None = None) -> tuple[str, int, bool]:
    """Put the runs of a file into the store as records of kind ``serving``.

    Returns:
        id of the run, records in it, and whether it was written: ``False`` where it was imported before.

    Raises:
        StoreError: where the file is not of vllm bench serve, was cut off, or its times are not in milliseconds. Nothing
            is written then.
    """
    source = read_source(path)
    stated = stated or Stated()
    run_id = f"{new_run_id()}{SERVING_SUFFIX}"
    records = [
        read_result(source, values, run_id, stated, f"{source.path}: result {number}")
        for number, values in enumerate(documents(source), start=1)
    ]
    return put(store, source, TOOL, records, {"stated": repr(stated)})


def put(
    store: Store, source: SourceFile, tool: str, records: list[Serving], more: Mapping[str, Any]
) -> tuple[str, int, bool]:
    """Store the records of a file, once."""
    identity = digest({"tool": tool, "source": source.digest, **more})
    known = known_import(store, identity)
    if known is not None:
        return known, len(records), False
    first = records[0]
    store_import(
        store, run_id=first.run_id, tool=tool, identity=identity, records=records, device=None,
        name=first.device_text or "unknown device",
    )  # fmt: skip
    return first.run_id, len(records), True


def documents(source: SourceFile) -> list[Any]:
    """The JSON documents of a file, one after the other or in a list.

    Raises:
        StoreError: where one is not JSON, or was cut off, or there is none.
    """
    text, found, at = source.text(), [], 0
    decoder = json.JSONDecoder()
    try:
        while at < len(text):
            if text[at].isspace():
                at += 1
                continue
            value, at = decoder.raw_decode(text, at)
            found += value if isinstance(value, list) else [value]
    except (json.JSONDecodeError, RecursionError) as error:
        raise StoreError(f"{source.path}: not JSON, or cut off: {one_line(error)}") from None
    if not found:
        raise StoreError(f"{source.path}: nothing in it")
    return found


def read_result(source: SourceFile, values: Any, run_id: str, stated: Stated, where: str) -> Serving:
    """The record of one parsed document.

    Raises:
        StoreError: as :func:`import_vllm`.
    """
    if not isinstance(values, dict) or "model_id" not in values or "request_throughput" not in values:
        raise StoreError(f"{where}: no model_id or no request_throughput: {_MADE_BY}")
    latencies = read_latencies(values, where)
    completed = number(values, "completed", where)
    if not completed:
        raise StoreError(f"{where}: no request was completed: it measured nothing")
    _check_milliseconds(values, latencies, where)
    concurrency = number(values, "max_concurrency", where)
    gpus = stated.gpu_count or _whole(first_of(values, _GPUS), where)
    tensor_parallel = stated.tensor_parallel or _whole(first_of(values, _TENSOR_PARALLEL), where)
    total, output = number(values, "total_token_throughput", where), number(values, "output_throughput", where)
    return serving_record(
        where,
        {
            "record_id": secrets.token_hex(8),
            "run_id": run_id,
            "started_at": now_utc(),
            "tool": TOOL,
            "tool_version": stated.version,
            "source_file": source.name,
            "source_digest": source.digest,
            "measured_at": str(values.get("date") or ""),
            "served_model": str(values["model_id"]),
            "device_text": stated.device_text or str(first_of(values, _DEVICE) or ""),
            "backend": str(values.get("backend") or values.get("endpoint_type") or ""),
            "precision": stated.precision,
            "gpu_count": gpus,
            "tensor_parallel": tensor_parallel,
            "concurrency": concurrency,
            "request_rate_per_s": None if values.get("request_rate") == "inf" else number(values, "request_rate", where),
            "mean_input_tokens": _ratio(number(values, "total_input_tokens", where), completed),
            "mean_output_tokens": _ratio(number(values, "total_output_tokens", where), completed),
            "completed": completed,
            "failed": number(values, "failed", where),
            "duration_s": number(values, "duration", where),
            "requests_per_s": number(values, "request_throughput", where),
            "output_tokens_per_s": output,
            "total_tokens_per_s": total,
            "output_tokens_per_s_per_gpu": _ratio(output, gpus),
            "total_tokens_per_s_per_gpu": _ratio(total, gpus),
            "goodput_requests_per_s": number(values, "request_goodput", where),
            "latencies": latencies,
            "further": {
                key: value
                for key, value in values.items()
                if isinstance(value, int | float | bool | str) and key not in _KNOWN and not _TIME.match(key)
                and not (isinstance(value, float) and not math.isfinite(value))
            },
        },
    )  # fmt: skip


def read_latencies(values: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """Statistics in seconds, by metric."""
    found: dict[str, dict[str, Any]] = {}
    for key in values:
        match = _TIME.match(key)
        if match is None:
            continue
        milliseconds = number(values, key, where)
        if milliseconds is None:
            continue
        statistic, percentile, metric = match.groups()
        put_statistic(found.setdefault(metric, {}), statistic, percentile, milliseconds / 1e3)
    return found


def put_statistic(into: dict[str, Any], statistic: str, percentile: str | None, seconds: float) -> None:
    """Put one statistic in its place."""
    if percentile is not None:
        into.setdefault("percentiles_s", {})[percentile] = seconds
    else:
        into[{"mean": "mean_s", "median": "median_s", "std": "stddev_s"}[statistic]] = seconds


def serving_record(where: str, values: Mapping[str, Any]) -> Serving:
    """Validate a record; a refusal names ``where`` and the key."""
    try:
        return Serving.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        said = str(first["msg"]).removeprefix("Value error, ")
        raise StoreError(f"{where}: {f'{key}: ' if key else ''}{said}") from None


def number(values: Mapping[str, Any], key: str, where: str) -> float | None:
    """A number of the file, ``None`` where it has none."""
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise StoreError(f"{where}: {key}: {value!r} is not a number")
    return value


def first_of(values: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    """The first of ``keys`` that is there."""
    return next((values[key] for key in keys if values.get(key) is not None), None)


def _whole(value: Any, where: str) -> int | None:
    if value is None:
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        raise StoreError(f"{where}: {value!r} is not a count") from None


def _ratio(value: float | None, by: float | None) -> float | None:
    return value / by if value is not None and by else None


def _check_milliseconds(values: Mapping[str, Any], latencies: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Refuse times that cannot be milliseconds: by Little's law, the mean latency times the rate is the concurrency."""
    rate, duration = values.get("request_throughput"), values.get("duration")
    latency = latencies.get("e2el", {}).get("mean_s")
    if latency is None and "ttft" in latencies and "tpot" in latencies and values.get("total_output_tokens"):
        rest = values["total_output_tokens"] / values["completed"] - 1
        latency = (latencies["ttft"].get("mean_s") or 0.0) + rest * (latencies["tpot"].get("mean_s") or 0.0)
    if not latency or not isinstance(duration, int | float) or not isinstance(rate, int | float):
        return
    if latency > 2.0 * duration:
        raise StoreError(
            f"{where}: a mean latency of {latency:g} s in a run of {duration:g} s: its times are not in milliseconds"
        )
    if duration > 0 and not math.isclose(rate, values["completed"] / duration, rel_tol=0.02):
        raise StoreError(
            f"{where}: {values['completed']} requests in {duration:g} s are not {rate:g} per second: not in seconds?"
        )
    if latency * values["completed"] < 1e-3 * duration:
        raise StoreError(
            f"{where}: {values['completed']} requests of {latency:g} s fill no run of {duration:g} s: its times are not "
            f"in milliseconds"
        )
