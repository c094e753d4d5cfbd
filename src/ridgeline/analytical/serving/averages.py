"""Averages of a batch that neither grows nor shrinks: what can be said of serving without simulating it.

With n sequences decoding, every step yields n tokens; so n / (o - 1) requests end in it, and as many prompts of p tokens
have to be worked on. The step of that mixture is the mean time per output token, and n / ((o - 1) step) the throughput.
It is the throughput of a server that always has exactly n: arrivals that bunch take longer. Nothing here knows of queues,
so it has no percentiles, and no time to first token but the one of an empty server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from ridgeline.analytical.serving.traffic import Lengths, TrafficError

StepTimes = Callable[[Any, Any, Any, Any], Any]
"""A :data:`~ridgeline.analytical.serving.server.StepTime` that takes float64 columns too."""


class PercentileError(ValueError):
    """Percentiles were asked of averages. One line."""


@dataclass(frozen=True)
class LengthMeans:
    """What averages need of the length distributions, in tokens."""

    input: float
    output: float
    prefill_context: float
    """Mean tokens that a prompt token attends to."""
    decode_context: float
    """Mean tokens that a decoded token attends to; long answers weigh as often as they decode."""
    longest: int
    """Input and output of the longest request, at the 99.9th percentile of each."""


def length_means(inputs: Lengths, outputs: Lengths) -> LengthMeans:
    """Means over independent lengths.

    Raises:
        TrafficError: where answers have one token: nothing decodes, and there is no time per output token.
    """
    grid = (np.arange(4096) + 0.5) / 4096
    p = inputs.quantile(grid).astype(np.float64)
    o = outputs.quantile(grid).astype(np.float64)
    if float(o.mean()) <= 1.0:
        raise TrafficError("answers of one token have no time per output token: give longer output lengths")
    return LengthMeans(
        float(p.mean()),
        float(o.mean()),
        float((p * (p + 1.0) / 2.0).sum() / p.sum()),
        float(p.mean() + ((o - 1.0) * o / 2.0).sum() / (o - 1.0).sum()),
        int(np.quantile(p, 0.999) + np.quantile(o, 0.999)),
    )


@dataclass(frozen=True)
class Averages:
    """Averages for numbers of decoding sequences; columns of one length."""

    sequences: Any
    tpot_s: Any
    requests_per_s: Any
    output_tokens_per_s: Any
    tokens_per_step: Any
    """Decoded and prompt tokens together: what the token budget must hold."""
    kv_tokens: Any

    def percentile(self, metric: str, percentile: float) -> NoReturn:
        """Refused.

        Raises:
            PercentileError: always.
        """
        raise PercentileError(
            f"p{percentile:g} {metric} depends on how requests queue: averages cannot tell it, simulate "
            f"(ridgeline.analytical.serving.simulation)"
        )


def averages(step_times: StepTimes, lengths: LengthMeans, sequences: Any) -> Averages:
    """The averages with ``sequences`` decoding, a number or a float64 column."""
    n = np.asarray(sequences, dtype=np.float64)
    ends = n / (lengths.output - 1.0)
    prompt_tokens = ends * lengths.input
    context = n * lengths.decode_context
    step = np.asarray(step_times(prompt_tokens, np.full_like(n, lengths.prefill_context), n, context))
    rate = ends / step
    return Averages(n, step, rate, rate * lengths.output, n + prompt_tokens, context)
