"""Work of convolutions, short, long and dilated, against loops, transforms that are done, and torch."""

from __future__ import annotations

import cmath
import itertools
import math
from typing import Any

import numpy as np
import pytest
from brute_force import Tally, assert_same, counted_flop, counts, grid, shaped
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.operators import (
    LONG_CONV_METHODS,
    Conv2d,
    LongConv,
    conv2d_work,
    conv_inputs,
    conv_output,
    conv_taps,
    depthwise_conv_work,
    dilated_conv1d_work,
    gemm_work,
    long_conv_work,
)
from ridgeline.analytical.work import fma_key

sizes = st.integers(1, 40)


# Convolutions


def windows(length: int, kernel: int, stride: int, padding: int, dilation: int) -> list[list[tuple[int, int]]]:
    """(tap, input) pairs of each output along one axis, by sliding the window."""
    outputs = []
    start = -padding
    while start + dilation * (kernel - 1) < length + padding:
        taps = [(tap, start + tap * dilation) for tap in range(kernel)]
        outputs.append([(tap, at) for tap, at in taps if 0 <= at < length])
        start += stride
    return outputs


@settings(max_examples=150)
@given(
    st.integers(1, 20), st.integers(1, 6), st.integers(1, 4), st.integers(0, 6), st.integers(1, 4), st.booleans()
)  # fmt: skip
def test_windows_by_brute_force(
    length: int, kernel: int, stride: int, padding: int, dilation: int, strided: bool
) -> None:
    stride, dilation = (stride, 1) if strided else (1, dilation)
    outputs = windows(length, kernel, stride, padding, dilation)
    if not outputs:
        return
    shape = length, kernel, stride, padding, dilation
    assert conv_output(*shape) == len(outputs)
    assert conv_taps(*shape) == sum(map(len, outputs))
    assert conv_inputs(*shape) == len({at for taps in outputs for _, at in taps})


@pytest.mark.parametrize(
    ("groups", "stride", "padding", "dilation"),
    [(1, 1, 0, 1), (2, 1, 1, 1), (4, 2, 1, 1), (1, 3, 0, 1), (1, 1, 2, 2), (4, (2, 1), (0, 1), 1)],
)
def test_conv2d_by_brute_force(groups: int, stride: Any, padding: Any, dilation: int) -> None:
    batch, in_channels, out_channels, height, width, kernel_height, kernel_width = 2, 4, 8, 5, 6, 2, 3
    vertical, horizontal = (
        windows(length, kernel, *(o[axis] if isinstance(o, tuple) else o for o in (stride, padding, dilation)))
        for axis, (length, kernel) in enumerate(((height, kernel_height), (width, kernel_width)))
    )
    tally = Tally()
    for out, channel, u, v in grid(out_channels, in_channels // groups, kernel_height, kernel_width):
        tally.read("weights", "int8", out, channel, u, v)
    for b, out, (y, rows), (x, columns) in itertools.product(
        range(batch), range(out_channels), enumerate(vertical), enumerate(horizontal)
    ):
        tally.write("activations", "float16", b, out, y, x)
        first = out // (out_channels // groups) * (in_channels // groups)
        for channel, (_, i), (_, j) in itertools.product(range(in_channels // groups), rows, columns):
            tally.matrix("bfloat16")
            tally.read("activations", "bfloat16", b, first + channel, i, j)
    work = conv2d_work(
        batch, in_channels, out_channels, height, width, kernel_height, kernel_width, "bfloat16",
        stride=stride, padding=padding, dilation=dilation, groups=groups, weight="int8", output="float16",
    )  # fmt: skip
    assert_same(work, tally)


@pytest.mark.parametrize(
    ("groups", "stride", "padding", "dilation"), [(1, 1, 0, 1), (2, 2, 1, 1), (4, 1, 2, 2), (4, 3, 0, 1)]
)
def test_conv2d_with_its_padding_is_what_torch_counts(groups: int, stride: int, padding: int, dilation: int) -> None:
    """torch counts products with zeros of the padding; without padding it counts what is done."""
    import torch

    x, w = shaped(2, 4, 9, 11), shaped(8, 4 // groups, 3, 5)
    flop = counted_flop(
        lambda: torch.nn.functional.conv2d(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    )
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    with_zeros = conv2d_work(2, 4, 8, 9, 11, 3, 5, "float32", **options, padding_counts=True).flop
    exact = conv2d_work(2, 4, 8, 9, 11, 3, 5, "float32", **options).flop
    assert with_zeros == flop
    assert (exact == flop) if padding == 0 else (exact < flop)


def test_depthwise_conv_by_brute_force_of_one_channel() -> None:
    one = conv2d_work(2, 1, 1, 7, 6, 3, 3, "float32", padding=1)
    assert counts(depthwise_conv_work(2, 5, 7, 6, 3, 3, "float32", padding=1)) == counts(one * 5)


@settings(max_examples=30)
@given(batch=sizes, channels=sizes, out=sizes, height=sizes, width=sizes)
def test_one_by_one_convolution_is_a_gemm(batch: int, channels: int, out: int, height: int, width: int) -> None:
    conv = conv2d_work(batch, channels, out, height, width, 1, 1, "float16")
    assert counts(conv) == pytest.approx(counts(gemm_work(batch * height * width, out, channels, "float16")))


def test_stride_and_dilation_together_are_refused() -> None:
    with pytest.raises(ValueError, match="stride and dilation"):
        conv2d_work(1, 1, 1, 9, 9, 3, 3, "float32", stride=2, dilation=2)


def test_inception_next_mixer_is_what_its_paper_says() -> None:
    """Bands of 3 x 3, 1 x 11 and 11 x 1 on an eighth of the channels each: 3.875 products a pixel and channel of C."""
    channels, size = 96, 56
    band = channels // 8
    works = [
        depthwise_conv_work(1, band, size, size, h, w, "float32", padding=(h // 2, w // 2), padding_counts=True)
        for h, w in ((3, 3), (1, 11), (11, 1))
    ]
    assert sum(work.flop for work in works) == 2 * size * size * channels * 3.875
    seven = depthwise_conv_work(1, channels, size, size, 7, 7, "float32", padding=3, padding_counts=True)
    assert seven.flop == 2 * size * size * channels * 49


# Long and dilated convolutions


def fft(x: list[complex], tally: Tally) -> list[complex]:
    """Radix 2, as Cooley and Tukey wrote it; a complex product is 6 operations, an addition 2."""
    n = len(x)
    if n == 1:
        return x
    even, odd = fft(x[0::2], tally), fft(x[1::2], tally)
    out = [0j] * n
    for i in range(n // 2):
        turned = cmath.exp(-2j * math.pi * i / n) * odd[i]
        out[i], out[i + n // 2] = even[i] + turned, even[i] - turned
        tally.vector("float32", 10)
    return out


def monarch(x: list[complex], first: int, tally: Tally) -> list[complex]:
    """N = N1 N2 points as two sets of dense transforms with twiddles between."""
    n, second = len(x), len(x) // first
    matrix = np.array(x).reshape(first, second)
    inner = np.exp(-2j * np.pi * np.outer(range(first), range(first)) / first) @ matrix
    turned = inner * np.exp(-2j * np.pi * np.outer(range(first), range(second)) / n)
    outer = turned @ np.exp(-2j * np.pi * np.outer(range(second), range(second)) / second)
    tally.matrix("float32", 8 * first * first * second + 8 * first * second * second)
    tally.vector("float32", 6 * n)
    return list(outer.T.reshape(-1))


@pytest.mark.parametrize("method", ["fft", "monarch"])
def test_transformed_convolutions_by_doing_them(method: str) -> None:
    """Two sequences of one channel travel as one complex sequence; the kernel's transform is a constant."""
    length, points, first = 6, 16, 4
    random = np.random.default_rng(1)
    u, k = random.standard_normal((2, length)), random.standard_normal(length)
    tally = Tally()

    def transform(x: list[complex], tally: Tally) -> list[complex]:
        return fft(x, tally) if method == "fft" else monarch(x, first, tally)

    packed = [complex(a, b) for a, b in u.T] + [0j] * (points - length)
    kernel = transform([complex(a) for a in k] + [0j] * (points - length), Tally())
    spectrum = transform(packed, tally)
    tally.vector("float32", 6 * points)
    product = [a * b for a, b in zip(spectrum, kernel, strict=True)]
    back = transform([z.conjugate() for z in product], tally)  # the inverse, up to conjugation and scale
    y = np.array([z.conjugate() / points for z in back])[:length]
    assert np.allclose(y.real, np.convolve(u[0], k)[:length])
    assert np.allclose(y.imag, np.convolve(u[1], k)[:length])
    for b, t in grid(2, length):
        tally.vector("float32", 2)  # D u
        tally.read("activations", "float32", b, t)
        tally.write("activations", "float32", b, t)
    for t in range(length):
        tally.read("weights", "float32", "k", t)
    tally.read("weights", "float32", "D")
    assert_same(long_conv_work(2, 1, length, length, "float32", method), tally)
    assert_same(long_conv_work(2, 1, length, length, "float32", method, fft_length=points, factor=first), tally)


@pytest.mark.parametrize("kernel", [1, 3, 6])
def test_direct_long_convolution_by_brute_force(kernel: int) -> None:
    batch, channels, length = 2, 3, 6
    tally = Tally()
    for b, c, t in grid(batch, channels, length):
        for tap in range(kernel):
            tally.read("weights", "float16", c, tap)
            if tap <= t:
                tally.matrix("float16")
                tally.read("activations", "float16", b, c, t - tap)
        tally.write("activations", "float16", b, c, t)
    assert_same(long_conv_work(batch, channels, length, kernel, "float16", skip=False), tally)


def test_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="unknown method 'winograd': one of direct, fft, monarch"):
        long_conv_work(1, 1, 1, 1, "float32", "winograd")


def test_a_long_convolution_counts_its_shortest_way() -> None:
    short, long = LongConv(batch=1, channels=1, length=4096, kernel=3), LongConv(
        batch=1, channels=1, length=4096, kernel=4096
    )  # fmt: skip
    for problem in (short, long):
        works = [long_conv_work(1, 1, problem.length, problem.kernel, "float32", m) for m in LONG_CONV_METHODS]
        assert problem.work().flop == min(work.flop for work in works)
        assert problem.work().operations.keys() == {fma_key("float32")}
        assert problem.work().bytes == works[0].bytes
    assert long.work().flop < long_conv_work(1, 1, 4096, 4096, "float32").flop / 16


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_dilated_conv1d_by_brute_force(dilation: int) -> None:
    batch, length, kernels, kernel, features = 2, 9, 3, 5, 2
    tally = Tally()
    for b, c in grid(batch, kernels):
        tally.read("weights", "float32", c, "bias")
        for f in range(features):
            tally.write("activations", "float32", b, c, f)
        for t in range(length):
            tally.vector("float32", 1 + features)
            tally.read("activations", "float32", b, t)
            for tap in range(kernel):
                tally.read("weights", "float32", c, tap)
                if 0 <= t + (tap - kernel // 2) * dilation < length:
                    tally.matrix("float32")
    assert_same(dilated_conv1d_work(batch, length, kernels, kernel, dilation, "float32", features=features), tally)


def test_conv2d_problem_keeps_the_size() -> None:
    problem = Conv2d(
        batch=1, in_channels=8, out_channels=8, height=9, width=7, kernel_height=5, kernel_width=3, groups=8
    )
    assert problem.work().written_bytes == {"activations": 4 * 8 * 9 * 7}
    assert problem.work().operations.keys() == {fma_key("float32")}
