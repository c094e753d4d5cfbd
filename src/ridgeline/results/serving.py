"""Serving runs that another tool measured: a whole engine under load. They are shown in a table of their own."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from ridgeline.results.fact import Fact, StoredRecord

METRICS = ("ttft", "tpot", "itl", "e2el")
"""Time to first token, time per output token after it, gap between two tokens, end-to-end latency."""


class LatencyStatistics(Fact):
    """What the tool said of one metric, in seconds; what it left out is null."""

    mean_s: float | None = Field(default=None, ge=0.0)
    median_s: float | None = Field(default=None, ge=0.0)
    stddev_s: float | None = Field(default=None, ge=0.0)
    percentiles_s: dict[str, float] = {}
    """By percentile, such as ``"99"``."""

    @model_validator(mode="after")
    def _consistent(self) -> LatencyStatistics:
        found = {float(name): value for name, value in self.percentiles_s.items()}
        if any(not 0.0 < p < 100.0 or value < 0.0 for p, value in found.items()):
            raise ValueError("percentiles lie between 0 and 100, times are not negative")
        if self.median_s is not None:
            found.setdefault(50.0, self.median_s)
        rising = [found[p] for p in sorted(found)]
        if any(later < earlier * (1 - 1e-6) for earlier, later in pairwise(rising)):
            raise ValueError("a higher percentile lies below a lower one")
        return self


class Serving(StoredRecord):
    """One load on one engine."""

    kind: Literal["serving"] = "serving"
    tool: str
    """The tool that measured, such as ``vllm bench serve``."""
    tool_version: str = ""
    source_file: str
    """Name of the file, without its folder."""
    source_digest: str
    """SHA-256 of the file."""
    measured_at: str = ""
    """When, in the tool's words."""
    served_model: str
    device_text: str = ""
    """The hardware in the tool's words; empty where it does not say."""
    backend: str = ""
    """The serving engine: vllm, sglang, trt ..."""
    precision: str = ""
    """In the tool's words: fp8, fp4 ..."""
    gpu_count: int | None = Field(default=None, ge=1)
    """Devices that served; null where the tool does not say."""
    tensor_parallel: int | None = Field(default=None, ge=1)
    pipeline_parallel: int | None = Field(default=None, ge=1)
    expert_parallel: int | None = Field(default=None, ge=1)
    dp_attention: bool | None = None
    disaggregated: bool = False
    """Whether prefill and decode ran on devices of their own."""
    concurrency: int | None = Field(default=None, ge=1)
    """Most requests under way; null where only the rate limits."""
    request_rate_per_s: float | None = Field(default=None, gt=0.0)
    """Null where requests came as fast as the concurrency let them."""
    mean_input_tokens: float | None = Field(default=None, gt=0.0)
    """Mean of a request, or the nominal length where the tool states no mean."""
    mean_output_tokens: float | None = Field(default=None, gt=0.0)
    completed: int | None = Field(default=None, ge=1)
    failed: int | None = Field(default=None, ge=0)
    duration_s: float | None = Field(default=None, gt=0.0)
    requests_per_s: float | None = Field(default=None, gt=0.0)
    output_tokens_per_s: float | None = Field(default=None, gt=0.0)
    total_tokens_per_s: float | None = Field(default=None, gt=0.0)
    output_tokens_per_s_per_gpu: float | None = Field(default=None, gt=0.0)
    total_tokens_per_s_per_gpu: float | None = Field(default=None, gt=0.0)
    goodput_requests_per_s: float | None = Field(default=None, ge=0.0)
    power_w_per_gpu: float | None = Field(default=None, gt=0.0)
    latencies: dict[str, LatencyStatistics]
    """By metric: ttft, tpot, itl, e2el."""
    further: dict[str, int | float | bool | str] = {}
    """What else the file says of the run, by its own names."""

    @model_validator(mode="after")
    def _known(self) -> Serving:
        unknown = set(self.latencies) - set(METRICS)
        if unknown:
            raise ValueError(f"unknown metric {sorted(unknown)}: one of {', '.join(METRICS)}")
        if not self.latencies:
            raise ValueError("no latency: a serving run states at least one of ttft, tpot, itl, e2el")
        return self
