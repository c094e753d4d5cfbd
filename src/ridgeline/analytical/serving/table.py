"""Step times on a grid: a model of a device is asked once, in columns, and the simulation interpolates.

The grid's axes are chosen so that a sum of rooflines is linear along all but one of them: the tokens of the step (prompt and
decoding together, on which the matrix products depend, with their bend from memory-bound to compute-bound; this axis is
dense), the share of them that decodes, and the mean context of each kind: attention is linear in each of the three. How far
the table is off is told by :meth:`StepTable.worst_error`.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from ridgeline.analytical.serving.averages import StepTimes
from ridgeline.analytical.serving.server import SimulationError

TOKEN_POINTS = 160
_EDGE = 1e-3
"""A share next to none or all: there a kernel is launched that is not at the end itself."""


class StepTable:
    """A :data:`~ridgeline.analytical.serving.server.StepTime` by interpolation."""

    def __init__(self, step_times: StepTimes, most_sequences: int, token_budget: int, longest_tokens: int) -> None:
        """Ask ``step_times`` for the whole grid at once.

        Raises:
            SimulationError: where a time is not positive.
        """
        most = float(max(token_budget, most_sequences))
        longest = float(max(longest_tokens, 2))
        self._tokens = sorted({*np.geomspace(1.0, most, TOKEN_POINTS).round().tolist(), most, most + 1.0})
        self._shares = [0.0, _EDGE, 0.5, 1.0 - _EDGE, 1.0]
        self._prefill = [1.0, longest]
        self._context = [1.0, *(longest / d for d in (16.0, 4.0) if longest / d > 1.0), longest]
        axes = np.meshgrid(self._tokens, self._shares, self._prefill, self._context, indexing="ij")
        tokens, share, prefill, context = (axis.ravel() for axis in axes)
        decoding = tokens * share
        times = np.asarray(step_times(tokens - decoding, prefill, decoding, decoding * context), dtype=np.float64)
        if not np.all(np.isfinite(times)) or np.any(times <= 0.0):
            raise SimulationError("a step model gave a time that is not positive")
        self._values: list[float] = times.tolist()
        self._stride_prefill = len(self._context)
        self._stride_share = self._stride_prefill * len(self._prefill)
        self._stride_tokens = self._stride_share * len(self._shares)
        self._decode = self._decode_lines(most_sequences)
        self._width = 1.0 / (longest - 1.0)
        self._most_sequences, self._budget, self._longest = most_sequences, token_budget, longest
        self._model = step_times

    def __call__(
        self, prefill_tokens: float, prefill_context: float, decode_sequences: float, decode_context_tokens: float
    ) -> float:
        """Seconds of a step.

        Raises:
            SimulationError: outside the grid.
        """
        if not prefill_tokens and decode_sequences <= self._most_sequences:
            # Most steps only decode; their times are lines of the context, one chain for each number of sequences.
            for least, start, slope in self._decode[int(decode_sequences)]:
                if decode_context_tokens >= least:
                    return start + slope * decode_context_tokens
        total = prefill_tokens + decode_sequences
        axis = self._tokens
        i = bisect_right(axis, total) - 1
        if i >= len(axis) - 1 or i < 0:
            raise SimulationError(f"a step of {total:g} tokens lies outside the table, which ends at {axis[-2]:g}")
        t = (total - axis[i]) / (axis[i + 1] - axis[i])
        base = i * self._stride_tokens
        mean = decode_context_tokens / decode_sequences if decode_sequences else 1.0
        contexts = self._context
        k = bisect_right(contexts, mean) - 1
        k = min(max(k, 0), len(contexts) - 2)
        u = (mean - contexts[k]) / (contexts[k + 1] - contexts[k])
        share = decode_sequences / total
        shares = self._shares
        j = min(bisect_right(shares, share) - 1, len(shares) - 2)
        s = (share - shares[j]) / (shares[j + 1] - shares[j])
        v = (prefill_context - 1.0) * self._width
        found = 0.0
        for weight, at in ((1.0 - t, base), (t, base + self._stride_tokens)):
            if weight:
                at += j * self._stride_share + k
                found += weight * ((1.0 - s) * self._plane(at, u, v) + (s * self._plane(at + self._stride_share, u, v)))
        return found

    def line(self, sequences: int, context_tokens: float) -> tuple[float, float, float]:
        """As :class:`~ridgeline.analytical.serving.server.Lines`."""
        end = sequences * self._longest
        for least, start, slope in self._decode[sequences]:
            if context_tokens >= least:
                return start, slope, end
            end = least
        raise SimulationError(f"a context of {context_tokens:g} tokens lies outside the table")

    def _decode_lines(self, most_sequences: int) -> list[list[tuple[float, float, float]]]:
        """By number of sequences: (least context, start, slope) of each line, the one for the longest contexts first."""
        shape = (len(self._tokens), len(self._shares), len(self._prefill), len(self._context))
        times = np.asarray(self._values).reshape(shape)[:, -1, 0, :]
        n = np.arange(most_sequences + 1, dtype=np.float64)
        columns = np.stack([np.interp(n, self._tokens, times[:, k]) for k in range(len(self._context))], axis=1)
        lines: list[list[tuple[float, float, float]]] = [[]]
        for count in range(1, most_sequences + 1):
            chain = []
            for k in range(len(self._context) - 2, -1, -1):
                low, high = count * self._context[k], count * self._context[k + 1]
                slope = (columns[count, k + 1] - columns[count, k]) / (high - low)
                chain.append((low if k else 0.0, float(columns[count, k] - slope * low), float(slope)))
            lines.append(chain)
        return lines

    def _plane(self, at: int, u: float, v: float) -> float:
        """Bilinear in the two contexts."""
        values = self._values
        low = values[at] + u * (values[at + 1] - values[at])
        at += self._stride_prefill
        return low + v * (values[at] + u * (values[at + 1] - values[at]) - low)

    def worst_error(self, points: int = 300, seed: int = 0) -> float:
        """Largest relative distance to the model at random points of the grid's range."""
        rng = np.random.default_rng(seed)
        worst = 0.0
        for _ in range(points):
            sequences = int(np.exp(rng.uniform(0.0, np.log(self._most_sequences))))
            most = self._budget - sequences
            tokens = int(np.exp(rng.uniform(0.0, np.log(most)))) if most > 1 and rng.random() < 0.5 else 0
            context = rng.uniform(1.0, self._longest)
            prefill = rng.uniform(1.0, self._longest) if tokens else 0.0
            asked = (float(tokens), prefill, float(sequences), sequences * context)
            truth = float(np.asarray(self._model(*(np.asarray([a]) for a in asked)))[0])
            worst = max(worst, abs(self(*asked) / truth - 1.0))
        return worst
