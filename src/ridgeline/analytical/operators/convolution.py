"""Convolutions over two axes: ordinary, grouped and depthwise; and what a window meets at the border of its input.

Products with padding are no work: a tap that falls outside the input multiplies a zero that is stored nowhere. Most
counters (torch's, and the MACs that papers print) count them all the same: without padding the counts are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import Work, fma_key


def conv_output(length: Any, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Any:
    """Outputs along one axis: floor((L + 2 p - d (k - 1) - 1) / s) + 1, as torch.nn.Conv2d states it."""
    length, kernel = np.asarray(length, dtype=np.float64), np.asarray(kernel, dtype=np.float64)
    return (np.floor((length + 2.0 * padding - dilation * (kernel - 1.0) - 1.0) / stride) + 1.0)[()]


def conv_taps(length: Any, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Any:
    """Pairs (output, tap of the kernel) along one axis whose input exists."""
    outputs = np.asarray(conv_output(length, kernel, stride, padding, dilation))
    taps = np.zeros(np.broadcast_shapes(*(np.shape(x) for x in (length, kernel, stride, padding, dilation))))
    for tap in range(int(np.max(kernel))):
        # Output o meets input o s - p + tap d, which exists from 0 to L - 1.
        offset = np.asarray(1.0 * padding - tap * np.asarray(dilation, dtype=np.float64))
        first = np.maximum(np.ceil(offset / stride), 0.0)
        last = np.minimum(np.floor((1.0 * length - 1.0 + offset) / stride), outputs - 1.0)
        taps = taps + np.where(tap < np.asarray(kernel), np.maximum(last - first + 1.0, 0.0), 0.0)
    return taps[()]


def conv_inputs(length: Any, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Any:
    """Inputs along one axis that at least one window meets: a stride longer than the kernel skips some.

    Raises:
        ValueError: where stride and dilation are both above 1.
    """
    if np.any((np.asarray(stride) > 1) & (np.asarray(dilation) > 1)):
        raise ValueError("inputs of a convolution with both stride and dilation above 1 are not counted")
    outputs = np.asarray(conv_output(length, kernel, stride, padding, dilation))
    # Without gaps the windows cover all from the first to the last input; with gaps each input meets one tap at most.
    covered = np.minimum((outputs - 1.0) * stride - padding + (kernel - 1.0) * dilation, length - 1.0) + 1.0
    gaps = np.where(np.asarray(dilation) > 1, outputs < dilation, np.asarray(stride) > np.asarray(kernel))
    return np.where(gaps, conv_taps(length, kernel, stride, padding, dilation), np.maximum(covered, 0.0))[()]


def conv2d_work(
    batch: Any,
    in_channels: Any,
    out_channels: Any,
    height: Any,
    width: Any,
    kernel_height: Any,
    kernel_width: Any,
    precision: str,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: Any = 1,
    weight: str | None = None,
    output: str | None = None,
    padding_counts: bool = False,
) -> Work:
    """Two operations for each product of a weight with an input that exists; each output channel sees one group.

    Args:
        stride, padding, dilation: one number for both axes, or a tuple (height, width).
        groups: parts that the channels fall into; ``in_channels`` of them make it depthwise.
        weight: stored precision of the weights; default ``precision``.
        output: precision of the result; default ``precision`` (int32 for int8).
        padding_counts: count products with padding too, as torch's counter and papers do.

    Raises:
        ValueError: where stride and dilation are both above 1.
    """
    axes = [
        (
            length,
            kernel,
            *(option[axis] if isinstance(option, tuple) else option for option in (stride, padding, dilation)),
        )
        for axis, (length, kernel) in enumerate(((height, kernel_height), (width, kernel_width)))
    ]
    outputs, taps, inputs = 1.0, 1.0, 1.0
    for axis in axes:
        outputs = outputs * conv_output(*axis)
        taps = taps * (conv_output(*axis) * axis[1] if padding_counts else conv_taps(*axis))
        inputs = inputs * conv_inputs(*axis)
    channels = 1.0 * in_channels / groups
    weights = 1.0 * out_channels * channels * kernel_height * kernel_width
    return Work(
        operations={fma_key(precision): 2.0 * batch * out_channels * channels * taps},
        read_bytes={
            "activations": bytes_of(1.0 * batch * in_channels * inputs, precision),
            "weights": bytes_of(weights, weight or precision),
        },
        written_bytes={
            "activations": bytes_of(
                1.0 * batch * out_channels * outputs, output or ("int32" if precision == "int8" else precision)
            )
        },
    )


def depthwise_conv_work(
    batch: Any,
    channels: Any,
    height: Any,
    width: Any,
    kernel_height: Any,
    kernel_width: Any,
    precision: str,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    padding_counts: bool = False,
) -> Work:
    """:func:`conv2d_work` with a kernel of its own for each channel.

    A wavelet transform is one too: four kernels of 2 x 2 with stride 2 for each channel (``groups`` = channels, four
    times as many out).
    """
    return conv2d_work(
        batch, channels, channels, height, width, kernel_height, kernel_width, precision,
        stride=stride, padding=padding, dilation=dilation, groups=channels, padding_counts=padding_counts,
    )  # fmt: skip


@problem("conv2d")
@dataclass(frozen=True, kw_only=True)
class Conv2d(Problem):
    """Y[batch, out_channels, ...] of X[batch, in_channels, height, width]; odd kernels padded so that stride 1 keeps size.

    ``groups`` equal to both channel counts is depthwise. Padding is dilation (kernel - 1) / 2 on each side.
    """

    batch: int
    in_channels: int
    out_channels: int
    height: int
    width: int
    kernel_height: int
    kernel_width: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    precision: str = "float32"

    def check(self) -> None:
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % self.groups:
                raise ProblemError(name, f"{getattr(self, name)} channels have no {self.groups} equal groups")
        for name in ("kernel_height", "kernel_width"):
            if getattr(self, name) % 2 == 0:
                raise ProblemError(name, f"must be odd, not {getattr(self, name)}: padding keeps the middle in place")
        if self.stride > 1 and self.dilation > 1:
            raise ProblemError("dilation", "must be 1 where the stride is not")

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros on each side along height and width."""
        return self.dilation * (self.kernel_height - 1) // 2, self.dilation * (self.kernel_width - 1) // 2

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return conv2d_work(
            self.batch, self.in_channels, self.out_channels, self.height, self.width,
            self.kernel_height, self.kernel_width, self.precision,
            stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups,
        )  # fmt: skip

    @property
    def label(self) -> str:
        options = (f" s{self.stride}" if self.stride > 1 else "") + (f" d{self.dilation}" if self.dilation > 1 else "")
        groups = f" g{self.groups}" if self.groups > 1 else ""
        shape = f"{self.batch}x{self.in_channels}x{self.height}x{self.width}"
        return f"{shape} to {self.out_channels} k{self.kernel_height}x{self.kernel_width}{options}{groups} {self.precision}"
