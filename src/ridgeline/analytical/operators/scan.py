"""Linear recurrences over a sequence: gated scan, selective scan (Mamba), and its matrix form (Mamba-2).

Their state is a cache of fixed size, so its bytes are of the stream ``kv``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, Work, fma_key


def gated_scan_work(
    batch: Any, length: Any, channels: Any, precision: str, *, carried: bool = True, state_precision: str = "float32"
) -> Work:
    """h_t = f_t h_{t-1} + i_t (HGRN, Qin et al. 2023): 2 operations for each step and channel.

    Gates f and inputs i are read, every h is written. ``carried``: the state before the first step is read and that
    after the last is written, in ``state_precision``.
    """
    steps, states = 1.0 * batch * length * channels, bytes_of(1.0 * batch * channels, state_precision)
    return Work(
        operations={fma_key("float32", "vector"): 2.0 * steps},
        read_bytes={"activations": bytes_of(2.0 * steps, precision), **({"kv": states} if carried else {})},
        written_bytes={"activations": bytes_of(steps, precision), **({"kv": states} if carried else {})},
    )


def selective_scan_work(
    batch: Any,
    length: Any,
    channels: Any,
    state: Any,
    precision: str,
    *,
    groups: Any = 1,
    gated: bool = False,
    softplus: bool = False,
    carried: bool = True,
    state_precision: str = "float32",
) -> Work:
    """h_t = exp(D_t A) h_{t-1} + D_t B_t x_t, y_t = C_t h_t + E x_t (Mamba, Gu & Dao 2023, section 3.2).

    For each step and channel with a state of N: one product D x, N products D A and N exponentials, 3 N for the
    state, 2 N - 1 for the sum over it and 2 for the skip connection: 6 N + 2 operations and N special functions.

    Read are x and the step sizes D [batch, length, channels], B and C [batch, length, groups, N], and in float32
    A [channels, N] and E [channels]; written is y.

    Args:
        groups: channels share B and C within each of so many groups.
        gated: y is multiplied with silu(z): z is read; 2 operations and a sigmoid more.
        softplus: D = ln(1 + exp(D' + bias)): 2 operations, an exponential and a logarithm more, and a bias read.
        carried: the state is read before the first step and written after the last, in ``state_precision``.
    """
    steps, n = 1.0 * batch * length * channels, 1.0 * state
    operations, special, inputs, parameters = 6.0 * n + 2.0, n, 2.0, n + 1.0
    if gated:
        operations, special, inputs = operations + 2.0, special + 1.0, inputs + 1.0
    if softplus:
        operations, special, parameters = operations + 2.0, special + 2.0, parameters + 1.0
    states = bytes_of(1.0 * batch * channels * n, state_precision)
    return Work(
        operations={fma_key("float32", "vector"): steps * operations, SPECIAL: steps * special},
        read_bytes={
            "activations": bytes_of(inputs * steps + 2.0 * batch * length * groups * n, precision),
            "weights": bytes_of(channels * parameters, "float32"),
            **({"kv": states} if carried else {}),
        },
        written_bytes={"activations": bytes_of(steps, precision), **({"kv": states} if carried else {})},
    )


def chunked_scan_work(
    batch: Any,
    length: Any,
    heads: Any,
    head_dim: Any,
    state: Any,
    precision: str,
    *,
    groups: Any = 1,
    chunk: Any = 1,
    carried: bool = True,
    state_precision: str = "float32",
) -> Work:
    """The state-space duality of Mamba-2 (Dao & Gu 2024, section 6): a scalar decay a head, in chunks of ``chunk`` steps.

    With P = ``head_dim``, N = ``state``. For each step and head, outer products into the state and the read-out of it
    take 2 P N each, the decay of the state P N for each chunk. Inside a chunk, each pair (step, earlier or same step)
    takes 2 N for each group (C B^T), a product with the decay for each head, and 2 P for each head. A chunk of one
    step is the recurrence itself, y_t = C_t h_t: it has no pairs. The chunk is the implementation's choice: the least
    work on a device is the smallest bound over chunks. ``chunk`` divides ``length``, or is longer and counts as it.

    Each step and head also takes D x (P), the skip connection (2 P), D A and its exponential, and in chunks the decay
    since the chunk began, applied to what the state gives (P).
    """
    steps, p, n = 1.0 * batch * length * heads, 1.0 * head_dim, 1.0 * state
    size = np.minimum(np.asarray(chunk, dtype=np.float64), length)
    # Pairs of one sequence; the pair of a step with itself is read out of the state where the chunk is that step.
    pairs = np.where(size > 1.0, batch * length * (size + 1.0) / 2.0, 0.0)[()]
    states = bytes_of(1.0 * batch * heads * p * n, state_precision)
    return Work(
        operations={
            fma_key(precision): 4.0 * steps * p * n + 2.0 * pairs * (1.0 * groups * n + 1.0 * heads * p),
            fma_key("float32", "vector"): (steps / size) * p * n
            + steps * (1.0 + (3.0 + (size > 1.0)) * p)
            + pairs * heads,
            SPECIAL: steps,
        },
        read_bytes={
            "activations": bytes_of(steps * (p + 1.0) + 2.0 * batch * length * groups * n, precision),
            "weights": bytes_of(2.0 * heads, "float32"),
            **({"kv": states} if carried else {}),
        },
        written_bytes={"activations": bytes_of(steps * p, precision), **({"kv": states} if carried else {})},
    )


@problem("gated_scan")
@dataclass(frozen=True, kw_only=True)
class GatedScan(Problem):
    """h[batch, length, channels] of gates f and inputs i of that shape, h_t = f_t h_{t-1} + i_t from a given h_0."""

    batch: int
    length: int
    channels: int
    precision: str = "float32"

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return gated_scan_work(self.batch, self.length, self.channels, self.precision)

    @property
    def label(self) -> str:
        return f"B{self.batch} T{self.length} C{self.channels} {self.precision}"


@problem("selective_scan")
@dataclass(frozen=True, kw_only=True)
class SelectiveScan(Problem):
    """y[batch, length, channels] of Mamba's selective scan with ``state`` values a channel; options as in its work."""

    batch: int
    length: int
    channels: int
    state: int
    gated: bool = True
    softplus: bool = True
    precision: str = "float32"

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return selective_scan_work(
            self.batch, self.length, self.channels, self.state, self.precision,
            gated=self.gated, softplus=self.softplus,
        )  # fmt: skip

    @property
    def label(self) -> str:
        return f"B{self.batch} T{self.length} C{self.channels} N{self.state} {self.precision}"
