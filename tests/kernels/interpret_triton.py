"""Check the Triton kernels in Triton's interpreter. Run with TRITON_INTERPRET=1 and the groups: prints JSON.

By group, one object by case: its name, the relative error against float64 and the accepted one. bfloat16 arithmetic is wrong in
the interpreter of Triton 3.8, so bfloat16 kernels are checked with float16 and float32 operands.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ridgeline.analytical.operators import Attention, Fma, QuantisedAttention, Stream, WeightOnlyGemm
from ridgeline.kernels.registry import Context, get_implementation, get_operator, load

Case = tuple[str, torch.Tensor, torch.Tensor, float]
"""Name, output, float64 reference, accepted relative error."""
TOLERANCE = {"float32": 1e-5, "float16": 3e-3}


def compute(
    operator: str,
    problem: Any,
    constants: Mapping[str, torch.Tensor],
    inputs: Mapping[str, torch.Tensor],
    out: torch.Tensor,
    config: Mapping[str, Any] | None = None,
    name: str = "triton",
) -> torch.Tensor:
    """Prepare and run once on a poisoned output."""
    prepare = get_implementation(operator, name).prepare
    run = prepare(problem, constants, Context(device="cpu", threads=1, config=config or {}))
    out.fill_(float("nan") if out.dtype.is_floating_point else -77)
    run(inputs, out)
    return out


def normal(*shape: int, dtype: str, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(getattr(torch, dtype))


def gemm() -> Iterator[Case]:
    operator = get_operator("gemm")
    small_tile = {"block_m": 32, "block_n": 32, "block_k": 32, "group_m": 3}
    for problem in operator.test_problems:
        if problem.precision == "bfloat16":
            continue
        generator = torch.Generator().manual_seed(0)
        constants, inputs = operator.make_constants(problem, generator), operator.make_inputs(problem, generator)
        reference = operator.reference(problem, constants, inputs, None)
        tolerance = operator.tolerance(problem).relative
        for name, config in (("triton", {}), ("triton", small_tile), ("triton_tf32", {})):
            if get_implementation("gemm", name).unsupported_reason(problem, "cuda"):
                continue
            out = compute("gemm", problem, constants, inputs, operator.make_output(problem), config, name)
            yield f"{name} {problem.label} {config}", out, reference, tolerance


def attention_reference(problem: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    group = problem.q_heads // problem.kv_heads
    q, k, v = q.double(), k.double().repeat_interleave(group, 1), v.double().repeat_interleave(group, 1)
    t, s = problem.q_length, problem.kv_length
    scores = q @ k.transpose(-1, -2) / math.sqrt(problem.head_dim)
    hidden = torch.zeros(t, s, dtype=torch.bool)
    if problem.causal:
        hidden = torch.arange(s)[None, :] > torch.arange(t)[:, None] + s - t
    if problem.transform == "sigmoid":
        return torch.sigmoid(scores - math.log(s)).masked_fill(hidden, 0.0) @ v
    weights = torch.softmax(scores.masked_fill(hidden, float("-inf")), -1)
    return torch.nan_to_num(weights, nan=0.0) @ v  # a row that sees no key is 0 / 0


def attention() -> Iterator[Case]:
    # batch, q_heads, kv_heads, q_length, kv_length, head_dim, causal, precision, config
    problems = (
        (1, 1, 1, 1, 1, 16, False, "float32", {}),
        (2, 3, 1, 1, 131, 64, True, "float16", {}),  # decode: a group of 3 folded into one tile
        (1, 20, 1, 1, 70, 40, False, "float16", {}),  # a group that is wider than the smallest tile
        (2, 4, 2, 33, 65, 40, True, "float32", {}),
        (1, 6, 2, 37, 13, 24, True, "float32", {}),  # more queries than keys: 24 of them see nothing
        (1, 2, 2, 70, 70, 64, True, "float16", {"block_m": 32, "block_n": 16}),
        (1, 5, 1, 7, 45, 80, False, "float16", {}),
        (1, 6, 2, 19, 50, 32, True, "float32", {"fold": 1, "block_m": 16, "block_n": 16}),  # folded prefill
        (1, 3, 1, 20, 5, 16, True, "float16", {"fold": 1, "block_m": 16, "block_n": 16}),
    )
    for batch, q_heads, kv_heads, t, s, d, causal, precision, config in problems:
        for transform in ("softmax", "sigmoid"):
            problem = Attention(
                batch=batch,
                q_heads=q_heads,
                kv_heads=kv_heads,
                q_length=t,
                kv_length=s,
                head_dim=d,
                causal=causal,
                transform=transform,
                precision=precision,
            )
            q = normal(batch, q_heads, t, d, dtype=precision, seed=1)
            k = normal(batch, kv_heads, s, d, dtype=precision, seed=2)
            v = normal(batch, kv_heads, s, d, dtype=precision, seed=3)
            out = compute("attention", problem, {}, {"q": q, "k": k, "v": v}, torch.empty_like(q), config)
            yield f"{problem.label} {config}", out, attention_reference(problem, q, k, v), TOLERANCE[precision]


def round_to_fp8() -> None:
    """Let the interpreter round float32 to FP8 as hardware does: where a mantissa rounds up to a power of two, the one of
    Triton 3.8 loses the carry, and 126 becomes 64."""
    from triton import language as tl
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def rounded(value: np.ndarray, source: Any, target: Any, mode: Any) -> np.ndarray:
        if (source, target) != (tl.float32, tl.float8e4nv):
            return convert(value, source, target, mode)
        narrow = torch.from_numpy(np.array(value, dtype=np.float32)).to(torch.float8_e4m3fn)
        return narrow.view(torch.uint8).numpy()

    interpreter._convert_float = rounded


def quantised_attention() -> Iterator[Case]:
    round_to_fp8()
    operator = get_operator("quantised_attention")
    small = {"block_m": 32, "block_n": 32}
    # batch, q_heads, kv_heads, q_length, kv_length, head_dim, causal, values, granularity, smoothed, config
    problems = (
        (1, 1, 1, 1, 1, 16, False, "float16", "thread", "k", {}),
        (2, 3, 1, 1, 131, 64, True, "float16", "block", "kq", {}),
        (2, 4, 2, 33, 65, 40, True, "float16", "thread", "kqv", small),
        (1, 6, 2, 37, 13, 24, True, "float16", "warp", "v", small),  # 24 queries see nothing
        (1, 2, 1, 150, 90, 64, False, "float16", "thread", "kq", {}),  # two blocks of smoothed queries
        (1, 2, 2, 140, 150, 32, True, "float16", "token", "", {"block_m": 64, "block_n": 64}),
        (1, 5, 1, 7, 45, 80, False, "float8_e4m3fn", "thread", "k", {}),
        (1, 3, 1, 70, 200, 64, True, "float8_e4m3fn", "thread", "kqv", {}),
        (1, 6, 2, 37, 13, 24, True, "float8_e4m3fn", "block", "kqv", {}),
    )
    for batch, q_heads, kv_heads, t, s, d, causal, values, granularity, smoothed, config in problems:
        problem = QuantisedAttention(
            batch=batch, q_heads=q_heads, kv_heads=kv_heads, q_length=t, kv_length=s, head_dim=d, causal=causal,
            values=values, granularity=granularity, smooth_q="q" in smoothed, smooth_k="k" in smoothed,
            smooth_v="v" in smoothed,
        )  # fmt: skip
        inputs = operator.make_inputs(problem, torch.Generator().manual_seed(9))
        out = compute("quantised_attention", problem, {}, inputs, operator.make_output(problem), config)
        tolerance = operator.tolerance(problem).relative
        yield f"{problem.label} {config}", out, operator.reference(problem, {}, inputs, None), tolerance
        # Step by step in torch, over tiles of 64 keys too where V is FP8: P is rounded to the same numbers.
        if values == "float16" or not config:
            emulated = compute("quantised_attention", problem, {}, inputs, out.clone(), name="torch_eager")
            yield f"{problem.label} {config} emulated", out, emulated.double(), 1e-3


def attention_quantiser() -> Iterator[Case]:
    operator = get_operator("attention_quantiser")
    for index, problem in enumerate(operator.test_problems):
        if problem.role == "value":
            continue
        # bfloat16 arithmetic is wrong in the interpreter; a load followed by a conversion is right.
        for granularity in ("thread", "warp", "block", "token")[index % 2 :: 1 + (index > 2)]:
            variant = dataclasses.replace(problem, granularity=granularity)
            inputs = operator.make_inputs(variant, torch.Generator().manual_seed(10))
            out = compute("attention_quantiser", variant, {}, inputs, operator.make_output(variant))
            yield (
                variant.label,
                out,
                operator.reference(variant, {}, inputs, None),
                operator.tolerance(variant).relative,
            )


def weight_only_gemm() -> Iterator[Case]:
    # m, n, k, group
    shapes = ((1, 1, 1, 1), (3, 5, 7, 7), (1, 65, 66, 11), (17, 33, 128, 32), (2, 40, 256, 128), (5, 20, 130, 130))
    for weight in ("int8", "int4"):
        least, most = (-127, 127) if weight == "int8" else (-8, 7)
        for m, n, k, group in shapes:
            for precision in ("float32", "float16"):
                problem = WeightOnlyGemm(m=m, n=n, k=k, weight=weight, group=group, precision=precision)
                generator = torch.Generator().manual_seed(4)
                q = torch.randint(least, most + 1, (n, k), generator=generator, dtype=torch.int8)
                scale = (torch.rand(n, k // group, generator=generator) * 0.02 + 0.01).to(getattr(torch, precision))
                x = normal(m, k, dtype=precision, seed=5)
                out = compute(
                    "weight_only_gemm",
                    problem,
                    {"q": q, "scale": scale},
                    {"x": x},
                    torch.empty(m, n, dtype=x.dtype),
                )
                weights = q.double() * scale.double().repeat_interleave(group, 1)
                yield problem.label, out, x.double() @ weights.T, TOLERANCE[precision]


def stream() -> Iterator[Case]:
    for elements in (1, 15, 1000, 4099, 70001):
        a, b = normal(elements, dtype="float32", seed=6), normal(elements, dtype="float32", seed=7)
        sums = torch.zeros(-(-elements // 16) * 16, dtype=torch.float64)
        sums[:elements] = a.double()
        references = {"read": sums.reshape(-1, 16).sum(0), "copy": a.double(), "triad": a.double() + 0.5 * b.double()}
        for operation, reference in references.items():
            problem = Stream(operation=operation, elements=elements, passes=2)
            out = torch.empty(reference.shape, dtype=torch.float32)
            # Few programs, so that each of them takes several blocks.
            config = {"block": 1024, "programs": 5}
            compute("stream", problem, {}, {"a": a, "b": b}, out, config)
            yield f"{operation} {elements}", out, reference, 0.0 if operation == "copy" else 1e-5


def fma() -> Iterator[Case]:
    operator = get_operator("fma")
    tile = {"unit": "matrix", "chains": 128, "lanes": 128}
    more = (
        Fma(precision="float16", groups=2, depth=16, iterations=11, **tile),
        Fma(precision="float8_e4m3fn", groups=1, depth=32, iterations=3, **tile),
        Fma(precision="int8", groups=2, depth=64, iterations=9, **tile),
        Fma(precision="tfloat32", groups=1, depth=16, iterations=8, **tile),
    )
    for problem in (*operator.test_problems, *more):
        name = f"triton_{problem.unit}"
        if get_implementation("fma", name).unsupported_reason(problem, "cuda") or problem.precision == "bfloat16":
            continue
        inputs = operator.make_inputs(problem, torch.Generator().manual_seed(8))
        out = compute("fma", problem, {}, inputs, operator.make_output(problem), name=name)
        reference = operator.reference(problem, {}, inputs, None)
        # The interpreter multiplies float8 and TF32 operands exactly: none of the hardware's own error is accepted.
        tolerance = min(operator.tolerance(problem).relative, 1e-5)
        yield f"{problem.to_dict()}", out, reference, tolerance


GROUPS = {
    "gemm": gemm,
    "attention": attention,
    "quantised_attention": quantised_attention,
    "attention_quantiser": attention_quantiser,
    "weight_only_gemm": weight_only_gemm,
    "stream": stream,
    "fma": fma,
}


def cases_of(group: str) -> list[dict[str, Any]]:
    cases = []
    for name, out, reference, tolerance in GROUPS[group]():
        assert out.shape == reference.shape, name
        scale = float(torch.linalg.vector_norm(reference)) or 1.0
        error = float(torch.linalg.vector_norm(out.double() - reference)) / scale
        # JSON has no NaN; an output element that was not written is one.
        cases.append({"case": name, "error": error if math.isfinite(error) else None, "tolerance": tolerance})
    return cases


if __name__ == "__main__":
    load()
    print(json.dumps({group: cases_of(group) for group in sys.argv[1:]}))
