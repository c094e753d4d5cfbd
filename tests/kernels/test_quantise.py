"""Smoothing and quantising for attention: groups, rounding, and what smoothing leaves unchanged."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.operators import QuantisedAttention
from ridgeline.analytical.operators.quantised_attention import KEY_GROUPING, QUERY_GROUPING
from ridgeline.kernels.quantised_attention.operator import dequantise, exact_attention, make_floats
from ridgeline.kernels.quantised_attention.quantise import (
    LARGEST,
    Floats,
    correction_of,
    quantise,
    quantise_channels,
    quantise_tokens,
    smooth_blocks,
    smooth_tokens,
    to_precision,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(
    role=st.sampled_from(["query", "key"]),
    granularity=st.sampled_from(sorted(QUERY_GROUPING)),
    precision=st.sampled_from(["int8", "int4"]),
    length=st.integers(1, 150),
    seed=st.integers(0, 99),
)
def test_every_token_is_within_half_a_step_of_its_own_groups_scale(
    role: str, granularity: str, precision: str, length: int, seed: int
) -> None:
    grouping = (QUERY_GROUPING if role == "query" else KEY_GROUPING)[granularity]
    x = normal(1, 2, length, 3, seed=seed)
    values, scales = quantise_tokens(x, grouping, precision)
    assert values.dtype == torch.int8
    assert values.abs().max() <= LARGEST[precision]
    for head in range(2):
        members: dict[int, list[int]] = {}
        for token in range(length):
            members.setdefault(grouping.group(token), []).append(token)
        for group, tokens in members.items():
            largest = max(float(x[0, head, token].abs().max()) for token in tokens)
            assert float(scales[0, head, group]) == pytest.approx(largest / LARGEST[precision] + 1e-7)
            lost = x[0, head, tokens] - values[0, head, tokens].double() * scales[0, head, group]
            assert lost.abs().max() <= scales[0, head, group] * 0.5000001


def test_halves_are_rounded_away_from_zero() -> None:
    scaled = torch.tensor([0.5, -0.5, 1.5, -1.5, 0.49, -0.49, 126.5, -126.9, 0.0])
    assert to_precision(scaled, "int8").tolist() == [1, -1, 2, -2, 0, 0, 127, -127, 0]


def test_zeros_and_not_a_number() -> None:
    x = torch.zeros(1, 1, 70, 4)
    x[0, 0, 66, 2] = math.nan
    values, scales = quantise_tokens(x, KEY_GROUPING["thread"], "int8")
    assert (values[0, 0, :64] == 0).all()
    poisoned = KEY_GROUPING["thread"].group(66)
    assert scales[0, 0].isnan().nonzero().flatten().tolist() == [poisoned]


def test_a_channel_of_values_reaches_the_largest_fp8_number() -> None:
    v = normal(1, 2, 50, 6)
    values, scale = quantise_channels(v, "float8_e4m3fn")
    assert (values.double().abs().amax(2) == 448.0).all()
    assert ((values.double() * scale[:, :, None] - v).abs() <= v.abs() / 16 + scale[:, :, None] * 2**-9).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("q_length", "kv_length"), [(150, 70), (5, 90)])
def test_smoothing_changes_no_attention(causal: bool, q_length: int, kv_length: int) -> None:
    q, k, v = (
        normal(2, 4, q_length, 8) + 3,
        normal(2, 2, kv_length, 8, seed=1) + 5,
        normal(2, 2, kv_length, 8, seed=2) + 1,
    )
    expected = exact_attention(Floats(q, k, v), causal)
    q_smooth, q_mean = smooth_blocks(q)
    k_smooth, _ = smooth_tokens(k)
    v_smooth, v_mean = smooth_tokens(v)
    found = exact_attention(
        Floats(q_smooth, k_smooth, v_smooth), causal, correction=correction_of(q_mean, k_smooth), v_mean=v_mean
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert q_smooth[:, :, :128].mean(2).abs().max() < 1e-12
    if causal and q_length > kv_length:
        assert (found[:, :, : q_length - kv_length] == 0).all()


def test_finer_groups_and_smoothing_lose_less() -> None:
    errors = {}
    for granularity, smooth_k in [("thread", True), ("block", True), ("block", False)]:
        problem = QuantisedAttention(
            batch=1, q_heads=2, kv_heads=2, q_length=256, kv_length=256, head_dim=64, scores="int4", values="float32",
            granularity=granularity, smooth_k=smooth_k,
        )  # fmt: skip
        floats = make_floats(problem, torch.Generator().manual_seed(1), value_mean=0.0)
        found = exact_attention(dequantise(problem, quantise(problem, floats), torch.float64), False)
        exact = exact_attention(floats, False)
        errors[granularity, smooth_k] = float((found - exact).norm() / exact.norm())
    assert errors["thread", True] < errors["block", True] < 0.5 * errors["block", False]
