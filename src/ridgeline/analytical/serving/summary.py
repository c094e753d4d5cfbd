"""What a simulated run says in the long run: percentiles with their sampling error, throughput, goodput, energy.

The first requests meet an empty server; those before ``warm_up`` of all arrivals are left out, and so are the last ones,
whose company is leaving. Intervals are of batch means (Law, "Simulation Modeling and Analysis", section 9.5.3), for
percentiles by sectioning (Asmussen, Glynn, "Stochastic Simulation", III.5a): the spread of the batches' percentiles about
that of all. A run whose queue grows has no long run: its percentiles are ``None``, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from ridgeline.analytical.serving.server import SimulationError
from ridgeline.analytical.serving.simulation import Run
from ridgeline.analytical.serving.traffic import ClosedLoop, Floats

METRICS = ("ttft", "tpot", "itl", "e2e")
PERCENTILES = (50.0, 90.0, 95.0, 99.0)
BATCHES = 20
LEAST_REQUESTS = 100
"""Fewer measured requests give no percentile."""


@dataclass(frozen=True)
class Estimate:
    """A figure of the long run and the interval that sampling leaves it."""

    value: float
    low: float
    high: float
    confidence: float = 0.9


@dataclass(frozen=True)
class ServiceLevel:
    """What a percentile of a metric may be at most: ``ServiceLevel("ttft", 99, 0.5)``."""

    metric: str
    percentile: float
    limit_s: float

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise SimulationError(f"unknown metric {self.metric!r}: one of {', '.join(METRICS)}")
        if not 0.0 < self.percentile < 100.0 or not self.limit_s > 0.0:
            raise SimulationError(
                f"a service level needs a percentile between 0 and 100 and a positive limit, not "
                f"{self.percentile:g}, {self.limit_s:g}"
            )

    @property
    def label(self) -> str:
        """Such as ``p99 ttft <= 0.5 s``."""
        return f"p{self.percentile:g} {self.metric} <= {self.limit_s:g} s"


@dataclass(frozen=True)
class Watts:
    """What one replica draws while a step runs, and while none does."""

    busy_w: float
    idle_w: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The long run of one simulation."""

    requests: int
    """Measured ones."""
    seconds: float
    """Length of the measured window."""
    unsteady: str
    """Why there are no percentiles; empty where there are."""
    means: dict[str, Estimate] | None
    """By metric; of those whose percentiles were asked for."""
    percentiles: dict[tuple[str, float], Estimate] | None
    """By metric and percentile."""
    requests_per_s: float
    output_tokens_per_s: float
    input_tokens_per_s: float
    utilisation: float
    """Share of the window in which a step ran; mean over the replicas."""
    decode_sequences: float
    """Mean of the decoding batch, over steps by their time."""
    kv_occupancy: float | None
    """Mean share of the pages in use; ``None`` where memory is not limited."""
    kv_peak: float | None
    in_system: float
    """Mean number of requests that wait or run."""
    preemptions: int
    steps: int
    energy_j: float | None
    """Of all replicas over the window."""

    def meets(self, levels: Sequence[ServiceLevel]) -> bool:
        """Whether every level holds; never in an unsteady run."""
        if self.percentiles is None:
            return False
        return all(self.percentiles[level.metric, level.percentile].value <= level.limit_s for level in levels)


def summarise(
    run: Run,
    levels: Sequence[ServiceLevel] = (),
    *,
    percentiles: Sequence[float] = PERCENTILES,
    warm_up: float = 0.2,
    cool_down: float = 0.05,
    power: Watts | None = None,
) -> Summary:
    """The long run of ``run``; ``levels`` adds the percentiles they speak of.

    Raises:
        SimulationError: where too few requests are left to measure.
    """
    count = len(run.requests)
    first, last = int(warm_up * count), int((1.0 - cool_down) * count)
    if last - first < 2:
        raise SimulationError(f"{count} requests leave none to measure after the warm-up: simulate more")
    begin, end = float(run.arrival_s[first]), float(run.arrival_s[last - 1])
    if isinstance(run.requests.arrivals, ClosedLoop) or end <= begin:
        # Closed loops begin with all users at once, and a burst is over before it is answered.
        begin, end = float(np.sort(run.finish_s)[first]), float(np.sort(run.finish_s)[last - 1])
    kept = slice(first, last)
    seconds = end - begin
    done = (run.finish_s > begin) & (run.finish_s <= end)
    unsteady = _unsteady(run, first, last, begin, end)
    if last - first < LEAST_REQUESTS:
        unsteady = unsteady or f"{last - first} measured requests: percentiles need {LEAST_REQUESTS}"
    starts, durations = run.steps.start_s, run.steps.seconds
    inside = np.clip(np.minimum(starts + durations, end) - np.maximum(starts, begin), 0.0, None)
    busy = float(inside.sum())
    replicas = run.server.replicas
    pages = run.server.pages
    wanted = sorted(
        {(metric, p) for metric in METRICS for p in percentiles} | {(s.metric, s.percentile) for s in levels}
    )
    means, found = (None, None) if unsteady else _latencies(run, kept, begin, end, wanted)
    overlap = np.clip(np.minimum(run.finish_s, end) - np.maximum(run.arrival_s, begin), 0.0, None)
    return Summary(
        requests=last - first,
        seconds=seconds,
        unsteady=unsteady,
        means=means,
        percentiles=found,
        requests_per_s=float(done.sum()) / seconds,
        output_tokens_per_s=float(run.requests.output_tokens[done].sum()) / seconds,
        input_tokens_per_s=float(run.requests.input_tokens[done].sum()) / seconds,
        utilisation=busy / (seconds * replicas),
        decode_sequences=float((inside * run.steps.decode_sequences).sum() / busy) if busy > 0.0 else 0.0,
        kv_occupancy=None if pages is None else float((inside * run.steps.pages).sum()) / (seconds * replicas * pages),
        kv_peak=None if pages is None else float(run.steps.pages.max()) / pages,
        in_system=float(overlap.sum()) / seconds,
        preemptions=run.preemptions,
        steps=int(run.steps.count.sum()),
        energy_j=None if power is None else busy * power.busy_w + (seconds * replicas - busy) * power.idle_w,
    )


def good_share(run: Run, limits_s: dict[str, float], *, warm_up: float = 0.2, cool_down: float = 0.05) -> Estimate:
    """Share of the requests that keep *every* limit, by metric (``ttft``, ``tpot``, ``e2e``); their rate is the goodput.

    An answer of one token keeps any limit on tpot.
    """
    count = len(run.requests)
    kept = slice(int(warm_up * count), int((1.0 - cool_down) * count))
    good = np.ones(len(run.arrival_s[kept]), dtype=bool)
    for metric, limit_s in limits_s.items():
        if metric not in ("ttft", "tpot", "e2e"):
            raise SimulationError(f"a request has no {metric!r}: one of ttft, tpot, e2e")
        values = _of_requests(run, metric)[kept]
        good &= ~(values > limit_s)
    return _mean(good.astype(np.float64))


def _of_requests(run: Run, metric: str) -> Floats:
    return {"ttft": run.ttft_s, "tpot": run.tpot_s, "e2e": run.e2e_s}[metric]


def _latencies(
    run: Run, kept: slice, begin: float, end: float, wanted: Sequence[tuple[str, float]]
) -> tuple[dict[str, Estimate], dict[tuple[str, float], Estimate]]:
    means: dict[str, Estimate] = {}
    found: dict[tuple[str, float], Estimate] = {}
    for metric in METRICS:
        asked = [p for name, p in wanted if name == metric]
        if not asked:
            continue
        if metric == "itl":
            inside = (run.gap_at_s > begin) & (run.gap_at_s <= end)
            order = np.argsort(run.gap_at_s[inside], kind="stable")
            values, weights = run.gap_s[inside][order], run.gap_count[inside][order].astype(np.float64)
        else:
            values = _of_requests(run, metric)[kept]
            values = values[~np.isnan(values)]
            weights = np.ones(len(values))
        if len(values) < LEAST_REQUESTS:
            continue
        means[metric] = _mean(values, weights)
        for p, estimate in zip(asked, _quantiles(values, weights, asked), strict=True):
            found[metric, p] = estimate
    return means, found


def _mean(values: Floats, weights: Floats | None = None) -> Estimate:
    weights = np.ones(len(values)) if weights is None else weights
    parts = [
        float(np.average(v, weights=w))
        for v, w in zip(np.array_split(values, BATCHES), np.array_split(weights, BATCHES), strict=True)
        if len(v)
    ]
    return _interval(float(np.average(values, weights=weights)), parts)


def _quantiles(values: Floats, weights: Floats, percentiles: Sequence[float]) -> list[Estimate]:
    whole = _weighted(values, weights, percentiles)
    parts = [
        _weighted(v, w, percentiles)
        for v, w in zip(np.array_split(values, BATCHES), np.array_split(weights, BATCHES), strict=True)
    ]
    return [_interval(float(value), [float(part[i]) for part in parts]) for i, value in enumerate(whole)]


def _weighted(values: Floats, weights: Floats, percentiles: Sequence[float]) -> Floats:
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    at = np.searchsorted(reached, np.asarray(percentiles) / 100.0 * reached[-1])
    return np.asarray(values[order][np.minimum(at, len(values) - 1)])


def _interval(value: float, parts: Sequence[float], confidence: float = 0.9) -> Estimate:
    """Student's interval of batches about the figure of all of them."""
    n = len(parts)
    spread = math.sqrt(sum((part - value) ** 2 for part in parts) / (n * (n - 1)))
    half = float(stdtrit(n - 1, 0.5 + confidence / 2.0)) * spread
    return Estimate(value, value - half, value + half, confidence)


def _unsteady(run: Run, first: int, last: int, begin: float, end: float) -> str:
    """Why the run has no long run, or nothing: more requests are left at the end of the window than at its begin.

    A random walk leaves some; more than 5 % of the arrivals and three of its standard deviations is a queue that grows.
    """
    if isinstance(run.requests.arrivals, ClosedLoop):
        return ""
    arrived = last - first

    def left(at: float) -> int:
        return int(np.count_nonzero((run.arrival_s <= at) & (run.finish_s > at)))

    growth = left(end) - left(begin)
    if growth > max(0.05 * arrived, 3.0 * math.sqrt(arrived)):
        return (
            f"the load exceeds the capacity: of {arrived} requests that came, {growth} more were unanswered at the end "
            f"than at the begin"
        )
    return ""
