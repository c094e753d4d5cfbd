"""Work of convolutions, scans, recurrent cells and positive definite algebra against counts by loops and torch."""

from __future__ import annotations

import cmath
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from brute_force import Tally, assert_same, counted_flop, counts, shaped
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.operators import (
    CELLS,
    LONG_CONV_METHODS,
    Conv2d,
    LongConv,
    cholesky_work,
    chunked_scan_work,
    conv2d_work,
    conv_inputs,
    conv_output,
    conv_taps,
    depthwise_conv_work,
    dilated_conv1d_work,
    gated_scan_work,
    gemm_work,
    gram_kernel_work,
    kernel_matrix_work,
    long_conv_work,
    recurrent_cell_work,
    selective_scan_work,
    triangular_solve_work,
)
from ridgeline.analytical.work import SPECIAL, fma_key

sizes = st.integers(1, 40)
VECTOR = fma_key("float32", "vector")


def grid(*lengths: int) -> itertools.product[tuple[int, ...]]:
    return itertools.product(*map(range, lengths))


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


# Scans and cells


def test_gated_scan_by_brute_force() -> None:
    batch, length, channels = 2, 4, 3
    tally = Tally()
    for b, c in grid(batch, channels):
        tally.read("kv", "float32", b, c)
        tally.write("kv", "float32", b, c)
        for t in range(length):
            tally.read("activations", "bfloat16", "f", b, t, c)
            tally.read("activations", "bfloat16", "i", b, t, c)
            tally.vector("float32", 2)
            tally.write("activations", "bfloat16", b, t, c)
    assert_same(gated_scan_work(batch, length, channels, "bfloat16"), tally)


@pytest.mark.parametrize("extras", [False, True])
def test_selective_scan_by_brute_force(extras: bool) -> None:
    batch, length, channels, state, groups = 2, 3, 4, 5, 2
    tally = Tally()
    for b, c in grid(batch, channels):
        g = c // (channels // groups)
        tally.read("weights", "float32", "E", c)
        if extras:
            tally.read("weights", "float32", "bias", c)
        for n in range(state):
            tally.read("weights", "float32", "A", c, n)
            tally.read("kv", "float32", b, c, n)
            tally.write("kv", "float32", b, c, n)
        for t in range(length):
            tally.read("activations", "bfloat16", "x", b, t, c)
            tally.read("activations", "bfloat16", "D", b, t, c)
            if extras:
                tally.vector("float32", 2)  # plus the bias; 1 + exp
                tally.special(2)  # exp, ln
                tally.read("activations", "bfloat16", "z", b, t, c)
                tally.vector("float32", 2)  # z sigmoid(z), times y
                tally.special()
            tally.vector("float32")  # D x
            for n in range(state):
                tally.read("activations", "bfloat16", "B", b, t, g, n)
                tally.read("activations", "bfloat16", "C", b, t, g, n)
                tally.vector("float32")  # D A
                tally.special()
                tally.vector("float32", 3)  # times h, plus B times D x
                tally.vector("float32", 2 if n else 1)  # C h, to the sum
            tally.vector("float32", 2)  # plus E x
            tally.write("activations", "bfloat16", b, t, c)
    work = selective_scan_work(batch, length, channels, state, "bfloat16", groups=groups, gated=extras, softplus=extras)
    assert_same(work, tally)


@pytest.mark.parametrize("chunk", [1, 2, 6, 100])
def test_chunked_scan_does_what_the_recurrence_does(chunk: int) -> None:
    """The state-space duality on one head, in numpy, with its operations tallied; the result is the recurrence's."""
    length, p, n = 6, 3, 4
    random = np.random.default_rng(2)
    x, b, c = random.standard_normal((length, p)), *random.standard_normal((2, length, n))
    steps, a = random.random(length), -0.5
    decay = np.exp(a * steps)
    state, expected = np.zeros((n, p)), []
    for t in range(length):
        state = decay[t] * state + np.outer(b[t], steps[t] * x[t])
        expected.append(c[t] @ state)
    size, tally = min(chunk, length), Tally()
    state, y = np.zeros((n, p)), np.zeros((length, p))
    for _ in range(length):
        tally.vector("float32", 1 + p + 2 * p)  # D A; D x; skip connection
        tally.special()
    for start in range(0, length, size):
        inside = range(start, start + size)
        since = np.cumprod(decay[start : start + size])
        for i, t in enumerate(inside):
            if size == 1:
                break
            y[t] += since[i] * (c[t] @ state)
            tally.matrix("bfloat16", 2 * p * n)
            tally.vector("float32", p)
            for j, s in enumerate(range(start, t + 1)):
                y[t] += (c[t] @ b[s]) * (since[i] / since[j]) * steps[s] * x[s]
                tally.matrix("bfloat16", 2 * n + 2 * p)
                tally.vector("float32")
        state = since[-1] * state
        tally.vector("float32", p * n)
        for j, s in enumerate(inside):
            state += np.outer(b[s], since[-1] / since[j] * steps[s] * x[s])
            tally.matrix("bfloat16", 2 * p * n)
        if size == 1:
            y[start] = c[start] @ state
            tally.matrix("bfloat16", 2 * p * n)
    assert np.allclose(y, expected)
    assert dict(tally.operations) == chunked_scan_work(1, length, 1, p, n, "bfloat16", chunk=chunk).operations


def test_chunked_scan_bytes_by_brute_force() -> None:
    batch, length, heads, p, n, groups = 2, 3, 4, 2, 5, 2
    tally = Tally()
    for b, h in grid(batch, heads):
        tally.read("weights", "float32", "A", h)
        tally.read("weights", "float32", "E", h)
        for i, s in grid(p, n):
            tally.read("kv", "float32", b, h, i, s)
            tally.write("kv", "float32", b, h, i, s)
        for t in range(length):
            tally.read("activations", "bfloat16", "D", b, t, h)
            for s in range(n):
                tally.read("activations", "bfloat16", "B", b, t, h // 2, s)
                tally.read("activations", "bfloat16", "C", b, t, h // 2, s)
            for i in range(p):
                tally.read("activations", "bfloat16", "x", b, t, h, i)
                tally.write("activations", "bfloat16", b, t, h, i)
    work = chunked_scan_work(batch, length, heads, p, n, "bfloat16", groups=groups)
    counted = tally.work()
    assert (work.read_bytes, work.written_bytes) == (counted.read_bytes, counted.written_bytes)


class Counted:
    """A number that tallies what is done to it; a scalar, so that the cells below read like their equations."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally

    def _operation(self, other: Any) -> Counted:
        self.tally.vector("float32")
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = _operation

    def special(self) -> Counted:
        self.tally.special()
        return self


def tanh(x: Counted) -> Counted:
    return x.special()


sigmoid = exp = ln = reciprocal = tanh


def larger(x: Counted, y: Any) -> Counted:
    return x + y


def elman(r: list[Counted], x: list[Counted], b: list[Counted], s: list[Counted]) -> None:
    tanh(r[0] + x[0] + b[0])


def gru(r: list[Counted], x: list[Counted], b: list[Counted], s: list[Counted]) -> None:
    reset, update = sigmoid(r[0] + x[0] + b[0]), sigmoid(r[1] + x[1] + b[1])
    candidate = tanh(x[2] + b[2] + reset * (r[2] + b[3]))
    _ = update * s[0] + (1.0 - update) * candidate


def lstm(r: list[Counted], x: list[Counted], b: list[Counted], s: list[Counted]) -> None:
    i, f, o = (sigmoid(r[gate] + x[gate] + b[gate]) for gate in range(3))
    z = tanh(r[3] + x[3] + b[3])
    cell = f * s[1] + i * z
    _ = o * tanh(cell)


def slstm(r: list[Counted], x: list[Counted], b: list[Counted], s: list[Counted]) -> None:
    i, f, o, z = (r[gate] + x[gate] + b[gate] for gate in range(4))
    log_forget = ln(exp(f) + 1.0) + s[3]  # ln sigmoid(f) = -ln(1 + exp(-f)); signs ride along
    m = larger(i, log_forget)
    input_gate, forget_gate = exp(i - m), exp(log_forget - m)
    cell = forget_gate * s[1] + input_gate * tanh(z)
    n = larger(forget_gate * s[2] + input_gate, 1.0)
    _ = sigmoid(o) * (cell * reciprocal(n))


EQUATIONS: dict[str, Callable[..., None]] = {"elman": elman, "gru": gru, "lstm": lstm, "slstm": slstm}


@pytest.mark.parametrize("kind", CELLS)
def test_recurrent_cells_by_brute_force(kind: str) -> None:
    batch, length, heads, head_dim = 2, 3, 2, 4
    cell = CELLS[kind]
    tally = Tally()
    for h, i in grid(heads, head_dim):
        for gate in range(cell.biases):
            tally.read("weights", "bfloat16", "bias", gate, h, i)
    for b, h, i in grid(batch, heads, head_dim):
        for s in range(cell.states):
            tally.read("kv", "float32", s, b, h, i)
            tally.write("kv", "float32", s, b, h, i)
        for t in range(length):
            for gate in range(cell.recurrent):
                for j in range(head_dim):
                    tally.matrix("bfloat16")
                    tally.read("weights", "bfloat16", gate, h, i, j)
            for gate in range(cell.inputs):
                tally.read("activations", "bfloat16", gate, b, t, h, i)
            numbers = [Counted(tally) for _ in range(4)]
            EQUATIONS[kind](numbers, numbers, numbers, numbers)
            tally.write("activations", "bfloat16", b, t, h, i)
    assert_same(recurrent_cell_work(kind, batch, length, heads, head_dim, "bfloat16"), tally)


def test_recurrent_products_are_what_torch_counts_in_an_eager_loop() -> None:
    import torch

    state, r = shaped(3, 1, 5), shaped(4, 5, 5)  # [heads, batch, D] by the four gates' [D, D], head by head

    def loop() -> None:
        for _ in range(6):
            for _gate in range(4):
                torch.bmm(state, r[:3])

    work = recurrent_cell_work("lstm", 1, 6, 3, 5, "float32")
    assert work.operations[fma_key("float32")] == counted_flop(loop)


def test_unknown_cell_is_named() -> None:
    with pytest.raises(ValueError, match="unknown cell 'rnn': one of elman, gru, lstm, slstm"):
        recurrent_cell_work("rnn", 1, 1, 1, 1, "float32")


# Positive definite matrices


def test_kernel_matrix_by_brute_force() -> None:
    m, n, features = 3, 2, 4
    tally = Tally()
    for name, rows in (("x", m), ("z", n)):
        for i, d in grid(rows, features):
            tally.read("activations", "float64", name, i, d)
            tally.vector("float64", 2 if d else 1)
    for i, j in grid(m, n):
        tally.matrix("float64", 2 * features)
        tally.vector("float64", 4)  # norm + norm, minus twice, times scale: twice the product is a product too
        tally.special()
        tally.write("activations", "float64", i, j)
    assert_same(kernel_matrix_work(m, n, features, "float64"), tally)


def test_gram_kernel_by_brute_force() -> None:
    m, n = 3, 2
    tally = Tally()
    for i, j in grid(m, n):
        tally.read("activations", "float32", "g", i, j)
        tally.read("activations", "float32", "row", i)
        tally.read("activations", "float32", "column", j)
        tally.vector("float32", 4)
        tally.special()
        tally.write("activations", "float32", i, j)
    assert_same(gram_kernel_work(m, n, "float32"), tally)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_cholesky_by_doing_it(n: int) -> None:
    random = np.random.default_rng(0).standard_normal((n, n))
    a = random @ random.T + n * np.eye(n)
    factor, tally = np.zeros((n, n)), Tally()
    for j in range(n):
        for i in range(j, n):
            tally.read("activations", "float64", i, j)
            tally.write("activations", "float64", i, j)
            factor[i, j] = a[i, j]
            for k in range(j):
                factor[i, j] -= factor[i, k] * factor[j, k]
                tally.matrix("float64")
        root = 1.0 / math.sqrt(factor[j, j])
        tally.special()
        for i in range(j, n):
            factor[i, j] *= root
            tally.vector("float64")
    assert np.allclose(factor @ factor.T, a)
    assert_same(cholesky_work(n, "float64"), tally)
    assert counts(cholesky_work(n, "float64", batch=3)) == counts(cholesky_work(n, "float64") * 3)


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (4, 3)])
def test_triangular_solve_by_doing_it(n: int, columns: int) -> None:
    random = np.random.default_rng(0)
    lower, b = np.tril(random.standard_normal((n, n))) + n * np.eye(n), random.standard_normal((n, columns))
    x, tally = b.copy(), Tally()
    for i in range(n):
        tally.special()
        for c in range(columns):
            tally.read("activations", "float64", "b", i, c)
            for k in range(i):
                x[i, c] -= lower[i, k] * x[k, c]
                tally.matrix("float64")
            x[i, c] *= 1.0 / lower[i, i]
            tally.vector("float64")
            tally.write("activations", "float64", i, c)
        for k in range(i + 1):
            tally.read("activations", "float64", "l", i, k)
    assert np.allclose(lower @ x, b)
    assert_same(triangular_solve_work(n, columns, "float64"), tally)


def test_torch_counts_no_factorisation() -> None:
    """The counter has no formula for LAPACK's work: these closed forms rest on the loops above."""
    import torch

    assert counted_flop(lambda: torch.linalg.cholesky(torch.eye(5))) == 0
    assert kernel_matrix_work(5, 7, 3, "float32").operations[fma_key("float32")] == counted_flop(
        lambda: shaped(5, 3) @ shaped(3, 7)
    )


@settings(max_examples=30)
@given(length=st.integers(1, 30), chunk=st.integers(1, 30))
def test_scans_split_along_the_sequence(length: int, chunk: int) -> None:
    """A sequence in two parts does the same arithmetic; the state moves once more."""
    for work in (
        lambda t: gated_scan_work(2, t, 3, "float16"),
        lambda t: selective_scan_work(2, t, 3, 4, "float16"),
        lambda t: recurrent_cell_work("lstm", 2, t, 3, 4, "float16"),
    ):
        parts, whole = work(length) + work(chunk), work(length + chunk)
        assert parts.operations == whole.operations
        assert parts.read_bytes["activations"] == whole.read_bytes["activations"]
        assert parts.read_bytes["kv"] == 2 * whole.read_bytes["kv"]


def test_conv2d_problem_keeps_the_size() -> None:
    problem = Conv2d(
        batch=1, in_channels=8, out_channels=8, height=9, width=7, kernel_height=5, kernel_width=3, groups=8
    )
    assert problem.work().written_bytes == {"activations": 4 * 8 * 9 * 7}
    assert problem.work().operations.keys() == {fma_key("float32")}
    assert SPECIAL not in problem.work().operations
    assert VECTOR not in problem.work().operations
