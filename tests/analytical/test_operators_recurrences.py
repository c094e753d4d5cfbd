"""Work of scans and recurrent cells against their equations, done or walked, and torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from brute_force import Tally, assert_same, counted_flop, grid, shaped
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.operators import (
    CELLS,
    chunked_scan_work,
    gated_scan_work,
    recurrent_cell_work,
    selective_scan_work,
)
from ridgeline.analytical.work import fma_key

sizes = st.integers(1, 40)


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
