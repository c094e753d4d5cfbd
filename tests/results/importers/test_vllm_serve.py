"""Results of ``vllm bench serve`` become records of kind serving; what is no such file is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ridgeline.results import views
from ridgeline.results.durable import StoreError
from ridgeline.results.importers.vllm_serve import Stated, import_vllm
from ridgeline.results.serving import Serving
from ridgeline.results.store import Store


def result(**more: Any) -> dict[str, Any]:
    """A result with the fields of vllm/benchmarks/serve.py, of 100 requests of 1024 and 128 tokens."""
    values: dict[str, Any] = {
        "date": "20260801-120000", "endpoint_type": "vllm", "backend": "vllm", "label": None,
        "model_id": "meta-llama/Llama-3.1-8B-Instruct", "tokenizer_id": "meta-llama/Llama-3.1-8B-Instruct",
        "num_prompts": 100, "request_rate": "inf", "burstiness": 1.0, "max_concurrency": 16, "duration": 12.5,
        "completed": 100, "failed": 0, "total_input_tokens": 102400, "total_output_tokens": 12800,
        "request_throughput": 8.0, "request_goodput": None, "output_throughput": 1024.0, "total_token_throughput": 9216.0,
        "max_output_tokens_per_s": 1500.0, "max_concurrent_requests": 16, "rtfx": 0.0,
    }  # fmt: skip
    for metric, milliseconds in (("ttft", 120.0), ("tpot", 14.0), ("itl", 14.0)):
        values |= {f"mean_{metric}_ms": milliseconds, f"median_{metric}_ms": milliseconds * 0.9}
        values |= {f"std_{metric}_ms": milliseconds * 0.1, f"p99_{metric}_ms": milliseconds * 1.8}
    return {**values, **more}


def file_of(tmp_path: Path, *documents: dict[str, Any]) -> Path:
    path = tmp_path / "bench.json"
    path.write_text("\n".join(map(json.dumps, documents)))
    return path


def test_a_result_becomes_a_record_in_seconds_per_gpu(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path = file_of(tmp_path, result())
    run_id, count, written = import_vllm(store, path, Stated("2x H100", 2, 2, "0.24.0", "bfloat16"))
    assert (count, written) == (1, True)
    (record,) = store.records(run_id)[0]
    assert isinstance(record, Serving)
    assert record.served_model == "meta-llama/Llama-3.1-8B-Instruct"
    assert record.latencies["tpot"].median_s == pytest.approx(0.0126)
    assert record.latencies["ttft"].percentiles_s == {"99": pytest.approx(0.216)}
    assert (record.concurrency, record.request_rate_per_s) == (16, None)
    assert (record.mean_input_tokens, record.mean_output_tokens) == (1024.0, 128.0)
    assert record.total_tokens_per_s_per_gpu == pytest.approx(4608.0)
    assert (record.gpu_count, record.tensor_parallel, record.tool_version) == (2, 2, "0.24.0")
    assert record.further["max_concurrent_requests"] == 16
    assert views.rows(store) == []  # never mixed with our own measurements
    assert import_vllm(store, path, Stated("2x H100", 2, 2, "0.24.0", "bfloat16")) == (run_id, 1, False)


def test_appended_results_metadata_and_a_rate(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first = result(request_rate=8.0, max_concurrency=None, tensor_parallel_size="4", gpu="H200")
    run_id, count, _ = import_vllm(store, file_of(tmp_path, first, result()))
    assert count == 2
    records = [record for record in store.records(run_id)[0] if isinstance(record, Serving)]
    assert (records[0].request_rate_per_s, records[0].concurrency) == (8.0, None)
    assert (records[0].tensor_parallel, records[0].device_text) == (4, "H200")
    assert records[1].gpu_count is None  # the file does not say, so there is no figure per GPU
    assert records[1].total_tokens_per_s_per_gpu is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "--save-result"),
        ("[1]", "--save-result"),
        ("", "nothing"),
        ("not json", "not JSON"),
        (json.dumps(result())[:200], "cut off"),
        (json.dumps(result(completed=0)), "no request was completed"),
        (json.dumps(result(mean_ttft_ms="fast")), "mean_ttft_ms"),
        (json.dumps(result(mean_ttft_ms=0.12e-3, mean_tpot_ms=0.014e-6)), "milliseconds"),
        (json.dumps(result(mean_ttft_ms=120e6)), "milliseconds"),
        (json.dumps(result(p99_ttft_ms=1.0)), "percentile"),
        (json.dumps(result(request_throughput=80.0)), "per second"),
        (json.dumps({k: v for k, v in result().items() if not k.endswith("_ms")}), "latency"),
    ],
)
def test_what_is_no_result_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    store = Store(tmp_path / "store")
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=said) as refused:
        import_vllm(store, path)
    assert "\n" not in str(refused.value)
    assert store.runs() == []
