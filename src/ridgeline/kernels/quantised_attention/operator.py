"""``quantised_attention``: inputs, references and tolerance of softmax attention on quantised Q, K and V."""

from __future__ import annotations

import math

import torch

from ridgeline.analytical.operators import QuantisedAttention
from ridgeline.analytical.operators.quantised_attention import KEY_GROUPING, QUERY_BLOCK, QUERY_GROUPING
from ridgeline.kernels.quantised_attention.quantise import Floats, quantise
from ridgeline.kernels.registry import Operator, Tensors, Tolerance, operator

KEY_BIAS = 8.0
"""Magnitude of the bias of each channel of K, its sign at random: what smoothing K is for. The rest is normal."""
VALUE_MEAN = 1.0
"""Standard deviation of the means of the channels of V: what smoothing V is for. The rest is normal."""


def make_floats(
    problem: QuantisedAttention,
    generator: torch.Generator,
    *,
    query_bias: float = 0.0,
    key_bias: float = KEY_BIAS,
    value_mean: float = VALUE_MEAN,
) -> Floats:
    """Normal Q, K and V with a bias of each channel of a head: ``query_bias`` and ``key_bias`` of random sign, a normal
    one of standard deviation ``value_mean``."""

    def normal(heads: int, length: int) -> torch.Tensor:
        return torch.randn(problem.batch, heads, length, problem.head_dim, generator=generator)

    q = normal(problem.q_heads, problem.q_length) + query_bias * normal(problem.q_heads, 1).sign()
    k = normal(problem.kv_heads, problem.kv_length) + key_bias * normal(problem.kv_heads, 1).sign()
    v = normal(problem.kv_heads, problem.kv_length) + value_mean * normal(problem.kv_heads, 1)
    return Floats(q, k, v)


def dequantise(problem: QuantisedAttention, inputs: Tensors, dtype: torch.dtype) -> Floats:
    """Q, K and V that the quantised ones stand for, without what was taken from them to smooth them.

    A value is exact in float32: an integer of at most 8 bits, or an FP8 number, times a float32 scale, rounded once.
    """
    q_group = QUERY_GROUPING[problem.granularity].group(torch.arange(problem.q_length, device=inputs["q"].device))
    k_group = KEY_GROUPING[problem.granularity].group(torch.arange(problem.kv_length, device=inputs["q"].device))
    v = inputs["v"].to(dtype)
    if "v_scale" in inputs:
        v = v * inputs["v_scale"].to(dtype)[:, :, None]
    return Floats(
        inputs["q"].to(dtype) * inputs["q_scale"].to(dtype)[:, :, q_group, None],
        inputs["k"].to(dtype) * inputs["k_scale"].to(dtype)[:, :, k_group, None],
        v,
    )


def exact_attention(
    floats: Floats,
    causal: bool,
    *,
    correction: torch.Tensor | None = None,
    v_mean: torch.Tensor | None = None,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax attention in float64, ``rows`` of it [rows, d], or all [batch, q_heads, T, d].

    Of dequantised operands it is the reference of an implementation; of those before quantising, that of its quality.

    Args:
        correction: added to the products of a block of 128 queries with each key, [batch, q_heads, blocks, S].
        v_mean: added to O, [batch, kv_heads, d].
    """
    batch, q_heads, t, d = floats.q.shape
    kv_heads, s = floats.k.shape[1:3]
    out_shape = floats.q.shape if rows is None else (len(rows), d)
    rows = torch.arange(batch * q_heads * t) if rows is None else rows.long()
    q, keys, values = floats.q.reshape(-1, d), floats.k.reshape(-1, s, d), floats.v.reshape(-1, s, d)
    head, query = rows // t, rows % t
    kv_head = head // (q_heads // kv_heads)  # group kv_heads = q_heads, so this runs over the batch too
    answer = torch.zeros(len(rows), d, dtype=torch.float64)
    for number in kv_head.unique().tolist():  # one KV head at a time in float64, whatever the batch
        chosen = (kv_head == number).nonzero().squeeze(1)
        scores = q[rows[chosen]].double() @ keys[number].double().T
        if correction is not None:
            blocks = correction.reshape(batch * q_heads, -1, s)
            scores += blocks[head[chosen], query[chosen] // QUERY_BLOCK].double()
        scores /= math.sqrt(d)
        last_key = query[chosen] + s - t if causal else torch.full((len(chosen),), s - 1)
        seeing = last_key >= 0
        scores.masked_fill_(torch.arange(s) > last_key[:, None], -math.inf)
        result = torch.softmax(scores[seeing], -1) @ values[number].double()
        if v_mean is not None:
            result += v_mean.reshape(-1, d)[number].double()
        answer[chosen[seeing]] = result
    return answer.reshape(out_shape)


def _case(
    shape: tuple[int, int, int, int, int, int], causal: bool, scores: str, values: str, granularity: str,
    smooth: str = "k", precision: str = "float32",
) -> QuantisedAttention:  # fmt: skip
    """A test problem from (batch, q_heads, kv_heads, q_length, kv_length, head_dim) and the letters of what is smoothed."""
    batch, q_heads, kv_heads, q_length, kv_length, head_dim = shape
    return QuantisedAttention(
        batch=batch, q_heads=q_heads, kv_heads=kv_heads, q_length=q_length, kv_length=kv_length, head_dim=head_dim,
        causal=causal, scores=scores, values=values, granularity=granularity,
        smooth_q="q" in smooth, smooth_k="k" in smooth, smooth_v="v" in smooth, precision=precision,
    )  # fmt: skip


@operator
class QuantisedAttentionOperator(Operator):
    """O[batch, q_heads, T, d] of quantised ``q`` [batch, q_heads, T, d] and ``k``, ``v`` [batch, kv_heads, S, d].

    ``q_scale`` [batch, q_heads, groups] and ``k_scale`` [batch, kv_heads, groups] are the float32 scales of the groups of
    the problem's granularity; ``v_scale`` [batch, kv_heads, d] is there where V has eight bits. ``correction``
    [batch, q_heads, blocks of 128 queries, S] is there where Q was smoothed, ``v_mean`` [batch, kv_heads, d] where V was.
    Query t of T sees key s of S where s <= t + S - T if causal; a query that sees no key gives zeros.
    """

    name = "quantised_attention"
    baselines = {"cpu": "torch_dequantise", "cuda": "torch_dequantise"}
    tolerances = {
        "float32": Tolerance(1e-4, "integer products are exact; scores, exponentials and sums in float32"),
        "float16": Tolerance(3e-3, "O rounded to float16: 5e-4 relative; operands may be dequantised to float16"),
        "bfloat16": Tolerance(2e-2, "O rounded to bfloat16: 4e-3 relative; operands may be dequantised to bfloat16"),
    }
    test_problems = (
        _case((1, 1, 1, 1, 1, 64), False, "int8", "float32", "thread"),
        _case((1, 2, 2, 130, 70, 64), False, "int8", "float32", "thread", "kq"),
        _case((2, 4, 2, 33, 65, 64), True, "int8", "float16", "block"),
        _case((1, 6, 2, 37, 13, 40), True, "int4", "float32", "thread", "qkv"),
        _case((1, 3, 1, 1, 131, 128), True, "int8", "float16", "token", ""),
        _case((1, 2, 1, 140, 261, 80), True, "int4", "float8_e4m3fn", "warp", "kqv"),
        _case((1, 2, 2, 67, 67, 64), True, "int8", "float8_e4m3fn", "thread", "kv"),
        _case((1, 5, 5, 19, 45, 32), False, "int8", "bfloat16", "token", "k", "bfloat16"),
        _case((1, 4, 2, 65, 130, 96), True, "int8", "float16", "thread", "kq", "float16"),
        _case((1, 2, 1, 21, 34, 24), False, "float8_e4m3fn", "float8_e4m3fn", "thread", "k"),
    )

    # Rounding P does not average out over the keys where V has no mean, as O then shrinks as the error does: 3e-2 with
    # FP8. The inputs here have one, which is most of O. Seen over the test problems: 7e-3 with FP8, 4e-5 with float16.
    _weights = {
        "float8_e4m3fn": Tolerance(2e-2, "P may be rounded to FP8: up to 6e-2 an element, 2.6e-2 root mean square"),
        "float16": Tolerance(2e-3, "P may be rounded to float16: 5e-4"),
        "bfloat16": Tolerance(1e-2, "P may be rounded to bfloat16: 4e-3"),
    }

    def tolerance(self, problem: QuantisedAttention) -> Tolerance:
        of_output = super().tolerance(problem)
        of_weights = self._weights.get(problem.values, of_output)
        return max(of_output, of_weights, key=lambda tolerance: tolerance.relative)

    def make_inputs(self, problem: QuantisedAttention, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return quantise(problem, make_floats(problem, generator))

    def make_output(self, problem: QuantisedAttention) -> torch.Tensor:
        shape = (problem.batch, problem.q_heads, problem.q_length, problem.head_dim)
        return torch.empty(shape, dtype=getattr(torch, problem.precision))

    def reference(
        self, problem: QuantisedAttention, constants: Tensors, inputs: Tensors, rows: torch.Tensor | None
    ) -> torch.Tensor:
        return exact_attention(
            dequantise(problem, inputs, torch.float64), problem.causal,
            correction=inputs.get("correction"), v_mean=inputs.get("v_mean"), rows=rows,
        )  # fmt: skip
