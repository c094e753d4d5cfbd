"""fastattention: tiles of two levels and the master mask. Its overlapped all-reduce and its cooperation with the CPU are
not built."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ridgeline.bench.paper_checks.frame import Finding, Lab, check
from ridgeline.kernels.registry import Unsupported

if TYPE_CHECKING:
    from ridgeline.analytical.operators import Attention

ROWS = 192
INNER = (64, 128)
OUTER = (64, 128, 256, 512, 1024)
ROUNDS = 9
NEAR_BEST = 1.05
"""Time of the best tile that fits by the cache model, over that of the best of all."""
FASTER = 2.0


def _problem(length: int, heads: int) -> Attention:
    from ridgeline.analytical.operators import Attention

    return Attention(
        batch=1, q_heads=heads, kv_heads=heads, q_length=length, kv_length=length, head_dim=128, causal=True
    )


def _tilings() -> list[dict[str, Any]]:
    return [{"rows": ROWS, "outer": outer, "inner": inner} for outer in OUTER for inner in INNER if outer % inner == 0]


def _text(config: Mapping[str, Any]) -> str:
    return f"{config['outer']}/{config['inner']}"


@check(
    "fastattention",
    "mask-slices-equal-tril",
    kind="correctness",
    states="Slices of the master mask equal the lower triangle for every block, at its bytes of 4 M^2 instead of S^2",
)
def mask_slices_equal_tril(lab: Lab) -> Finding:
    import torch

    from ridgeline.kernels.native.attention import mask_slice, master_mask

    m, length = 64, 1024
    master, whole = master_mask(m), torch.ones(length, length, dtype=torch.bool).tril()
    wrong = blocks = 0
    for row in range(0, length, m):
        for key in range(0, length, 16):  # blocks begin anywhere in relation to the diagonal
            block = whole[row : row + m, key : key + m]
            touches = abs(row - key) < m
            found = mask_slice(master, row, key, m, block.shape[1]) if touches else torch.full_like(block, row > key)
            wrong += not torch.equal(found, block)
            blocks += 1
    sliced = max(
        lab.worst_error("attention", problem, "native", {"mask": "master"})
        for problem in (_problem(257, 2), _problem(1024, 2))
    )
    held, whole_bytes = master.numel() * master.element_size(), length**2 * master.element_size()
    return Finding(
        passed=wrong == 0 and sliced <= 1e-5 and held == 4 * m**2 * master.element_size(),
        value=float(wrong),
        threshold=0.0,
        text=f"{blocks} blocks of S = {length}, M = {m}; mask of {held} bytes instead of {whole_bytes}; the native "
        f"kernel on slices: relative error {sliced:.1e}",
    )


@check(
    "fastattention",
    "tile-sweep",
    kind="mechanism",
    states="""Tiles of both levels are swept beside a cache model, which says which outer tile fits: one that does is
        within 5 % of the best""",
)
def tile_sweep(lab: Lab) -> Finding:
    from ridgeline.bench.devices.cpu import detect
    from ridgeline.kernels.native.attention_tiles import Tiles, resident_bytes
    from ridgeline.kernels.registry import Context, get_implementation, get_operator

    problem = _problem(1024, 2)
    operator, native = get_operator("attention"), get_implementation("attention", "native")
    lab.sources.add(native.path)
    caches = {level.name: level.capacity_bytes for level in detect().device.memory}
    if "L2" not in caches:
        raise Unsupported("the size of the second-level cache is not known here")
    inputs, out = operator.make_inputs(problem, lab.generator), operator.make_output(problem)
    runs, fits = {}, {}
    for config in _tilings():
        name = _text(config)
        runs[name] = native.prepare(problem, {}, Context("cpu", lab.threads, config))
        fits[name] = resident_bytes(Tiles(**config), problem.head_dim) <= caches["L2"]
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + ROUNDS):  # by turns; the first round warms up
        for name, run in runs.items():
            start = time.perf_counter()
            run(inputs, out)
            times[name].append(time.perf_counter() - start)
    median = {name: statistics.median(seen[1:]) for name, seen in times.items()}
    fitting = [name for name in median if fits[name]]
    if not fitting:
        raise Unsupported(f"no tile of the sweep fits a second-level cache of {caches['L2']:.0f} bytes")
    ratio = min(median[name] for name in fitting) / min(median.values())
    sweep = ", ".join(f"{name}{'' if fits[name] else '*'} {1e3 * value:.1f}" for name, value in median.items())
    return Finding(
        passed=ratio <= NEAR_BEST,
        value=ratio,
        threshold=NEAR_BEST,
        unit="x",
        text=f"outer/inner in ms (* beyond L2 of {caches['L2'] / 1024:.0f} KiB): {sweep}",
    )


@check(
    "fastattention",
    "two-level-no-slower",
    kind="ratio",
    states="The best two-level tiling is at least as fast as the best single-level one",
)
def two_level_no_slower(lab: Lab) -> Finding:
    problem = _problem(1024, 2)
    sides = {
        levels: [
            lab.implementation("attention", problem, "native", config)
            for config in _tilings()
            if (config["outer"] > config["inner"]) == (levels == 2)
        ]
        for levels in (1, 2)
    }
    names = {id(side): _text(side.config) for several in sides.values() for side in several}
    single, double = (lab.strongest(sides[levels]) for levels in (1, 2))
    ratio = lab.ratio(single, double, budget_s=15.0)
    return Finding(
        passed=ratio.value >= 1.0,
        value=ratio.value,
        threshold=1.0,
        unit="x",
        text=f"{ratio}: {names[id(single)]} against {names[id(double)]} (outer/inner), T = S = 1024, d 128",
        reason=""
        if ratio.value >= 1.0
        else "the packed block of one level fits the second-level cache already, which "
        "feeds the products at their full rate",
    )


@check(
    "fastattention",
    "faster-than-materialised",
    kind="ratio",
    states="At S = 4096 at least twice as fast as attention that materialises its scores",
)
def faster_than_materialised(lab: Lab) -> Finding:
    problem = _problem(4096, 2)
    eager, native = (lab.implementation("attention", problem, name) for name in ("torch_eager", "native"))
    ratio = lab.ratio(eager, native, budget_s=20.0)
    return Finding(
        passed=ratio.value >= FASTER,
        value=ratio.value,
        threshold=FASTER,
        unit="x",
        text=f"{ratio}: torch_eager against native, B1 H2 T = S = 4096, d 128, causal",
        reason="" if ratio.value >= FASTER else "products dominate: the scores' way through memory is a small share",
    )


SHAPES = {(length, head_dim, causal) for length in (1024, 4096) for head_dim in (64, 128) for causal in (False, True)}
AGAINST_SDPA = 1.3
"""Geometric mean over the shapes; no shape below 1."""
LEAST_PEAK_SHARE = {64: 0.60, 128: 0.70}
"""By head dimension, at S = 4096, full."""


def _launch_s(length: int, head_dim: int, causal: bool) -> float:
    """About what a launch takes on two slow threads: for the budget only."""
    return (length / 4096) ** 2 * head_dim / 128 * (0.35 if causal else 0.6)


@check(
    "fastattention",
    "prefill-against-sdpa",
    kind="ratio",
    states="""Native float32 prefill, B1 H8, T = S in 1024, 4096, d 64 and 128, full and causal: at least as fast as
        torch's SDPA on every shape, and 1.3 times as fast in the geometric mean""",
)
def prefill_against_sdpa(lab: Lab) -> Finding:
    from ridgeline.bench.paper_checks.dense_attention import against, prefill

    ratios = {
        shape: against(lab, prefill(*shape[:2], causal=shape[2]), "torch_sdpa", "native", _launch_s(*shape))
        for shape in sorted(SHAPES)
    }
    mean = statistics.geometric_mean([ratio.value for ratio in ratios.values()])
    least = min(ratios, key=lambda shape: ratios[shape].value)
    passed = mean >= AGAINST_SDPA and ratios[least].value >= 1.0
    return Finding(
        passed=passed,
        value=mean,
        threshold=AGAINST_SDPA,
        unit="x",
        text="; ".join(f"S={s} d{d}{' causal' if c else ''}: {ratio}" for (s, d, c), ratio in ratios.items()),
        reason=""
        if passed
        else "both are bound by the products: the rate of the same fused multiply-adds is what there is to gain",
    )


@check(
    "fastattention",
    "prefill-share-of-peak",
    kind="ratio",
    states="""Native float32 prefill at S = 4096, full, reaches 70 % of the float32 peak measured beside it at d 128, and
        60 % at d 64""",
)
def prefill_share_of_peak(lab: Lab) -> Finding:
    from ridgeline.bench.paper_checks.dense_attention import prefill, share_of_peak

    shares = {
        head_dim: share_of_peak(lab, prefill(4096, head_dim, causal=False), "native", _launch_s(4096, head_dim, False))
        for head_dim in LEAST_PEAK_SHARE
    }
    nearest = min(shares, key=lambda head_dim: shares[head_dim].value / LEAST_PEAK_SHARE[head_dim])
    passed = shares[nearest].value >= LEAST_PEAK_SHARE[nearest]
    return Finding(
        passed=passed,
        value=shares[nearest].value,
        threshold=LEAST_PEAK_SHARE[nearest],
        text="; ".join(f"d {head_dim}: {share}" for head_dim, share in shares.items()) + " of the peak; B1 H8, float32",
        reason=""
        if passed
        else "exponentials take the units of the multiply-adds for about 10 d^-1 of the products' time each, and every "
        "tile of scores is written and read in the first-level cache",
    )
