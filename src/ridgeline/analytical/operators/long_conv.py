"""Long convolutions: a causal kernel as long as the sequence, for each channel (Fu et al. 2023); dilated 1-D ones.

The result does not depend on how it is computed, the operations do: directly, with fast Fourier transforms, or with
Fourier transforms written as matrix products (Monarch, Fu et al. 2023, FlashFFTConv, section 3.1). The bytes are the
same: sequence and kernel once in, result once out.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.operators.attention import attention_pairs
from ridgeline.analytical.operators.convolution import conv_taps
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import RateKey, Work, fma_key

LONG_CONV_METHODS = ("direct", "fft", "monarch")


def long_conv_work(
    batch: Any,
    channels: Any,
    length: Any,
    kernel: Any,
    precision: str,
    method: str = "direct",
    *,
    fft_length: Any = None,
    factor: Any = None,
    skip: bool = True,
) -> Work:
    """y = k * u + D u, causal: output t sums the last min(t + 1, ``kernel``) inputs.

    direct: 2 operations for each product.
    fft: N = ``fft_length`` points (default: the power of two from length + kernel - 1 on). A complex transform of
    radix 2 takes 5 N log2 N operations; two real sequences of a channel travel as one complex one, so that a sequence
    takes half of two transforms and of N complex products (6 each): 5 N log2 N + 3 N. The kernel's transform is a
    constant.
    monarch: N = N1 N2 with N1 = ``factor`` (default: the square root, rounded up to a power of two). A transform is
    N (N1 + N2) complex multiply-adds (8 operations, matrix unit) and N twiddles (6); halves as before.

    Raises:
        ValueError: for a ``method`` that is not in :data:`LONG_CONV_METHODS`.
    """
    if method not in LONG_CONV_METHODS:
        raise ValueError(f"unknown method {method!r}: one of {', '.join(LONG_CONV_METHODS)}")
    sequences, length = 1.0 * batch * channels, 1.0 * length
    operations: dict[RateKey, Any] = {}
    vector = fma_key("float32", "vector")
    if method == "direct":
        operations[fma_key(precision)] = 2.0 * sequences * attention_pairs(length, length, True, kernel)
    else:
        points = _power_of_two(length + kernel - 1.0) if fft_length is None else 1.0 * fft_length
        if method == "fft":
            operations[vector] = sequences * (5.0 * points * np.log2(points) + 3.0 * points)
        else:
            first = _power_of_two(np.sqrt(points)) if factor is None else 1.0 * factor
            operations[fma_key(precision)] = sequences * 8.0 * points * (first + points / first)
            operations[vector] = sequences * (6.0 + 3.0) * points
    if skip:
        operations[vector] = operations.get(vector, 0.0) + 2.0 * sequences * length
    values = bytes_of(sequences * length, precision)
    return Work(
        operations=operations,
        read_bytes={
            "activations": values,
            "weights": bytes_of(channels * (1.0 * kernel + (1.0 if skip else 0.0)), precision),
        },
        written_bytes={"activations": values},
    )


def _power_of_two(x: Any) -> Any:
    return np.exp2(np.ceil(np.log2(np.asarray(x, dtype=np.float64))))[()]


def dilated_conv1d_work(
    batch: Any, length: Any, kernels: Any, kernel: Any, dilation: Any, precision: str, *, features: Any = 2
) -> Work:
    """Convolutions of a series with ``kernels`` kernels, reduced to ``features`` numbers each (ROCKET, Dempster 2020).

    Padded so that there is an output for each of ``length`` inputs; 2 operations for each product with an input that
    exists. Each output adds the bias and is compared once for each feature (share of positives, maximum, ...): those
    are ``length`` (1 + features) operations. Outputs are not written, features are. Kernels of several dilations are
    columns, or sums of works.
    """
    taps = conv_taps(length, kernel, 1, dilation * (1.0 * kernel - 1.0) / 2.0, dilation)
    made = 1.0 * batch * kernels
    return Work(
        operations={
            fma_key(precision): 2.0 * made * taps,
            fma_key(precision, "vector"): made * length * (1.0 + features),
        },
        read_bytes={
            "activations": bytes_of(1.0 * batch * length, precision),
            "weights": bytes_of(kernels * (1.0 * kernel + 1.0), precision),
        },
        written_bytes={"activations": bytes_of(made * features, precision)},
    )


@problem("long_conv")
@dataclass(frozen=True, kw_only=True)
class LongConv(Problem):
    """y[batch, channels, length] = k * u + D u of u of that shape, k[channels, kernel] and D[channels], causal."""

    batch: int
    channels: int
    length: int
    kernel: int
    precision: str = "float32"

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        """The fewest operations of the three methods, for the fastest unit to do.

        A direct sum has more operations than a fast transform but may do them on a faster unit: a bound that must hold
        for both takes the count of the one and the unit of the other.
        """
        works = [
            long_conv_work(self.batch, self.channels, self.length, self.kernel, self.precision, method)
            for method in LONG_CONV_METHODS
        ]
        return dataclasses.replace(works[0], operations={fma_key(self.precision): min(work.flop for work in works)})

    @property
    def label(self) -> str:
        return f"B{self.batch} C{self.channels} L{self.length} k{self.kernel} {self.precision}"
