"""Native quantised attention: exact integers and the reference on every path of this CPU, and what it refuses."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import subprocess

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.operators import QuantisedAttention
from ridgeline.kernels.native.build import SANITIZE, NativeCallError, library
from ridgeline.kernels.native.quantised_attention import bind, int8_products, paths
from ridgeline.kernels.registry import Context, Unsupported, get_implementation, get_operator, load

load()
OPERATOR = get_operator("quantised_attention")
PATHS = ("avx512_vnni", "avx_vnni", "avx512", "avx2", "portable")


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name not in paths():
        pytest.skip(f"this CPU has no {name}")
    return name


def prepared(problem: QuantisedAttention, seed: int = 0) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    inputs = OPERATOR.make_inputs(problem, torch.Generator().manual_seed(seed))
    return dict(inputs), torch.full_like(OPERATOR.make_output(problem), math.nan)


@settings(max_examples=15, deadline=None)
@given(m=st.integers(1, 110), n=st.integers(1, 80), depth=st.integers(1, 70), seed=st.integers(0, 99))
def test_integer_products_are_exact(m: int, n: int, depth: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randint(-128, 128, (rows, depth), generator=generator, dtype=torch.int8) for rows in (m, n))
    a[-1], b[-1] = -128, -128  # what would saturate 16 bits
    for name in paths():
        out = torch.full((m, n), 0x5A5A5A5A, dtype=torch.int32)
        int8_products(a, b, out, path=name)
        assert torch.equal(out.long(), a.long() @ b.long().T), name


def test_every_path_gives_the_reference(path: str) -> None:
    ran = 0
    for problem in OPERATOR.test_problems:
        problem = dataclasses.replace(problem, precision="float32")
        if problem.scores == "float8_e4m3fn":
            continue
        inputs, out = prepared(problem)
        bind(problem, 1 + ran % 2, path=path)(inputs, out)
        expected = OPERATOR.reference(problem, {}, inputs, None)
        error = float((out.double() - expected).norm() / expected.norm())
        assert error <= 1e-5, problem.label  # P stays in float32: a tenth of the operator's tolerance
        ran += 1
    assert ran >= 8


def test_decode_and_long_tails(path: str) -> None:
    for t, s, d in [(1, 1, 8), (1, 257, 72), (97, 129, 16), (200, 128, 136)]:
        problem = QuantisedAttention(
            batch=1, q_heads=3, kv_heads=1, q_length=t, kv_length=s, head_dim=d, causal=True, values="float8_e4m3fn",
            smooth_q=True, smooth_v=True, granularity="warp",
        )  # fmt: skip
        inputs, out = prepared(problem)
        bind(problem, 1, path=path)(inputs, out)
        expected = OPERATOR.reference(problem, {}, inputs, None)
        assert float((out.double() - expected).norm() / expected.norm()) <= 1e-5, problem.label


def test_not_a_number_reaches_the_rows_that_it_reaches_in_the_reference(path: str) -> None:
    problem = QuantisedAttention(
        batch=1, q_heads=2, kv_heads=2, q_length=70, kv_length=140, head_dim=16, smooth_q=True, values="float8_e4m3fn"
    )
    for name, index, bad in [
        ("q_scale", (0, 0, 9), math.nan),
        ("q_scale", (0, 0, 9), math.inf),
        ("k_scale", (0, 1, 2), math.nan),
        ("correction", (0, 0, 0, 139), math.nan),
        ("correction", (0, 0, 0, 139), math.inf),
        ("correction", (0, 0, 0, 139), -math.inf),  # this key counts for nothing
    ]:
        inputs, out = prepared(problem)
        inputs[name][index] = bad
        bind(problem, 1, path=path)(inputs, out)
        expected = OPERATOR.reference(problem, {}, inputs, None)
        assert torch.equal(out.isnan(), expected.isnan()), (name, bad)
        assert expected.isnan().any() or bad == -math.inf
    inputs, out = prepared(problem)
    inputs["v"].view(torch.uint8)[0, 0, 133, 5] = 0x7F  # NaN of float8_e4m3fn
    bind(problem, 1, path=path)(inputs, out)
    assert out[0, 0, :, 5].isnan().all()
    assert out.isnan().sum() == 70


@pytest.mark.parametrize("values", ["float16", "bfloat16", "float8_e4m3fn"])
def test_narrow_values_are_widened_exactly(values: str) -> None:
    # One key, so that O is V: every bit pattern.
    dtype = getattr(torch, values)
    bits = torch.arange(2 ** (8 * dtype.itemsize), dtype=torch.int32)
    patterns = bits.to(torch.uint8 if dtype.itemsize == 1 else torch.int16)
    count, d = max(1, len(patterns) // 4096), min(len(patterns), 4096)
    problem = QuantisedAttention(
        batch=count, q_heads=1, kv_heads=1, q_length=1, kv_length=1, head_dim=d, values=values, granularity="token"
    )
    inputs, out = prepared(problem)
    inputs["v"] = patterns.view(dtype).reshape(count, 1, 1, d)
    if "v_scale" in inputs:
        inputs["v_scale"].fill_(1.0)
    bind(problem, 1)(inputs, out)
    torch.testing.assert_close(out, inputs["v"].float(), rtol=0, atol=0, equal_nan=True)


def test_wrong_tensors_are_refused_by_name() -> None:
    problem = QuantisedAttention(batch=1, q_heads=2, kv_heads=1, q_length=5, kv_length=9, head_dim=16)
    run = bind(problem, 1)
    inputs, out = prepared(problem)
    run(inputs, out)
    wrong = {
        "q": inputs["q"].transpose(1, 2).contiguous().transpose(1, 2),
        "k": inputs["k"].short(),
        "v": inputs["v"].float(),
        "q_scale": inputs["q_scale"][..., :4],
        "k_scale": inputs["k_scale"].double(),
    }
    for name, tensor in wrong.items():
        with pytest.raises(NativeCallError, match=f"^{name} must be a contiguous") as caught:
            run({**inputs, name: tensor}, out)
        assert "\n" not in str(caught.value)
    with pytest.raises(NativeCallError, match=r"^out must be"):
        run(inputs, out.half())
    with pytest.raises(NativeCallError, match="more threads than CPUs"):
        bind(problem, 4096)(inputs, out)
    with pytest.raises(NativeCallError, match="no path 'mmx'"):
        bind(problem, 1, path="mmx")
    a, b, counts = (torch.zeros(2, n, dtype=torch.int8) for n in (3, 4, 2))
    with pytest.raises(NativeCallError, match=r"^a must be a contiguous CPU tensor int8\[2, 4\]"):
        int8_products(a, b, counts)
    with pytest.raises(NativeCallError, match=r"^out must be a contiguous CPU tensor int32\[2, 2\]"):
        int8_products(b, b, counts)
    with pytest.raises(NativeCallError, match="depth of 1 to 65536"):
        int8_products(a, torch.zeros(2, 70000, dtype=torch.int8), counts)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scores": "float8_e4m3fn"}, "multiplies integers"),
        ({"values": "int8"}, "counted, not computed"),
    ],
)
def test_what_it_does_not_take_is_unsupported(change: dict[str, str], reason: str) -> None:
    problem = QuantisedAttention(batch=1, q_heads=1, kv_heads=1, q_length=5, kv_length=9, head_dim=16, **change)
    with pytest.raises(Unsupported, match=reason):
        get_implementation("quantised_attention", "native").prepare(problem, {}, Context("cpu", 1))


def test_the_library_holds_the_instructions_of_its_paths() -> None:
    # numba never reached vpdpbusd: what is compiled is looked at, also where this CPU cannot run it.
    if shutil.which("objdump") is None:
        pytest.skip("no objdump")
    if os.environ.get(SANITIZE):
        pytest.skip("built with sanitizers, which is not what is measured")
    if "avx2" not in paths():
        pytest.skip("not an x86 CPU with AVX2")
    listing = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", str(library("quantised_attention"))],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for instruction in ("vpdpbusd", "vpmaddwd"):
        lines = [line for line in listing.splitlines() if instruction in line]
        for register in ("%zmm", "%ymm"):
            # Rows times vectors of sums, twice: alone and within attention.
            assert sum(register in line for line in lines) >= 24, (instruction, register)
