"""InferenceX: aggregates of its runs and rows of its dashboard become records of kind serving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ridgeline.results.durable import StoreError
from ridgeline.results.importers.inferencex import import_inferencex
from ridgeline.results.serving import Serving
from ridgeline.results.store import Store


def aggregate(**more: Any) -> dict[str, Any]:
    """What utils/process_result.py writes; times in seconds, rates of tokens per user beside them."""
    values: dict[str, Any] = {
        "hw": "h200", "tp": 8, "ep": 1, "dp_attention": "false", "conc": 64, "model": "deepseek-ai/DeepSeek-R1-0528",
        "framework": "sglang", "precision": "fp8", "isl": 1024, "osl": 1024, "image": "lmsysorg/sglang:v0.5.5",
        "tput_per_gpu": 520.0, "output_tput_per_gpu": 260.0, "input_tput_per_gpu": 260.0,
    }  # fmt: skip
    for metric, seconds in (("ttft", 0.8), ("tpot", 0.028), ("itl", 0.028), ("e2el", 29.0)):
        values |= {f"mean_{metric}": seconds, f"median_{metric}": seconds, f"p99_{metric}": seconds * 1.5}
    values |= {"mean_intvty": 1 / 0.028, "median_intvty": 1 / 0.028, "p99_intvty": 1 / 0.042}
    return {**values, **more}


def imported(tmp_path: Path, values: Any) -> list[Serving]:
    store = Store(tmp_path / "store")
    path = tmp_path / "agg.json"
    path.write_text(json.dumps(values))
    run_id, count, written = import_inferencex(store, path)
    records = [record for record in store.records(run_id)[0] if isinstance(record, Serving)]
    assert (len(records), written) == (count, True)
    assert import_inferencex(store, path) == (run_id, count, False)
    return records


def test_an_aggregate_becomes_a_record(tmp_path: Path) -> None:
    (record,) = imported(tmp_path, aggregate())
    assert (record.device_text, record.backend, record.precision) == ("h200", "sglang", "fp8")
    assert (record.gpu_count, record.tensor_parallel, record.concurrency) == (8, 8, 64)
    assert record.dp_attention is False
    assert record.latencies["tpot"].median_s == pytest.approx(0.028)
    assert record.latencies["e2el"].percentiles_s == {"99": pytest.approx(43.5)}
    assert record.total_tokens_per_s_per_gpu == 520.0
    assert record.output_tokens_per_s == pytest.approx(2080.0)
    assert (record.mean_input_tokens, record.mean_output_tokens) == (1024.0, 1024.0)


def test_rows_of_the_dashboard_and_disaggregation(tmp_path: Path) -> None:
    inner = {key: value for key, value in aggregate().items() if isinstance(value, float)}
    row = {
        "hardware": "gb200", "framework": "dynamo-trt", "model": "dsr1", "precision": "fp4", "disagg": True,
        "prefill_tp": 4, "decode_tp": 8, "decode_ep": 8, "decode_dp_attention": True, "num_prefill_gpu": 8,
        "num_decode_gpu": 16, "isl": 1024, "osl": 8192, "conc": 512, "date": "2026-06-14",
        "metrics": {**inner, "avg_power_w": 700.0},
    }  # fmt: skip
    (record, _) = imported(tmp_path, [row, aggregate()])
    assert (record.gpu_count, record.tensor_parallel, record.disaggregated) == (24, 8, True)
    assert record.power_w_per_gpu == 700.0
    assert record.total_tokens_per_s == pytest.approx(520.0 * 24)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "agg_"),
        ([3], "agg_"),
        (aggregate(hw=None), "agg_"),
        (aggregate(mean_tpot=28.0), "not in seconds"),
        (aggregate(median_ttft="quick"), "median_ttft"),
        (aggregate(tp="eight"), "tp"),
        (aggregate(dp_attention="perhaps"), "true nor false"),
        (aggregate(tput_per_gpu=-1.0), "tokens_per_s"),
    ],
)
def test_what_is_not_of_inferencex_is_refused_in_one_line(tmp_path: Path, values: Any, said: str) -> None:
    store = Store(tmp_path / "store")
    path = tmp_path / "agg.json"
    path.write_text(json.dumps(values))
    with pytest.raises(StoreError, match=said) as refused:
        import_inferencex(store, path)
    assert "\n" not in str(refused.value)
    assert store.runs() == []
