"""SageAttention2 (Zhang et al. 2024): exact integer scores, accuracy of each granularity and of smoothing, and speed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ridgeline.bench.paper_checks.frame import Finding, Lab, check

if TYPE_CHECKING:
    import torch

    from ridgeline.analytical.operators import QuantisedAttention
    from ridgeline.kernels.quantised_attention.quantise import Floats

PAPER = "sageattention2"
LENGTH, HEAD_DIM, HEADS = 4096, 64, 8
"""Shape of the ratios."""
GPU_HEADS, GPU_LENGTH = 16, 8192
SCORE_BLOCK = 128
"""Queries whose scores share a buffer that is used again: attention never writes the scores of all queries to memory."""


@check(PAPER, "integer-scores-exact", kind="correctness", states="INT8 scores equal the int32 product bit for bit")
def integer_scores_exact(lab: Lab) -> Finding:
    import torch

    from ridgeline.kernels.native.quantised_attention import int8_products, paths

    shapes = ((1, 1, 1), (7, 33, 5), (97, 131, 64), (6, 16, 3), (200, 300, 127), (64, 64, 1024))
    differing, products = 0, 0
    for path in paths():
        for m, n, depth in shapes:
            a, b = (
                torch.randint(-128, 128, (rows, depth), generator=lab.generator, dtype=torch.int8) for rows in (m, n)
            )
            a[0], b[0] = -128, -128  # the largest sums
            out = torch.full((m, n), 0x5A5A5A5A, dtype=torch.int32)
            int8_products(a, b, out, lab.threads, path=path)
            differing += int((out.long() != a.long() @ b.long().T).sum())
            products += m * n
    return Finding(
        passed=differing == 0,
        value=float(differing),
        threshold=0.0,
        text=f"{differing} of {products} sums differ from int64's, paths {', '.join(paths())}, values -128 to 127",
    )


@check(
    PAPER,
    "equals-dequantised",
    kind="correctness",
    states="Outputs equal the reference on the dequantised operands to 1e-4",
)
def equals_dequantised(lab: Lab) -> Finding:
    from ridgeline.kernels.registry import get_operator

    worst, at, count = 0.0, "", 0
    problems: Sequence[Any] = get_operator("quantised_attention").test_problems
    for problem in problems:
        if problem.precision != "float32" or problem.scores == "float8_e4m3fn":  # the native kernel takes neither
            continue
        error = lab.worst_error("quantised_attention", problem, "native")
        count += 1
        if error >= worst:
            worst, at = error, problem.label
    return Finding(
        passed=worst <= 1e-4,
        value=worst,
        threshold=1e-4,
        text=f"worst relative error of {count} problems {worst:.2g}: native, {at}",
    )


def _problem(scores: str, granularity: str, smooth: str, values: str = "float16") -> QuantisedAttention:
    from ridgeline.analytical.operators import QuantisedAttention

    return QuantisedAttention(
        batch=1, q_heads=4, kv_heads=4, q_length=1024, kv_length=1024, head_dim=HEAD_DIM, scores=scores,
        granularity=granularity, smooth_q="q" in smooth, smooth_k="k" in smooth, smooth_v=False, values=values,
    )  # fmt: skip


@functools.cache
def _originals(draw: int) -> tuple[Floats, torch.Tensor]:
    """Q, K and V of a quality check, the same for every variant, and their attention in float64.

    K has channel biases of 8 standard deviations. V has no mean: it would be most of O, and hide what is lost.
    """
    import torch

    from ridgeline.kernels.quantised_attention.operator import exact_attention, make_floats

    floats = make_floats(_problem("int8", "thread", ""), torch.Generator().manual_seed(1000 + draw), value_mean=0.0)
    return floats, exact_attention(floats, False)


def _cosine(lab: Lab, problem: QuantisedAttention, draws: int = 2) -> float:
    """Least cosine of O, computed from quantised operands, with float64 attention of the original ones."""
    import torch

    from ridgeline.kernels.quantised_attention.quantise import quantise

    run = _prepared(lab, "quantised_attention", problem, "torch_eager")
    cosines = []
    for floats, exact in map(_originals, range(draws)):
        out = torch.empty_like(floats.q)
        run(quantise(problem, floats), out)
        cosines.append(float(torch.nn.functional.cosine_similarity(out.double().flatten(), exact.flatten(), 0)))
    return min(cosines)


def _prepared(lab: Lab, operator: str, problem: Any, name: str) -> Callable[..., None]:
    from ridgeline.kernels.registry import Context

    side = lab.implementation(operator, problem, name)  # so that its file is among the check's sources
    return side.implementation.prepare(problem, {}, Context(lab.torch_device, lab.threads))


@check(
    PAPER,
    "quality-int8",
    kind="quality",
    states="On keys with a channel offset of 8 sigma, INT8 per thread with smoothed K has a cosine of at least 0.999 with float32",
)
def quality_int8(lab: Lab) -> Finding:
    half, eight = (_cosine(lab, _problem("int8", "thread", "k", values)) for values in ("float16", "float8_e4m3fn"))
    without = _cosine(lab, _problem("int8", "thread", ""))
    return Finding(
        passed=half >= 0.999,
        value=half,
        threshold=0.999,
        text=f"cosine {half:.5f} with P V in float16, {eight:.5f} in FP8; {without:.5f} without smoothing, float16",
    )


@check(
    PAPER,
    "quality-int4",
    kind="quality",
    states="INT4 with smoothed Q and K has a cosine of at least 0.98 on the same keys",
)
def quality_int4(lab: Lab) -> Finding:
    half, eight = (_cosine(lab, _problem("int4", "thread", "kq", values)) for values in ("float16", "float8_e4m3fn"))
    return Finding(
        passed=half >= 0.98,
        value=half,
        threshold=0.98,
        text=f"cosine {half:.4f} with P V in float16, {eight:.4f} in FP8",
    )


@check(
    PAPER,
    "smoothing-matters",
    kind="quality",
    states="INT4 without smoothing is worse by at least 0.02 in the cosine",
)
def smoothing_matters(lab: Lab) -> Finding:
    smoothed, plain = (_cosine(lab, _problem("int4", "thread", smooth)) for smooth in ("kq", ""))
    return Finding(
        passed=smoothed - plain >= 0.02,
        value=smoothed - plain,
        threshold=0.02,
        text=f"cosine {smoothed:.4f} with Q and K smoothed, {plain:.4f} without",
    )


@check(
    PAPER,
    "per-thread-beats-per-block",
    kind="quality",
    states="Per-thread scales are at least as accurate as per-block scales",
)
def per_thread_beats_per_block(lab: Lab) -> Finding:
    found = {
        (scores, granularity): _cosine(lab, _problem(scores, granularity, "kq"))
        for scores in ("int8", "int4")
        for granularity in ("thread", "warp", "block", "token")
    }
    least = min(found[scores, "thread"] - found[scores, "block"] for scores in ("int8", "int4"))
    lost = {key: f"{1.0 - cosine:.2g}" for key, cosine in found.items()}
    return Finding(
        passed=least >= 0.0,
        value=least,
        threshold=0.0,
        text="1 - cosine per thread, warp, block, token: "
        + "; ".join(
            f"{scores} {', '.join(v for k, v in lost.items() if k[0] == scores)}" for scores in ("int8", "int4")
        ),
    )


@check(
    PAPER,
    "int8-scores-faster",
    kind="ratio",
    states="INT8 QK takes at most half the time of float32 QK at S = 4096, d = 64",
)
def int8_scores_faster(lab: Lab) -> Finding:
    """One head: K packed, and 4096 queries by blocks of 128 into scores that the next block overwrites."""
    import torch

    from ridgeline.kernels.native.quantised_attention import bind_pack, bind_products, paths

    scores = torch.empty(SCORE_BLOCK, LENGTH)
    counts = torch.empty(SCORE_BLOCK, LENGTH, dtype=torch.int32)

    def floats() -> Callable[[], None]:
        q, k = (torch.randn(LENGTH, HEAD_DIM, generator=lab.generator) for _ in range(2))
        blocks, keys = q.split(SCORE_BLOCK), k.T

        def run() -> None:
            for block in blocks:
                torch.matmul(block, keys, out=scores)

        return run

    def integers() -> Callable[[], None]:
        q, k = (
            torch.randint(-127, 128, (LENGTH, HEAD_DIM), generator=lab.generator, dtype=torch.int8) for _ in range(2)
        )
        pack, keys = bind_pack(k, lab.threads)
        blocks = [bind_products(block, keys, counts, lab.threads) for block in q.split(SCORE_BLOCK)]

        def run() -> None:
            pack()
            for block in blocks:
                block()

        return run

    float_side = lab.function([floats() for _ in range(4)], "torch.matmul")
    ratio = lab.ratio(float_side, lab.function([integers() for _ in range(4)], paths()[0]))
    flop = 2.0 * LENGTH * LENGTH * HEAD_DIM
    float_rate, integer_rate = flop / ratio.slow_s, flop / ratio.fast_s
    seen = f"{ratio}: int8 {integer_rate / 1e9:.0f} Gop/s ({paths()[0]}), float32 {float_rate / 1e9:.0f} Gop/s (torch)"
    return Finding(
        passed=ratio.value >= 2.0,
        value=ratio.value,
        threshold=2.0,
        unit="x",
        text=seen,
        reason="" if ratio.value >= 2.0 else _reason(lab, paths()[0], float_rate, integer_rate),
    )


def _reason(lab: Lab, path: str, float_rate: float, integer_rate: float) -> str:
    """What the multiply-add units let INT8 gain here, from peaks measured now."""
    peak = _peak(lab, "float32")
    said = f"float32 QK runs at {float_rate / peak:.0%} of the FMA peak measured now ({peak / 1e9:.0f} Gop/s)"
    if "vnni" in path:
        most = _peak(lab, "int8")
        return (
            f"{said}; int8 at {integer_rate / most:.0%} of vpdpbusd's {most / 1e9:.0f} Gop/s, {most / peak:.1f}x FMA's"
        )
    if path == "portable":
        return f"{said}; the portable path multiplies 16-bit halves one by one, without an instruction for pairs"
    return (
        f"{said}; no VNNI here: vpmaddwd makes twice the products of an FMA instruction and needs an addition to sum them "
        f"up, so 2x FMA's peak is its ceiling, and int8 QK runs at {integer_rate / (2.0 * peak):.0%} of that"
    )


def _peak(lab: Lab, precision: str) -> float:
    """Multiply-adds in registers, operations per second: best of a few short runs."""
    import time

    import numpy as np

    from ridgeline.kernels.native.fma import TYPES, bind_fma, fma_inputs, fma_operations, fma_shape

    shape = fma_shape(precision)
    out = np.empty((lab.threads, shape.chains, shape.lanes), TYPES[precision].out)
    iterations = 1_000_000
    call = bind_fma(precision, *fma_inputs(precision), out, iterations, lab.threads)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return fma_operations(precision, iterations, lab.threads) / best


@check(
    PAPER,
    "end-to-end-faster",
    kind="ratio",
    states="Quantised attention is faster than SDPA in float32 at a cosine of at least 0.999",
)
def end_to_end_faster(lab: Lab) -> Finding:
    """Smoothing and quantising Q and K included. V in float32: a CPU's vectors know no faster product for fewer bits."""
    import torch

    from ridgeline.analytical.operators import Attention, QuantisedAttention
    from ridgeline.kernels.quantised_attention.operator import exact_attention, make_floats

    heads = {"batch": 1, "q_heads": HEADS, "kv_heads": HEADS}
    shape: dict[str, Any] = {**heads, "q_length": LENGTH, "kv_length": LENGTH, "head_dim": HEAD_DIM}
    problem = QuantisedAttention(**shape, values="float32")
    dense = Attention(**shape)
    native = _prepared(lab, "quantised_attention", problem, "native")
    sdpa = _prepared(lab, "attention", dense, "torch_sdpa")
    slow: list[Callable[[], object]] = []
    fast: list[Callable[[], object]] = []
    kept: list[tuple[Floats, torch.Tensor]] = []
    for _ in range(3):  # 32 MB a set, thrice: past any cache that is not larger
        floats = make_floats(problem, lab.generator, value_mean=0.0)
        out, other = torch.empty_like(floats.q), torch.empty_like(floats.q)
        kept.append((floats, out))
        slow.append(functools.partial(sdpa, vars(floats), other))
        fast.append(_quantise_and_attend(lab, problem, native, floats, out))
    ratio = lab.ratio(lab.function(slow, "torch_sdpa"), lab.function(fast, "native"), budget_s=12.0)
    floats, out = kept[0]
    fast[0]()
    rows = torch.randint(0, HEADS * LENGTH, (256,), generator=lab.generator)
    exact = exact_attention(floats, False, rows=rows)
    found = out.reshape(-1, HEAD_DIM)[rows].double()
    cosine = float(torch.nn.functional.cosine_similarity(found.flatten(), exact.flatten(), 0))
    executor = lab.implementation("quantised_attention", problem, "native")
    beside = {
        name: lab.ratio(lab.implementation("attention", dense, name), executor, budget_s=6.0)
        for name in ("torch_sdpa", "native")
    }
    passed = ratio.value > 1.0 and cosine >= 0.999
    text = (
        f"{ratio} over SDPA with quantising, {beside['torch_sdpa']} without; without, {beside['native']} over the native "
        f"attention in float32; cosine {cosine:.5f}; {HEADS} heads, S {LENGTH}, d {HEAD_DIM}"
    )
    reason = "" if passed else _reason_end_to_end(lab, problem, ratio.fast_s, cosine)
    return Finding(passed=passed, value=ratio.value, threshold=1.0, unit="x", text=text, reason=reason)


def _quantise_and_attend(
    lab: Lab, problem: QuantisedAttention, attend: Callable[..., None], floats: Floats, out: torch.Tensor
) -> Callable[[], None]:
    """K smoothed, Q and K quantised, and attention on them, into ``out``."""
    import torch

    from ridgeline.analytical.operators import AttentionQuantiser
    from ridgeline.kernels.native.attention_quantiser import bind_quantiser
    from ridgeline.kernels.quantised_attention.quantise import LARGEST, SCALE_FLOOR

    inputs = {"v": floats.v}
    passes = []
    for name, role, x, smooth in (("q", "query", floats.q, False), ("k", "key", floats.k, True)):
        batch, heads, length, head_dim = x.shape
        part = AttentionQuantiser(
            batch=batch, heads=heads, length=length, head_dim=head_dim, role=role, smooth=smooth,
            to=problem.scores, granularity=problem.granularity,
        )  # fmt: skip
        quantiser = bind_quantiser(part, LARGEST[problem.scores], SCALE_FLOOR, lab.threads)
        inputs[name], inputs[f"{name}_scale"] = torch.empty_like(x, dtype=torch.int8), quantiser.scales
        passes.append((quantiser.run, x, inputs[name]))

    def run() -> None:
        for quantise, x, integers in passes:
            quantise(x, integers)
        attend(inputs, out)

    return run


def _reason_end_to_end(lab: Lab, problem: QuantisedAttention, seconds: float, cosine: float) -> str:
    if cosine < 0.999:
        return f"the cosine is {cosine:.5f}, below 0.999"
    peak = _peak(lab, "float32")
    products = float(problem.work().flop) / 2.0  # P V, in float32
    return (
        f"P V in float32 alone takes {products / peak:.3f} s at the FMA peak measured now ({peak / 1e9:.0f} Gop/s), of "
        f"{seconds:.3f} s"
    )


@check(
    PAPER,
    "gpu-faster-than-flash-attention-2",
    kind="ratio",
    on="cuda",
    states="""On a GPU attention with INT8 scores and FP8 values is faster than FlashAttention-2 in float16, its operands
        quantised beforehand: geometric mean of d 64 and 128, full and causal, at S 8192""",
)
def gpu_faster_than_flash_attention_2(lab: Lab) -> Finding:

    from ridgeline.analytical.operators import Attention, QuantisedAttention
    from ridgeline.bench.paper_checks.on_gpu import (
        BUDGET_S,
        checked_side,
        flash_attention_2,
        geometric_mean,
        normal,
        tera_per_s,
    )
    from ridgeline.kernels.quantised_attention.quantise import Floats, quantise

    heads, length = GPU_HEADS, GPU_LENGTH
    ratios, texts = {}, []
    for values in ("float8_e4m3fn", "float16"):
        for head_dim in (64, 128):
            for causal in (False, True):
                shape: dict[str, Any] = {
                    "batch": 1, "q_heads": heads, "kv_heads": heads, "q_length": length, "kv_length": length,
                    "head_dim": head_dim, "causal": causal, "precision": "float16",
                }  # fmt: skip
                problem = QuantisedAttention(values=values, **shape)

                def inputs(problem: QuantisedAttention = problem) -> dict[str, torch.Tensor]:
                    size = (1, heads, length, problem.head_dim)
                    return quantise(problem, Floats(*(normal(lab, *size, precision="float32") for _ in range(3))))

                ours = checked_side(lab, problem, "triton", inputs)
                flash = flash_attention_2(lab, Attention(**shape))
                ratio = ratios[values, head_dim, causal] = lab.ratio(flash, ours, budget_s=BUDGET_S)
                flop = 4.0 * heads * length**2 * head_dim * (0.5 if causal else 1.0)
                texts.append(
                    f"V {values} d {head_dim} {'causal' if causal else 'full'} {ratio} ({tera_per_s(flop, ratio.fast_s)})"
                )
    means = {v: geometric_mean([r for key, r in ratios.items() if key[0] == v]) for v in ("float8_e4m3fn", "float16")}
    value = means["float8_e4m3fn"]
    return Finding(
        passed=value > 1.0,
        value=value,
        threshold=1.0,
        unit="x",
        text=f"INT8 scores, B1 H{heads} S{length}: " + "; ".join(texts) + f"; V in float16 {means['float16']:.3g}x",
        reason=""
        if value > 1.0
        else "of the tile loop only the products are of eight bits: exponentials, scales and conversions stay float32",
    )
