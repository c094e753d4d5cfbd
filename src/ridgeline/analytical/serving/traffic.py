"""Traffic: when requests arrive and how long they are, by common random numbers.

Every draw is the quantile of a uniform number that depends on the seed alone. So two loads of one seed see the *same*
requests, closer together or further apart, and two systems the same traffic: what differs is the system.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class TrafficError(ValueError):
    """Traffic that cannot be. One line."""


def uniforms(seed: int, name: str, count: int) -> Floats:
    """``count`` uniform numbers in (0, 1) for the stream ``name``, independent of every other stream's."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return np.clip(rng.random(count), 1e-12, 1.0 - 1e-12)


class Lengths(Protocol):
    """A distribution of token counts."""

    @property
    def mean_tokens(self) -> float: ...

    def quantile(self, u: Floats) -> Counts: ...


@dataclass(frozen=True)
class Fixed:
    """Always the same."""

    tokens: int

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise TrafficError(f"a length must be at least 1 token, not {self.tokens}")

    @property
    def mean_tokens(self) -> float:
        """Tokens."""
        return float(self.tokens)

    def quantile(self, u: Floats) -> Counts:
        """Tokens, one for each uniform number."""
        return np.full(len(u), self.tokens, dtype=np.int64)


@dataclass(frozen=True)
class Lognormal:
    """Lognormal of a median and the standard deviation of its logarithm, cut at ``most_tokens``."""

    median_tokens: float
    sigma: float
    most_tokens: int

    def __post_init__(self) -> None:
        if not (self.median_tokens >= 1.0 and 0.0 < self.sigma <= 3.0 and self.most_tokens >= self.median_tokens):
            raise TrafficError(
                f"a lognormal length needs a median of at least 1, 0 < sigma <= 3 and most_tokens over the median, not "
                f"{self.median_tokens:g}, {self.sigma:g}, {self.most_tokens}"
            )

    @property
    def mean_tokens(self) -> float:
        """Tokens, after the cut and the rounding."""
        return float(self.quantile((np.arange(4096) + 0.5) / 4096).mean())

    def quantile(self, u: Floats) -> Counts:
        """Tokens, one for each uniform number, at least 1."""
        drawn = self.median_tokens * np.exp(self.sigma * ndtri(u))
        return np.clip(np.rint(drawn), 1, self.most_tokens).astype(np.int64)


@dataclass(frozen=True)
class Empirical:
    """Token counts that were observed; each as likely as it is frequent."""

    tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.tokens or min(self.tokens) < 1:
            raise TrafficError("observed lengths must be one or more counts of at least 1 token")

    @property
    def mean_tokens(self) -> float:
        """Tokens."""
        return float(np.mean(self.tokens))

    def quantile(self, u: Floats) -> Counts:
        """Tokens, one for each uniform number."""
        ordered = np.sort(np.asarray(self.tokens, dtype=np.int64))
        return ordered[np.minimum((u * len(ordered)).astype(np.int64), len(ordered) - 1)]


@dataclass(frozen=True)
class Poisson:
    """Independent arrivals at a mean rate."""

    rate_per_s: float

    def __post_init__(self) -> None:
        _check_rate(self.rate_per_s)

    def times_s(self, seed: int, count: int) -> Floats:
        """Arrival times; those of twice the rate are the same, halved."""
        gaps = -np.log(uniforms(seed, "arrivals", count))
        return np.asarray(np.cumsum(gaps) / self.rate_per_s)


@dataclass(frozen=True)
class Deterministic:
    """Arrivals at equal distances."""

    rate_per_s: float

    def __post_init__(self) -> None:
        _check_rate(self.rate_per_s)

    def times_s(self, seed: int, count: int) -> Floats:
        """Arrival times."""
        return np.asarray(np.arange(1, count + 1) / self.rate_per_s)


@dataclass(frozen=True)
class Trace:
    """Arrival times that were observed, in seconds from a common start, ascending."""

    arrival_s: tuple[float, ...]

    def __post_init__(self) -> None:
        times = np.asarray(self.arrival_s, dtype=np.float64)
        if not len(times) or not np.all(np.isfinite(times)) or times[0] < 0.0 or np.any(np.diff(times) < 0.0):
            raise TrafficError("a trace needs finite arrival times in ascending order, from 0 on")

    def times_s(self, seed: int, count: int) -> Floats:
        """The first ``count`` arrival times."""
        if count > len(self.arrival_s):
            raise TrafficError(f"{count} requests asked of a trace that holds {len(self.arrival_s)}")
        return np.asarray(self.arrival_s[:count], dtype=np.float64)


@dataclass(frozen=True)
class ClosedLoop:
    """``concurrency`` users, each of whom sends a request when its last one was answered, ``think_s`` later.

    This is what a load generator with a maximal concurrency does.
    """

    concurrency: int
    think_s: float = 0.0

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.think_s < 0.0:
            raise TrafficError(f"a closed loop needs users and no negative pause: {self.concurrency}, {self.think_s:g}")


Arrivals = Poisson | Deterministic | Trace | ClosedLoop


@dataclass(frozen=True)
class Requests:
    """Requests in the order of their arrival; ``arrival_s`` is ``None`` in a closed loop, where the system decides."""

    arrivals: Arrivals
    arrival_s: Floats | None
    input_tokens: Counts
    output_tokens: Counts

    def __len__(self) -> int:
        return len(self.input_tokens)


def make_requests(arrivals: Arrivals, inputs: Lengths, outputs: Lengths, count: int, seed: int) -> Requests:
    """Draw requests.

    Raises:
        TrafficError: for no requests, or more than a trace holds.
    """
    if count < 1:
        raise TrafficError(f"at least one request is needed, not {count}")
    times: Any = None if isinstance(arrivals, ClosedLoop) else arrivals.times_s(seed, count)
    return Requests(
        arrivals,
        times,
        inputs.quantile(uniforms(seed, "input", count)),
        outputs.quantile(uniforms(seed, "output", count)),
    )


def _check_rate(rate_per_s: float) -> None:
    if not (rate_per_s > 0.0 and np.isfinite(rate_per_s)):
        raise TrafficError(f"a rate must be positive, not {rate_per_s:g} per second")
