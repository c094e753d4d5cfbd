"""The native quantiser: integers and scales of the definition in torch, on every path of this CPU."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.operators import AttentionQuantiser
from ridgeline.analytical.operators.quantised_attention import QUERY_GROUPING
from ridgeline.kernels.attention_quantiser.operator import quantise_as
from ridgeline.kernels.native.attention_quantiser import Quantiser, bind_quantiser, paths
from ridgeline.kernels.native.build import NativeCallError
from ridgeline.kernels.quantised_attention.quantise import LARGEST, SCALE_FLOOR

PATHS = ("avx512", "avx2", "portable")


def bound(problem: AttentionQuantiser, path: str | None = None, threads: int = 1) -> Quantiser:
    return bind_quantiser(problem, LARGEST[problem.to], SCALE_FLOOR, threads, path=path)


@settings(max_examples=20, deadline=None)
@given(
    role=st.sampled_from(["query", "key"]),
    to=st.sampled_from(["int8", "int4"]),
    granularity=st.sampled_from(sorted(QUERY_GROUPING)),
    smooth=st.booleans(),
    length=st.integers(1, 270),
    head_dim=st.integers(1, 40),
    path=st.sampled_from(PATHS),
)
def test_integers_and_scales_are_those_of_the_definition(
    role: str, to: str, granularity: str, smooth: bool, length: int, head_dim: int, path: str
) -> None:
    if path not in paths():
        path = "portable"
    problem = AttentionQuantiser(
        batch=1, heads=3, length=length, head_dim=head_dim, role=role, to=to, granularity=granularity, smooth=smooth
    )
    generator = torch.Generator().manual_seed(length)
    x = torch.randn(1, 3, length, head_dim, generator=generator) + 8 * torch.randn(
        1, 3, 1, head_dim, generator=generator
    )
    values, scales = quantise_as(problem, x.double())
    quantiser, out = bound(problem, path, threads=1 + length % 2), torch.full(x.shape, 77, dtype=torch.int8)
    quantiser.run(x, out)
    torch.testing.assert_close(quantiser.scales.double(), scales, rtol=1e-4, atol=1e-7)
    differing = (out.long() - values.long()).abs()
    assert differing.max() <= 1  # close to the middle of two integers
    assert differing.sum() <= 2 + out.numel() // 1000


def test_a_group_with_a_nan_has_the_scale_nan_and_others_do_not() -> None:
    problem = AttentionQuantiser(batch=1, heads=2, length=100, head_dim=24, role="key", smooth=False)
    x = torch.randn(1, 2, 100, 24, generator=torch.Generator().manual_seed(1))
    for lane in (0, 13, 23):
        for path in paths():
            poisoned = x.clone()
            poisoned[0, 1, 70, lane] = math.nan
            quantiser, out = bound(problem, path), torch.empty(x.shape, dtype=torch.int8)
            quantiser.run(poisoned, out)
            assert quantiser.scales[0].isnan().nonzero().tolist() == [[1, 4 + 70 % 8 // 2]]


def test_wrong_tensors_are_refused_by_name() -> None:
    problem = AttentionQuantiser(batch=1, heads=2, length=10, head_dim=24)
    run, x, out = bound(problem).run, torch.zeros(1, 2, 10, 24), torch.zeros(1, 2, 10, 24, dtype=torch.int8)
    run(x, out)
    assert (out == 0).all()
    with pytest.raises(NativeCallError, match=r"^x must be a contiguous CPU tensor float32"):
        run(x.double(), out)
    with pytest.raises(NativeCallError, match=r"^out must be a contiguous CPU tensor int8"):
        run(x, out[:, :1])
    with pytest.raises(NativeCallError, match="no path 'sse'"):
        bound(problem, "sse")
    with pytest.raises(NativeCallError, match="a scale a channel"):
        bound(AttentionQuantiser(batch=1, heads=2, length=10, head_dim=24, role="value", granularity="channel"))
