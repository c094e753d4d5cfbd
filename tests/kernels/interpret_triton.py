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

from ridgeline.analytical.operators import Fma, QuantisedAttention, Stream, WeightOnlyGemm
from ridgeline.analytical.problem import Problem
from ridgeline.kernels.attention.operator import attention_case
from ridgeline.kernels.block_sparse_attention.operator import block_sparse_case
from ridgeline.kernels.paged_attention.operator import paged_case
from ridgeline.kernels.registry import Context, Unsupported, get_implementation, get_operator, load
from ridgeline.kernels.token_gather_attention.operator import gather_case
from ridgeline.kernels.tree_attention.operator import tree_case

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
        for name, config in (
            ("triton", {}),
            ("triton", small_tile),
            ("triton_tf32", {}),
            ("triton_flat", {}),
            ("triton_gemv", {}),
        ):
            if get_implementation("gemm", name).unsupported_reason(problem, "cuda"):
                continue
            try:
                out = compute("gemm", problem, constants, inputs, operator.make_output(problem), config, name)
            except Unsupported:
                continue  # more rows than the flat ones take
            yield f"{name} {problem.label} {config}", out, reference, tolerance


def against_reference(name: str, problem: Problem, config: Mapping[str, Any], tolerance: float | None = None) -> Case:
    """One implementation of the problem's operator on its inputs, against its reference."""
    operator = get_operator(problem.operator)
    generator = torch.Generator().manual_seed(1)
    constants, inputs = operator.make_constants(problem, generator), operator.make_inputs(problem, generator)
    out = compute(problem.operator, problem, constants, inputs, operator.make_output(problem), config, name)
    reference = operator.reference(problem, constants, inputs, None)
    accepted = TOLERANCE[problem.precision] if tolerance is None else tolerance
    return f"{name} {problem.label} {config}", out, reference, accepted


SMALL_TILE = {"block_m": 16, "block_n": 16}


def attention() -> Iterator[Case]:
    # batch, q_heads, kv_heads, q_length, kv_length, head_dim; causal, precision, window
    problems = (
        ((1, 1, 1, 1, 1, 16), False, "float32", None, {}),
        ((2, 3, 1, 1, 131, 64), True, "float16", None, {}),  # decode: a group of 3 folded into one tile
        ((1, 20, 1, 1, 70, 40), False, "float16", None, {}),  # a group that is wider than the smallest tile
        ((1, 4, 2, 33, 65, 40), True, "float32", None, {}),
        ((1, 6, 2, 37, 13, 24), True, "float32", None, {}),  # more queries than keys: 24 of them see nothing
        ((1, 2, 2, 70, 70, 64), True, "float16", None, {"block_m": 32, "block_n": 16}),
        ((1, 5, 1, 7, 45, 80), False, "float16", None, {}),
        ((1, 6, 2, 19, 50, 32), True, "float32", None, {"fold": 1, **SMALL_TILE}),  # folded prefill
        ((1, 3, 1, 20, 5, 16), True, "float16", None, {"fold": 1, **SMALL_TILE}),
        ((1, 2, 1, 50, 70, 24), True, "float32", 9, SMALL_TILE),
        ((1, 3, 1, 45, 70, 16), True, "float16", 33, {"fold": 1, "block_m": 32, "block_n": 16}),
        ((1, 2, 2, 40, 21, 16), True, "float32", 30, SMALL_TILE),  # a window wider than what is there
        ((1, 2, 1, 40, 21, 16), False, "float32", 5, SMALL_TILE),  # both sides; 15 queries see nothing
        ((1, 3, 1, 1, 90, 16), False, "float32", 40, SMALL_TILE),
    )
    for index, (shape, causal, precision, window, config) in enumerate(problems):
        # Every other shape is enough for the sigmoid: masks and tiles are the softmax's.
        for transform in ("softmax", "sigmoid") if index % 2 == 0 else ("softmax",):
            yield against_reference("triton", attention_case(shape, causal, transform, precision, window), config)
    free = attention_case((1, 4, 2, 9, 40, 24), True, "sigmoid_without_bias", "float16")
    yield against_reference("triton", free, {})
    for shape, causal, transform in (
        ((2, 4, 2, 20, 37, 24), True, "softmax"),
        ((1, 2, 2, 33, 20, 40), True, "sigmoid"),
        ((1, 2, 1, 5, 33, 16), False, "softmax"),
    ):
        problem = attention_case(shape, causal, transform, "float16")
        yield against_reference("triton_bulk", problem, {"block_m": 32, "block_n": 16})
    yield from extreme_sigmoids()
    yield from split_attention()
    yield from unified_attention()


def extreme_sigmoids() -> Iterator[Case]:
    """Scores of hundreds either way, whose weights are 0 and 1 and whose exponentials overflow; what is not a number stays so."""
    problem = attention_case(
        (1, 2, 1, 20, 64, 16), False, "sigmoid", "float16"
    )  # whole tiles: the reciprocal without a division
    operator = get_operator("attention")
    inputs = operator.make_inputs(problem, torch.Generator().manual_seed(1))
    inputs["q"] *= 200.0
    out = compute("attention", problem, {}, inputs, operator.make_output(problem), SMALL_TILE)
    yield (
        f"triton {problem.label} of hundreds",
        out,
        operator.reference(problem, {}, inputs, None),
        TOLERANCE["float16"],
    )
    inputs["q"][0, 1, 7, 3] = math.nan
    out = compute("attention", problem, {}, inputs, operator.make_output(problem), SMALL_TILE)
    gone = out.isnan().all(-1).double()
    expected = torch.zeros_like(gone)
    expected[0, 1, 7] = 1.0
    yield f"triton {problem.label} with a NaN: rows that are none", gone, expected, 0.0


def split_attention() -> Iterator[Case]:
    """Keys in parts: some of them empty, some of the rows blind in some of them, some in all."""
    for shape, causal, precision, window, splits in (
        ((2, 3, 1, 1, 131, 64), True, "float16", None, 4),
        ((1, 2, 2, 1, 33, 24), False, "float32", None, 8),  # 3 blocks of keys for 8 parts
        ((1, 6, 2, 7, 70, 16), True, "float32", None, 3),
        ((1, 2, 1, 20, 11, 16), True, "float32", None, 2),  # 9 queries see nothing
        ((1, 3, 1, 3, 90, 16), True, "float32", 40, 3),
        ((1, 3, 1, 3, 40, 16), False, "float32", None, 1),
    ):
        config = {**SMALL_TILE, "splits": splits}
        for transform in ("softmax", "sigmoid") if splits != 3 else ("softmax",):
            problem = attention_case(shape, causal, transform, precision, window)
            yield against_reference("triton_split_kv", problem, config)


def unified_attention() -> Iterator[Case]:
    """A fixed maximum: rows in its range, and planted ones that leave it on either side."""
    for shape, causal, precision, config in (
        ((2, 3, 1, 1, 131, 64), True, "float16", {"splits": 3}),
        ((2, 3, 1, 1, 70, 24), True, "float32", {"splits": 1}),
        ((1, 2, 2, 40, 21, 24), True, "float32", {}),  # 19 queries see nothing
        ((1, 2, 1, 40, 40, 16), True, "float16", {"phi": 1.0}),
        ((1, 2, 1, 1, 40, 16), True, "float32", {"phi": 100.0, "splits": 2}),  # every weight is too small
    ):
        problem = attention_case(shape, causal, "softmax", precision)
        tile = {**SMALL_TILE, **config}
        operator = get_operator("attention")
        inputs = operator.make_inputs(problem, torch.Generator().manual_seed(1))
        run = get_implementation("attention", "triton_unified_max").prepare(problem, {}, Context("cpu", 1, tile))
        for planted in (False, True):
            rows = inputs["q"].view(-1, problem.q_length, problem.head_dim)
            flagged = torch.full(rows.shape[:2], config.get("phi") == 100.0)
            flagged[:, : max(0, problem.q_length - problem.kv_length)] = True
            if planted:
                rows[0, -1] *= 100.0  # scores of hundreds: weights of float16 overflow from 2^15
                flagged[0, -1] = True
            out = operator.make_output(problem)
            out.fill_(float("nan"))
            run(inputs, out)
            name = f"triton_unified_max {problem.label} {tile} planted {planted}"
            yield name, out, operator.reference(problem, {}, inputs, None), TOLERANCE[precision]
            yield f"flags of {name}", run.flags.view(flagged.shape), flagged.double(), 0.0


def paged_attention() -> Iterator[Case]:
    # (batch, q_heads, kv_heads, q_length, kv_length, head_dim), page, precision, of the keys
    for problem, config in (
        (paged_case((1, 1, 1, 1, 1, 16), 16), {}),
        (paged_case((3, 6, 2, 1, 131, 24), 16), {"block_m": 16, "block_n": 32, "splits": 3}),
        (paged_case((2, 5, 1, 1, 70, 40), 7), {**SMALL_TILE, "splits": 1}),  # a page that is no power of two
        (paged_case((5, 3, 3, 4, 9, 16), 1), {**SMALL_TILE, "splits": 1}),  # some queries see nothing
        (paged_case((3, 3, 1, 3, 20, 16), 5), {"block_m": 16, "block_n": 32, "splits": 2}),
        (paged_case((2, 4, 2, 1, 90, 40), 64, "float16"), {}),
        (paged_case((2, 4, 2, 2, 50, 24), 32, "float32", "float16"), {}),
        (paged_case((2, 6, 2, 1, 40, 24), 16, "float16", "float8_e4m3fn"), {}),
    ):
        yield against_reference("triton", problem, config)


def tree_attention() -> Iterator[Case]:
    # (batch, q_heads, kv_heads, context, nodes, head_dim)
    for problem, config in (
        (tree_case((1, 1, 1, 1, 1, 16)), {}),
        (tree_case((2, 3, 1, 37, 26, 16)), {"block_m": 32, "block_n": 16, "splits": 1}),
        (tree_case((1, 2, 1, 37, 26, 16)), {**SMALL_TILE, "splits": 3}),
        (tree_case((1, 3, 1, 50, 64, 24), "float16"), {"block_m": 64, "block_n": 32, "splits": 1}),
        (tree_case((1, 1, 1, 3, 67, 16), "float16", seed=4), {**SMALL_TILE, "splits": 1}),  # three words of bits
        (tree_case((1, 5, 1, 16, 9, 16), seed=2), {"block_m": 64, "block_n": 16, "splits": 8}),
    ):
        yield against_reference("triton", problem, config)


def block_sparse_attention() -> Iterator[Case]:
    # batch, q_heads, kv_heads, length, head_dim, block; pattern; config
    lines, strided = {"pattern": "lines"}, {"pattern": "strided"}
    problems: tuple[tuple[tuple[int, int, int, int, int, int], dict[str, Any], dict[str, int]], ...] = (
        ((1, 3, 1, 70, 24, 32), {"density": 0.3}, {}),
        ((2, 2, 2, 64, 16, 16), {"density": 0.3}, {}),
        ((1, 2, 1, 45, 16, 16), {"density": 0.4, "causal": False}, {}),
        ((1, 4, 2, 101, 40, 32), {**strided, "local": 1, "stride": 2}, SMALL_TILE),
        ((1, 2, 1, 130, 16, 64), {**strided, "local": 1, "stride": 2}, {"block_m": 32, "block_n": 16}),
        ((1, 2, 2, 90, 32, 32), {**strided, "local": 1, "stride": 2, "q_length": 26, "dense_heads": 1}, {}),
        ((1, 3, 1, 70, 24, 32), {**lines, "columns": 37, "diagonals": 5}, {}),
        ((2, 2, 2, 64, 16, 16), {**lines, "columns": 40, "diagonals": 2}, {}),
        ((1, 2, 1, 130, 16, 64), {**lines, "columns": 37, "diagonals": 103}, {"block_m": 32, "block_n": 16}),
        ((1, 3, 1, 110, 32, 16), {**lines, "columns": 20, "diagonals": 40, "q_length": 46}, {}),
    )
    for i, (shape, pattern, config) in enumerate(problems):
        problem = block_sparse_case(shape, ("float32", "float16")[i % 2], **pattern)
        yield against_reference("triton", problem, config)


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


def token_gather_attention() -> Iterator[Case]:
    piece = {"piece": 16, "block_kv": 16}
    for problem, config in (
        (gather_case((1, 1, 1, 1, 1, 16)), {}),
        (gather_case((2, 4, 2, 65, 9, 64)), {}),
        (gather_case((1, 6, 2, 90, 37, 24), 1.0), piece),
        (gather_case((1, 5, 1, 70, 33, 40), 0.7, "float16"), {"piece": 32, "block_kv": 16}),
        (gather_case((1, 1, 1, 400, 300, 16)), piece),  # more pieces than a step of the reduction takes
        (gather_case((2, 3, 3, 40, 2, 24), 1.0), {}),  # some lists are empty
        (gather_case((1, 3, 3, 600, 560, 16)), {}),
    ):
        yield against_reference("triton", problem, config)


def token_selector() -> Iterator[Case]:
    """Choices are whole numbers: nothing may differ."""
    for operator in ("label_channel_selector", "centroid_selector"):
        for problem in get_operator(operator).test_problems:
            config = {"block_s": 32} if operator == "label_channel_selector" else {"block_s": 64, "block_c": 16}
            yield against_reference("triton", problem, config, 0.0)
    from ridgeline.kernels.token_selector.lists import lists_of_mask
    from ridgeline.kernels.token_selector.triton_centroids import compact

    for rows, length, share in ((1, 1, 1.0), (3, 130, 0.3), (2, 64, 0.0), (4, 200, 0.9)):
        mask = (torch.rand(rows, length, generator=torch.Generator().manual_seed(3)) < share).to(torch.int8)
        mask[0, 0] = 1  # a list at least, for an error to be relative to
        expected = torch.cat(lists_of_mask(mask))
        tokens = torch.full((rows * length,), -77, dtype=torch.int32)
        starts = compact(mask, tokens, block=32)
        found = torch.cat([starts, tokens[: int(starts[-1])]])
        yield f"compact {rows} of {length}", found, expected.double(), 0.0
    yield from largest()


def largest() -> Iterator[Case]:
    """The k largest of rows with equal scores, zeros of both signs, infinities and what is not a number."""
    from ridgeline.kernels.token_selector.lists import lists_of_top_k
    from ridgeline.kernels.token_selector.triton_top_k import top_k

    random = torch.Generator().manual_seed(5)
    odd = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 1e-45, -1e-45, 3e38])
    for rows, length, kept in ((1, 1, 1), (3, 10, 4), (2, 33, 33), (4, 1000, 60), (2, 2049, 5), (2, 100, 99)):
        normal_scores = torch.randn(rows, length, generator=random)
        few_values = torch.randint(-3, 4, (rows, length), generator=random).float()
        odd_scores = odd[torch.randint(len(odd), (rows, length), generator=random)]
        for name, scores in (("normal", normal_scores), ("equal", few_values), ("odd", odd_scores)):
            tokens = torch.full((rows, kept), -77, dtype=torch.int32)
            top_k(scores, tokens)
            expected = lists_of_top_k(scores, kept).double()
            # An error relative to nothing is no error: lists of token 0 alone are moved up by one, both of them.
            yield f"top {kept} of {length}, {name}", tokens + 1, expected + 1, 0.0


GROUPS = {
    "gemm": gemm,
    "attention": attention,
    "block_sparse_attention": block_sparse_attention,
    "quantised_attention": quantised_attention,
    "attention_quantiser": attention_quantiser,
    "paged_attention": paged_attention,
    "tree_attention": tree_attention,
    "token_gather_attention": token_gather_attention,
    "token_selector": token_selector,
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
