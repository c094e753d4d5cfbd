"""What one replica delivers: screened in columns, then simulated at a ladder of loads.

A simulation's clock has no scale of its own: if every step takes f times as long, arrivals at 1/f of the rate see f times the
latencies, and nothing else changes. So one ladder of simulations tells the largest load that keeps the service levels for
*every* f: the load where the latencies stay under 1/f of their limits, over f. That makes thousands of draws cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ridgeline.analytical.layout import Layout
from ridgeline.analytical.purchase.chance import Certain, Chance, Lognormal
from ridgeline.analytical.purchase.scenario import Traffic
from ridgeline.analytical.purchase.step_model import StepModel
from ridgeline.analytical.serving.averages import LengthMeans, averages
from ridgeline.analytical.serving.server import Server
from ridgeline.analytical.serving.simulation import simulate
from ridgeline.analytical.serving.summary import Summary, summarise
from ridgeline.analytical.serving.table import StepTable
from ridgeline.analytical.serving.traffic import Floats, Poisson, make_requests

LOADS = 5
"""Loads that are simulated, spread over where the service levels are decided."""
LEAST_LOAD = 0.15
"""Smallest of them, over the one that averages promise: a replica that is used less is no candidate."""
_LADDER = np.append(2.0 ** np.arange(-8, 0), np.unique(np.geomspace(1.0, 4096.0, 60).round()))
"""Sequences that decode, on average: long prompts with short answers have less than one."""


@dataclass(frozen=True)
class Deployment:
    """One replica: a layout of one device for one traffic, with its step times."""

    device: str
    layout: Layout
    max_sequences: int
    token_budget: int
    model: StepModel

    @property
    def label(self) -> str:
        """Such as ``tp4, 256 sequences``."""
        return f"{self.layout.label}, {self.max_sequences} sequences"


@dataclass(frozen=True)
class Screened:
    """What averages say of a deployment: nothing of queues, so it is at most this good."""

    deployment: Deployment
    requests_per_s: float
    """Largest mean throughput at which the mean time per token keeps its limit and the memory holds; 0: none."""
    saturated_per_s: float
    """The same without any limit on latency."""
    miss: float
    """Latency of a request alone over its limit, for the level that is hardest to keep: over 1 it cannot be kept."""
    hardest: str
    """That level."""


class Screen:
    """Averages of one layout, asked of its step model once, for every batch and slowdown.

    ``first_token`` is the middle of the factor on times to first token.
    """

    def __init__(
        self,
        model: StepModel,
        traffic: Traffic,
        lengths: LengthMeans,
        most_sequences: int,
        budget: int,
        first_token: float = 1.0,
    ) -> None:
        self._traffic = traffic
        n = _LADDER[most_sequences > _LADDER]
        self.sequences = np.append(n, float(most_sequences))
        self.mean = averages(model.step_times, lengths, self.sequences)
        self._fits = (self.mean.kv_tokens <= model.kv_tokens) & (self.mean.tokens_per_step <= budget)
        self._alone = _alone(model, traffic, budget, first_token)

    def judge(self, deployment: Deployment, slowdown: float) -> Screened:
        """Judge a batch size, with steps that take ``slowdown`` times the model's."""
        mean, levels = self.mean, self._traffic.levels
        hardest = max(levels, key=lambda level: self._alone[level.label] / level.limit_s)
        label, miss = hardest.label, self._alone[hardest.label] * slowdown / hardest.limit_s
        fits = self._fits & (self.sequences <= deployment.max_sequences)
        limit = min((level.limit_s for level in levels if level.metric in ("tpot", "itl")), default=np.inf)
        kept = fits & (mean.tpot_s * slowdown <= limit)
        best = float(mean.requests_per_s[kept].max()) / slowdown if kept.any() and miss <= 1.0 else 0.0
        saturated = float(mean.requests_per_s[fits].max()) / slowdown if fits.any() else 0.0
        if fits.any() and not kept.any() and miss <= 1.0:
            miss, label = float(mean.tpot_s[fits].min()) * slowdown / limit, "tpot or itl at the smallest batch"
        return Screened(deployment, best, saturated, miss, label)


def _alone(model: StepModel, traffic: Traffic, budget: int, first_token: float) -> dict[str, float]:
    """Latency by level of a request on an empty server, as long as the level's percentile asks for."""
    u = np.asarray([level.percentile / 100.0 for level in traffic.levels])
    prompt = traffic.input.quantile(u).astype(np.float64)
    answer = traffic.output.quantile(u).astype(np.float64)
    chunks = np.ceil(prompt / budget)
    none = np.zeros(len(u))
    first = chunks * model.step_times(prompt / chunks, (prompt + 1.0) / 2.0, none, none)
    step = model.step_times(none, none, none + 1.0, prompt)
    found = {}
    for i, level in enumerate(traffic.levels):
        e2e = max(first[i], step[i] * (answer[i] - 1.0))
        found[level.label] = float({"ttft": first[i] * first_token, "e2e": e2e}.get(level.metric, step[i]))
    return found


@dataclass(frozen=True)
class Curve:
    """What simulations of one replica say at several loads; at the model's own step times."""

    deployment: Deployment
    requests_per_s: Floats
    """Loads, rising, up to the last with a long run."""
    latencies: dict[str, Floats]
    """Percentile of each service level at each load, seconds, never falling with the load."""
    limits_s: dict[str, float]
    metrics: dict[str, str]
    """Metric of each service level."""
    busy: Floats
    """Share of the time in which steps run."""
    sampling_error: Chance
    """Of the percentile that is hardest to keep: a factor about 1."""
    summaries: tuple[Summary, ...]
    requests: int
    """Of each simulation."""

    @property
    def tightness(self) -> Floats:
        """Latency over limit of the level that is hardest to keep."""
        return np.asarray(np.max([seconds / self.limits_s[label] for label, seconds in self.latencies.items()], axis=0))

    def load_at(self, slowdown: Floats, error: Floats | float = 1.0, first_token: Floats | float = 1.0) -> Floats:
        """Largest load that keeps every level where steps take ``slowdown`` times as long; NaN where none does.

        Between the simulated loads by log-log interpolation; beyond the largest one, that one: nothing is extrapolated.

        Args:
            slowdown: a column.
            error: how far the simulated percentiles lie under the true ones, as a factor.
            first_token: factor on times to first token.
        """
        slowdown = np.asarray(slowdown, dtype=np.float64)
        load = np.log(self.requests_per_s)
        found = np.full(slowdown.shape, np.inf)
        for label, seconds in self.latencies.items():
            factor = slowdown * error * (first_token if self.metrics[label] == "ttft" else 1.0)
            room, tight = -np.log(factor), np.log(seconds / self.limits_s[label])
            own = np.where(room < tight[0], np.nan, np.exp(np.interp(room, tight, load)))
            found = np.where(np.isnan(found) | np.isnan(own), np.nan, np.fmin(found, own))
        return found / slowdown

    def busy_at(self, requests_per_s: Floats, slowdown: Floats) -> Floats:
        """Share of the time in which steps run at a load; from nothing at none, linear to the first simulated load."""
        loads, busy = np.append(0.0, self.requests_per_s), np.append(0.0, self.busy)
        return np.asarray(np.interp(requests_per_s * slowdown, loads, busy))

    def latencies_at(
        self, requests_per_s: Floats, slowdown: Floats, first_token: Floats | float = 1.0
    ) -> dict[str, Floats]:
        """Percentile of each service level at a load; seconds."""
        at, load = np.log(requests_per_s * slowdown), np.log(self.requests_per_s)
        return {
            label: np.exp(np.interp(at, load, np.log(seconds)))
            * slowdown
            * (first_token if self.metrics[label] == "ttft" else 1.0)
            for label, seconds in self.latencies.items()
        }


def curve(
    deployment: Deployment, screened: Screen, traffic: Traffic, requests: int, seed: int, slowdowns: Sequence[float]
) -> Curve | None:
    """Simulate one replica at several loads; ``None`` where not even the smallest has a long run.

    The loads run from a half of what averages promise for the largest of ``slowdowns`` to a little above what they promise for
    the smallest, short of saturation: there the draws will ask.
    """
    model = deployment.model
    longest = longest_request(traffic)
    table = StepTable(model.step_times, deployment.max_sequences, deployment.token_budget, longest)
    server = Server(
        kv_tokens=model.kv_tokens, max_sequences=deployment.max_sequences, token_budget=deployment.token_budget
    )
    promised = [screened.judge(deployment, f).requests_per_s * f for f in slowdowns]
    top = screened.judge(deployment, 1.0).saturated_per_s
    most = min(1.15 * max(promised), 0.97 * top)
    rates = np.geomspace(max(0.5 * min(promised), LEAST_LOAD * max(promised)), most, LOADS)
    found: list[Summary] = []
    for rate in rates:
        drawn = make_requests(Poisson(float(rate)), traffic.input, traffic.output, requests, seed)
        summary = summarise(simulate(table, drawn, server), traffic.levels, percentiles=())
        if summary.percentiles is None:
            break
        found.append(summary)
    if not found:
        return None
    latencies: dict[str, Floats] = {}
    for level in traffic.levels:
        values = [s.percentiles[level.metric, level.percentile].value for s in found if s.percentiles is not None]
        latencies[level.label] = np.maximum.accumulate(np.asarray(values))
    return Curve(
        deployment, np.asarray(rates[: len(found)]), latencies, {lv.label: lv.limit_s for lv in traffic.levels},
        {lv.label: lv.metric for lv in traffic.levels},
        np.asarray([s.utilisation for s in found]), _sampling_error(found[-1], traffic), tuple(found), requests,
    )  # fmt: skip


def _sampling_error(summary: Summary, traffic: Traffic) -> Chance:
    """Spread of the percentile that is hardest to keep, at the largest load: there it is widest."""
    assert summary.percentiles is not None
    percentiles = summary.percentiles
    hardest = max(traffic.levels, key=lambda lv: percentiles[lv.metric, lv.percentile].value / lv.limit_s)
    estimate = percentiles[hardest.metric, hardest.percentile]
    sigma = (estimate.high - estimate.low) / 2.0 / 1.645 / estimate.value
    return Lognormal(1.0, sigma) if sigma > 0.0 else Certain(1.0)


def longest_request(traffic: Traffic) -> int:
    """Tokens of the longest request that can come."""
    end = np.asarray([1.0 - 1e-12])
    return int(traffic.input.quantile(end)[0] + traffic.output.quantile(end)[0])
