"""s2-attention: a static pattern of local and strided blocks, shifted from head to head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ridgeline.bench.paper_checks.frame import Finding, Lab, check

if TYPE_CHECKING:
    from ridgeline.analytical.operators import BlockSparseAttention

PAPER = "s2-attention"
LEAST_RATIO = 2.5


def pattern(length: int, **changes: Any) -> BlockSparseAttention:
    """The row's shape: 8 heads, blocks of 64, 8 local, stride 8; d = 128 as in the paper's benchmark."""
    from ridgeline.analytical.operators import BlockSparseAttention

    shape: dict[str, Any] = {
        "batch": 1, "q_heads": 8, "kv_heads": 8, "length": length, "head_dim": 128, "block": 64,
        "pattern": "strided", "local": 8, "stride": 8,
    }  # fmt: skip
    return BlockSparseAttention(**{**shape, **changes})


@check(
    PAPER,
    "equals-masked-dense",
    kind="correctness",
    states="""The kernel equals dense attention under the expanded mask to 1e-5 at S 2k and 8k, H 8, 8 local blocks, stride 8;
        Triton's in its interpreter on small shapes""",
)
def equals_masked_dense(lab: Lab) -> Finding:
    from ridgeline.bench.paper_checks.sparse_prefill import equal_to_masked

    shapes = (pattern(2048), pattern(8192), pattern(2048, kv_heads=2, head_dim=64, dense_heads=1))
    small = [
        pattern(200, q_heads=3, kv_heads=1, head_dim=40, local=1, stride=2),
        pattern(333, q_heads=2, kv_heads=2, local=2),
    ]
    return equal_to_masked(lab, shapes, small)


@check(
    PAPER,
    "pattern-by-definition",
    kind="mechanism",
    states="The pattern equals a brute-force reading of its definition",
)
def pattern_by_definition(lab: Lab) -> Finding:
    from ridgeline.kernels.block_sparse_attention.index import strided_pattern

    wrong = compared = 0
    for problem in (
        pattern(2048),
        pattern(8192),
        pattern(1000, local=1, stride=16),
        pattern(2048, kv_heads=2, dense_heads=1, stride=20),
    ):
        kept = strided_pattern(problem)
        group = problem.q_heads // problem.kv_heads
        step = max(1, (problem.stride or 1) // problem.q_heads)
        for h in range(problem.q_heads):
            dense = h // group >= problem.kv_heads - (problem.dense_heads or 0)
            for i in range(problem.block_rows):
                for j in range(problem.block_columns):
                    local = i - j < (problem.local or 0)
                    strided = (j + h // group * step) % (problem.stride or 1) == 0
                    wrong += bool(kept[h, i, j]) != (j <= i and (local or strided or dense))
                    compared += 1
    return Finding(passed=wrong == 0, value=float(wrong), threshold=0.0, text=f"{wrong} of {compared} blocks differ")


@check(
    PAPER,
    "union-covers-context",
    kind="mechanism",
    states="The union over heads covers every causal block where there are as many heads as the stride",
)
def union_covers_context(lab: Lab) -> Finding:
    import numpy as np

    from ridgeline.kernels.block_sparse_attention.index import strided_pattern

    def missing(problem: BlockSparseAttention) -> int:
        union = strided_pattern(problem).any(axis=0)
        return int(np.count_nonzero(np.tri(problem.block_rows, dtype=bool) & ~union))

    found = {f"S {s}, local {local}": missing(pattern(s, local=local)) for s in (512, 2048, 8192) for local in (1, 8)}
    fewer = missing(pattern(2048, q_heads=4, kv_heads=4, local=1))
    return Finding(
        passed=not any(found.values()) and fewer > 0,
        text=f"blocks that no head sees: {found}; with 4 heads at stride 8, where some must be missing: {fewer}",
    )


@check(
    PAPER,
    "kv-cache-efficiency",
    kind="mechanism",
    states="The predicate that says whether blocks can leave the cache agrees with brute force",
)
def kv_cache_efficiency(lab: Lab) -> Finding:
    import numpy as np

    from ridgeline.kernels.block_sparse_attention.index import is_kv_cache_efficient, strided_pattern

    def simulated(kept: Any) -> bool:
        """A cache that keeps, after each block of queries, what that block used, and never gets anything back."""
        for head in kept:
            cache: set[int] = set()
            for row, listed in enumerate(head):
                used = set(np.flatnonzero(listed).tolist())
                if not used - {row} <= cache:
                    return False
                cache = used | {row}
        return True

    random = np.random.default_rng(0)
    patterns = [strided_pattern(pattern(s, local=local)) for s in (2048, 4096) for local in (1, 8)]
    efficient = sum(map(is_kv_cache_efficient, patterns))
    drawn = [
        (random.random((2, 6, 6)) < p) & np.tri(6, dtype=bool) | np.eye(6, dtype=bool) for p in (0.05, 0.5, 0.95)
    ] * 20
    drawn += [np.maximum.accumulate(one[:, ::-1], axis=1)[:, ::-1] & np.tri(6, dtype=bool) for one in drawn[:9]]
    agreed = sum(is_kv_cache_efficient(one) == simulated(one) for one in (*patterns, *drawn))
    kinds = {simulated(one) for one in drawn}
    total = len(patterns) + len(drawn)
    return Finding(
        passed=agreed == total and efficient == len(patterns) and kinds == {True, False},
        value=float(agreed),
        threshold=float(total),
        text=f"{agreed} of {total} patterns agree with a simulated cache; {efficient} of {len(patterns)} strided ones are "
        "efficient",
    )


@check(
    PAPER,
    "dropped-kv-bytes",
    kind="mechanism",
    states="Bytes of the cache that each head may drop equal the closed form exactly",
)
def dropped_kv_bytes(lab: Lab) -> Finding:
    import numpy as np

    from ridgeline.analytical.operators import strided_kv_bytes
    from ridgeline.kernels.block_sparse_attention.index import strided_pattern

    wrong, kept, shapes = 0, 0.0, 0
    for length in (64, 2048, 5000, 8192):
        for changes in ({}, {"kv_heads": 2, "dense_heads": 1}, {"local": 1, "stride": 16, "batch": 2}):
            problem = pattern(length, **changes)
            # What the last block of queries sees, or one of those that may follow until the pattern has come round.
            later = strided_pattern(pattern(length + 64 * 40, **changes))[
                :, problem.block_rows - 1 :, : problem.block_columns
            ]
            needed = np.repeat(later.any(axis=1), 64, axis=1)[:: problem.q_heads // problem.kv_heads, :length]
            counted = problem.batch * int(needed.sum()) * 2 * problem.head_dim * 4
            wrong += counted != strided_kv_bytes(problem)
            shapes += 1
            if length == 8192 and not changes:
                kept = counted / (2 * problem.kv_heads * length * problem.head_dim * 4)
    return Finding(
        passed=wrong == 0,
        value=float(wrong),
        threshold=0.0,
        text=f"{wrong} of {shapes} shapes differ; at S 8192, local 8, stride 8 a cache keeps {kept:.1%}, "
        f"where 1/stride + local 64/S is {1 / 8 + 8 * 64 / 8192:.1%}",
    )


@check(
    PAPER,
    "faster-than-dense",
    kind="ratio",
    states="At S = 8k at least 2.5 times as fast as the strongest dense causal attention",
)
def faster_than_dense(lab: Lab) -> Finding:
    import time

    from ridgeline.bench.paper_checks.sparse_prefill import RATIO_BUDGET_S, gflop_per_s, strongest_dense
    from ridgeline.kernels.block_sparse_attention.index import build_index, structure_of

    problem = pattern(8192)
    began = time.perf_counter()
    index = build_index(problem)
    build_s = time.perf_counter() - began
    pairs = structure_of(problem, index).figure("kept_pairs")
    dense = strongest_dense(lab, problem)
    ratio = lab.ratio(dense, lab.implementation("block_sparse_attention", problem, "native"), budget_s=RATIO_BUDGET_S)
    ideal = problem.dense_pairs / pairs
    dense_rate, sparse_rate = gflop_per_s(problem, ratio, pairs)
    return Finding(
        passed=ratio.value >= LEAST_RATIO,
        value=ratio.value,
        threshold=LEAST_RATIO,
        unit="x",
        text=f"native {ratio} over {dense.label} (S 8192, H 8, d 128, cold); pairs allow {ideal:.2f}x; {dense_rate:.0f} against "
        f"{sparse_rate:.0f} GFLOP/s on unmasked pairs; the static index takes {build_s * 1e3:.1f} ms once",
        reason=""
        if ratio.value >= LEAST_RATIO
        else f"compute-bound on both sides: pairs allow {ideal:.2f}x, the sparse loop reaches {sparse_rate / dense_rate:.2f} "
        "of the dense one's rate",
    )


GPU_RATIO = 8.0
"""The paper's 25.3 is at best, over patterns and lengths that its abstract does not state: here one of each."""


@check(
    PAPER,
    "gpu-faster-than-dense",
    kind="ratio",
    on="cuda",
    states="""On a GPU at S = 64k, 8 local blocks of 64 and every 16th other, it is at least 8 times as fast as FlashAttention-2""",
)
def gpu_faster_than_dense(lab: Lab) -> Finding:
    from ridgeline.bench.paper_checks.sparse_prefill import gpu_ratio

    problem = pattern(65536, q_heads=4, kv_heads=4, stride=16, precision="bfloat16")
    ratio, ideal, text = gpu_ratio(lab, problem)
    return Finding(
        passed=ratio.value >= GPU_RATIO,
        value=ratio.value,
        threshold=GPU_RATIO,
        unit="x",
        text=text,
        reason=""
        if ratio.value >= GPU_RATIO
        else f"compute-bound on both sides: pairs allow {ideal:.1f}x, and tiles of 64 reach less of the peak than dense ones",
    )
