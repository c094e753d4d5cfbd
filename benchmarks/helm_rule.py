"""The peer of idealized runtimes: HELM's own look-up (helm/benchmark/metrics/efficiency_metrics.py @63754d05).

Written from its description in that file: the smallest profiled prompt that is not shorter gives its time, scaled by
the ratio of the lengths; beyond the last one time is proportional to the length. A further token costs the slope of
T - alpha on o - 1, pooled over all prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def helm_prompt(prompt_tokens: Sequence[int], prompt_s: Sequence[float], p: int) -> float:
    """alpha(p) from profiled prompts in ascending order."""
    for tokens, seconds in zip(prompt_tokens, prompt_s, strict=True):
        if p <= tokens:
            return seconds * p / tokens
    return prompt_s[-1] * p / prompt_tokens[-1]


def helm_runtime(measured: Sequence[tuple[int, int, float]], p: int, o: int) -> float:
    """T(p, o) from measured (p, o, seconds); prompts of which none has o = 1 tell the slope only by their neighbours."""
    profiled = sorted((q, seconds) for q, made, seconds in measured if made == 1)
    tokens, times = [q for q, _ in profiled], [s for _, s in profiled]
    steps = np.array([made - 1 for _, made, _ in measured], dtype=np.float64)
    rest = np.array([seconds - helm_prompt(tokens, times, q) for q, _, seconds in measured])
    slope = float(np.polyfit(steps, rest, 1)[0])
    return helm_prompt(tokens, times, p) + (o - 1) * slope
