"""squeezed-attention: clusters of a fixed context's keys choose by a global threshold; lists are ragged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ridgeline.bench.paper_checks.frame import Finding, Lab, check

if TYPE_CHECKING:
    import torch

    from ridgeline.bench.paper_checks.token_decode import Step
    from ridgeline.kernels.token_selector.centroids import Clusters

HEADS, HEAD_DIM, LENGTH = 8, 128, 16384
CENTROIDS = LENGTH // 20
COARSE = LENGTH // 100
TRUE_CLUSTERS, NOISE, SHARPNESS = 400, 0.3, 2.0
"""Keys are one of so many centres of a head plus noise; a query's logits over centres have this standard deviation."""
CALIBRATION, QUERIES = 100, 32
"""The last 100 tokens of the context are the observation window, as in the paper; queries of the test."""
ITERATIONS = 5


@dataclass(frozen=True)
class Context:
    """A fixed context: keys, values, their clusters, and queries of one distribution."""

    k: torch.Tensor
    v: torch.Tensor
    clusters: Clusters
    calibration: torch.Tensor
    """[1, H, T, d]."""
    queries: torch.Tensor
    """[1, H, T, d]: other ones."""
    built_s: float

    def step(self, query: int) -> Step:
        from ridgeline.bench.paper_checks.token_decode import Step

        return Step(self.queries[:, :, query].contiguous(), self.k, self.v)


def _context(lab: Lab, heads: int = HEADS) -> Context:
    """Heads differ in how sharp their queries are, so that a global threshold leaves them lists of other lengths."""
    import time

    import torch

    from ridgeline.kernels.token_selector.centroids import cluster_keys

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=lab.generator)

    centres = normal(heads, TRUE_CLUSTERS, HEAD_DIM)
    which = torch.randint(TRUE_CLUSTERS, (heads, LENGTH), generator=lab.generator)
    k = centres.gather(1, which[..., None].expand(-1, -1, HEAD_DIM)) + NOISE * normal(heads, LENGTH, HEAD_DIM)
    sharpness = SHARPNESS * torch.linspace(0.75, 1.25, heads)[None, :, None, None]
    began = time.monotonic()
    clusters = cluster_keys(k[None], CENTROIDS, lab.generator, ITERATIONS)
    built_s = time.monotonic() - began
    return Context(
        k[None].contiguous(),
        normal(1, heads, LENGTH, HEAD_DIM),
        clusters,
        sharpness * normal(1, heads, CALIBRATION, HEAD_DIM),
        sharpness * normal(1, heads, QUERIES, HEAD_DIM),
        built_s,
    )


def _threshold(context: Context, kept: float) -> float:
    from ridgeline.kernels.token_selector.centroids import calibrated_threshold, cluster_logits, log_scores

    scores = log_scores(cluster_logits(context.calibration, context.clusters.centroids), context.clusters.sizes)
    return calibrated_threshold(scores, context.clusters.sizes, kept)


def _mask(lab: Lab, context: Context, q: torch.Tensor, threshold: float) -> torch.Tensor:
    """int8 [1, H, S] of ``q`` [1, H, d], by the native selector."""
    import torch

    from ridgeline.kernels.native.token_select import token_mask, token_products

    clusters = context.clusters
    logits = torch.empty(1, q.shape[1], clusters.centroids.shape[2])
    token_products(q, clusters.centroids, logits, lab.threads)
    mask = torch.empty(1, q.shape[1], LENGTH, dtype=torch.int8)
    token_mask(logits, clusters.sizes, clusters.assignment, threshold, HEAD_DIM, mask, lab.threads)
    return mask


def _lists(lab: Lab, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    from ridgeline.kernels.native.token_select import token_compact

    starts = torch.empty(mask.shape[1] + 1, dtype=torch.int32)
    tokens = token_compact(mask, starts, torch.empty(mask.numel(), dtype=torch.int32), lab.threads)
    return starts, tokens


@check(
    "squeezed-attention",
    "equals-masked-dense",
    kind="correctness",
    states="Every executor equals attention over ragged lists to 1e-5, at S 16k and 20 % kept, H 8, d 128",
)
def equals_masked_dense(lab: Lab) -> Finding:
    from ridgeline.bench.paper_checks.token_decode import TOLERANCE, worst_gather_error

    worst, text = worst_gather_error(lab, [(LENGTH, LENGTH // 5, 0.5)])
    return Finding(passed=worst <= TOLERANCE, value=worst, threshold=TOLERANCE, text=f"relative error: {text}")


@check(
    "squeezed-attention",
    "zero-threshold-is-dense",
    kind="correctness",
    states="With a threshold of zero the output equals dense attention, through look-up, compaction and executor",
)
def zero_threshold_is_dense(lab: Lab) -> Finding:
    from ridgeline.bench.paper_checks.token_decode import TOLERANCE, attend, dense, relative

    context = _context(lab, heads=2)
    step = context.step(0)
    starts, tokens = _lists(lab, _mask(lab, context, step.q, 0.0))
    error = relative(attend(step, starts, tokens, lab.threads), dense(step))
    everything = len(tokens) == 2 * LENGTH
    return Finding(
        passed=everything and error <= TOLERANCE,
        value=error,
        threshold=TOLERANCE,
        text=f"{len(tokens)} of {2 * LENGTH} tokens kept, relative error {error:.1e}",
    )


@check(
    "squeezed-attention",
    "threshold-keeps-target",
    kind="mechanism",
    states="""The threshold, calibrated on other queries, keeps the asked share of keys within 3 points at S = 16k on
        clustered keys, for shares of 50, 30, 20 and 10 %""",
)
def threshold_keeps_target(lab: Lab) -> Finding:
    context = _context(lab)
    off = {}
    for kept in (0.5, 0.3, 0.2, 0.1):
        threshold = _threshold(context, kept)
        shares = [float(_mask(lab, context, context.step(i).q, threshold).float().mean()) for i in range(QUERIES)]
        off[kept] = sum(shares) / QUERIES - kept
    worst = max(abs(value) for value in off.values())
    return Finding(
        passed=worst <= 0.03,
        value=worst,
        threshold=0.03,
        text=f"mean over {QUERIES} queries of {HEADS} heads: "
        + ", ".join(f"{kept + value:.3f} for {kept:g}" for kept, value in off.items())
        + f"; {CENTROIDS} centroids a head built in {context.built_s:.1f} s",
    )


@check(
    "squeezed-attention",
    "error-near-oracle",
    kind="quality",
    states="""At 20 % kept the error of attention is at most 1.5 times that of the exact top-k of the same size in each
        head, on clustered keys; on isotropic keys, the negative control, it is more""",
)
def error_near_oracle(lab: Lab) -> Finding:
    clustered, kept = _oracle_ratio(lab, _context(lab))
    isotropic, _ = _oracle_ratio(lab, _isotropic(lab))
    return Finding(
        passed=clustered <= 1.5 < isotropic,
        value=clustered,
        threshold=1.5,
        unit="x",
        text=f"{TRUE_CLUSTERS} centres with noise {NOISE:g}: {clustered:.2f}x the oracle's error at {kept:.3f} kept; "
        f"isotropic keys, which have no clusters: {isotropic:.2f}x",
    )


def _isotropic(lab: Lab) -> Context:
    """The negative control: keys without clusters, with the same spread of logits."""
    import torch

    from ridgeline.kernels.token_selector.centroids import cluster_keys

    heads = 2
    shape = (1, heads, LENGTH, HEAD_DIM)
    k = torch.randn(shape, generator=lab.generator)
    queries = [SHARPNESS * torch.randn(1, heads, n, HEAD_DIM, generator=lab.generator) for n in (CALIBRATION, QUERIES)]
    clusters = cluster_keys(k, CENTROIDS, lab.generator, ITERATIONS)
    return Context(k, torch.randn(shape, generator=lab.generator), clusters, queries[0], queries[1], 0.0)


def _oracle_ratio(lab: Lab, context: Context) -> tuple[float, float]:
    """Error over the oracle's (root mean squares over queries), and the share of keys kept."""
    import torch

    from ridgeline.bench.paper_checks.token_decode import attend, dense, exact_scores

    threshold = _threshold(context, 0.2)
    heads = context.k.shape[1]
    ours, oracles, kept = 0.0, 0.0, 0
    for query in range(8):
        step = context.step(query)
        expected = dense(step)
        starts, tokens = _lists(lab, _mask(lab, context, step.q, threshold))
        kept += len(tokens)
        # The oracle keeps as many in each head as was kept there, and at least one, for an output.
        lengths = starts.diff().tolist()
        scores = exact_scores(step.q, step.k)[0]
        best = [scores[h].topk(n).indices.sort().values.to(torch.int32) for h, n in enumerate(lengths)]
        mine = attend(step, starts, tokens, lab.threads).double()
        oracle = attend(step, starts, torch.cat(best), lab.threads).double()
        ours += float((mine - expected).square().sum())
        oracles += float((oracle - expected).square().sum())
    return (ours / oracles) ** 0.5, kept / (8 * heads * LENGTH)


@check(
    "squeezed-attention",
    "hierarchy-skips-centroids",
    kind="mechanism",
    states="""With a coarse level of 1 % before the 5 %, a coarse threshold of zero gives the mask of one level, and one
        that keeps twice the target leaves at most half of the centroids to score, for the same share of keys within 3 points""",
)
def hierarchy_skips_centroids(lab: Lab) -> Finding:
    import torch

    from ridgeline.kernels.native.token_select import token_hierarchical_mask, token_products
    from ridgeline.kernels.token_selector.centroids import (
        calibrated_threshold,
        cluster_clusters,
        cluster_logits,
        hierarchical_log_scores,
        log_scores,
    )

    kept, context = 0.2, _context(lab)
    fine, coarse = context.clusters, cluster_clusters(context.clusters, COARSE, lab.generator, ITERATIONS)
    coarse_logits = cluster_logits(context.calibration, coarse.centroids)
    coarse_threshold = calibrated_threshold(log_scores(coarse_logits, coarse.sizes), coarse.sizes, 2 * kept)
    logits = cluster_logits(context.calibration, fine.centroids)
    scores = hierarchical_log_scores(
        coarse_logits, coarse.sizes, coarse_threshold, coarse.assignment, logits, fine.sizes
    )
    thresholds = {0.0: _threshold(context, kept), coarse_threshold: calibrated_threshold(scores, fine.sizes, kept)}
    products, mask = torch.empty(1, HEADS, COARSE), torch.empty(1, HEADS, LENGTH, dtype=torch.int8)
    scored = torch.empty(1, HEADS, dtype=torch.int64)
    unlike, shares, left = 0, 0.0, 0.0
    for query in range(QUERIES):
        q = context.step(query).q
        token_products(q, coarse.centroids, products, lab.threads)
        for first, second in thresholds.items():
            token_hierarchical_mask(
                q, products, coarse.sizes, first, coarse.assignment, fine.centroids, fine.sizes, fine.assignment, second,
                mask, scored, lab.threads,
            )  # fmt: skip
            if first == 0.0:
                unlike += int((mask != _mask(lab, context, q, second)).sum())
        shares += float(mask.float().mean()) / QUERIES
        left += float(scored.float().mean()) / CENTROIDS / QUERIES
    # Two ways to add up one denominator may differ in its last bit, and with it a cluster at the threshold.
    equal = unlike <= 1e-3 * QUERIES * HEADS * LENGTH
    return Finding(
        passed=equal and left <= 0.5 and abs(shares - kept) <= 0.03,
        value=left,
        threshold=0.5,
        text=f"{left:.3f} of {CENTROIDS} centroids scored after {COARSE} coarse ones, {shares:.3f} of the keys kept for "
        f"{kept:g}; a threshold of zero gives {unlike} of {QUERIES * HEADS * LENGTH} tokens another answer than one level",
    )


@check(
    "squeezed-attention",
    "work-is-balanced",
    kind="mechanism",
    states="""On the ragged lists that the threshold leaves the largest task has at most 1.3 times the mean work, in the
        native kernel's threads and in the Triton kernel's programs""",
)
def work_is_balanced(lab: Lab) -> Finding:
    from ridgeline.kernels.token_gather_attention.pieces import equal_pieces, equal_shares

    context = _context(lab)
    threshold = _threshold(context, 0.2)
    programs, threads, whole = 0.0, 0.0, 0.0
    for query in range(8):
        starts, _ = _lists(lab, _mask(lab, context, context.step(query).q, threshold))
        lengths = starts.diff()
        for_programs, for_threads = equal_pieces(starts), equal_shares(starts, max(2, lab.threads))
        programs = max(programs, float(for_programs.max() / for_programs.float().mean()))
        threads = max(threads, float(for_threads.max() / for_threads.float().mean()))
        whole = max(whole, float(lengths.max() / lengths.float().mean()))
    worst = max(programs, threads)
    return Finding(
        passed=worst <= 1.3,
        value=worst,
        threshold=1.3,
        unit="x",
        text=f"largest over mean: {threads:.3f} of the native threads, {programs:.3f} of the Triton programs; of whole "
        f"lists it would be {whole:.2f}",
    )


@check(
    "squeezed-attention",
    "decode-faster",
    kind="ratio",
    states="At 80 % sparsity decode is at least twice as fast as the strongest dense decode, lookup included",
)
def decode_faster(lab: Lab) -> Finding:
    import torch

    from ridgeline.bench.paper_checks.token_decode import against_dense, copies, index_cost, share, strongest_dense
    from ridgeline.kernels.native.token_gather import token_gather_attention
    from ridgeline.kernels.native.token_select import token_compact, token_mask, token_products

    context = _context(lab)
    threshold = _threshold(context, 0.2)
    peer = strongest_dense(lab, HEADS, HEADS, LENGTH, HEAD_DIM)
    dense_bytes = 2.0 * HEADS * LENGTH * HEAD_DIM * 4
    looked_up = HEADS * (CENTROIDS * (HEAD_DIM + 1) + LENGTH) * 4.0
    touched = looked_up + 0.2 * dense_bytes
    whole: list[Callable[[], object]] = []
    lookups: list[Callable[[], object]] = []
    kept: list[int] = []
    cold = copies(lab.cache_bytes, touched, dense_bytes, dense_bytes)
    for number in range(cold.count):
        step, clusters = context.step(number % QUERIES), context.clusters
        own = [tensor.clone() for tensor in (step.q, step.k, step.v, clusters.centroids, clusters.sizes)]
        assignment, starts = clusters.assignment.clone(), torch.empty(HEADS + 1, dtype=torch.int32)
        logits, mask = torch.empty(1, HEADS, CENTROIDS), torch.empty(1, HEADS, LENGTH, dtype=torch.int8)
        room, out = torch.empty(HEADS * LENGTH, dtype=torch.int32), torch.empty(1, HEADS, HEAD_DIM)

        def look_up(
            own: list[torch.Tensor] = own, assignment: torch.Tensor = assignment, logits: torch.Tensor = logits,
            mask: torch.Tensor = mask, starts: torch.Tensor = starts, room: torch.Tensor = room,
        ) -> torch.Tensor:  # fmt: skip
            token_products(own[0], own[3], logits, lab.threads)
            token_mask(logits, own[4], assignment, threshold, HEAD_DIM, mask, lab.threads)
            return token_compact(mask, starts, room, lab.threads)

        def decode(
            own: list[torch.Tensor] = own, starts: torch.Tensor = starts, out: torch.Tensor = out,
            look_up: Callable[[], torch.Tensor] = look_up,
        ) -> None:  # fmt: skip
            token_gather_attention(own[0], own[1], own[2], starts, look_up(), out, lab.threads)

        kept.append(len(look_up()))
        whole.append(decode)
        lookups.append(look_up)
    ratio = against_dense(lab, peer, whole, "centroids", cold)
    part = share(lab, whole, lookups)
    kept_share = sum(kept) / len(kept) / (HEADS * LENGTH)
    allowed = dense_bytes / (looked_up + kept_share * dense_bytes)
    return Finding(
        passed=ratio.value >= 2.0,
        value=ratio.value,
        threshold=2.0,
        unit="x",
        text=f"S {LENGTH}, H {HEADS}, d {HEAD_DIM}, {kept_share:.3f} kept, against {peer.label}: {ratio} "
        f"({ratio.slow_s * 1e3:.2f} ms against {ratio.fast_s * 1e3:.2f} ms), lookup {part:.0%} of the step, bytes allow "
        f"{allowed:.1f}x; {index_cost(context.built_s, ratio)}",
        reason=""
        if ratio.value >= 2.0
        else f"bytes allow {allowed:.1f}x; rows of {HEAD_DIM * 4} bytes at scattered addresses are read below streaming "
        f"bandwidth, and the lookup takes {part:.0%} of the step",
    )


GPU_LENGTH, GPU_HEADS, GPU_KEPT = 32768, 32, 0.1
GPU_RATIO = 4.0
"""What the paper claims of generation kernels."""


@check(
    "squeezed-attention",
    "gpu-decode-faster",
    kind="ratio",
    on="cuda",
    states="""On a GPU at 90 % sparsity, B1 H32 S 32k d 128 in float16, decode is at least four times as fast as the strongest
        dense decode, look-up of the centroids (5 % of the keys) included""",
)
def gpu_decode_faster(lab: Lab) -> Finding:
    import torch

    from ridgeline.analytical.operators import Attention, CentroidSelector, TokenGatherAttention
    from ridgeline.bench.paper_checks import on_gpu
    from ridgeline.kernels.registry import Unsupported, get_operator
    from ridgeline.kernels.token_selector.triton_centroids import compact

    shape: dict[str, Any] = {
        "batch": 1, "q_heads": GPU_HEADS, "kv_heads": GPU_HEADS, "kv_length": GPU_LENGTH, "head_dim": HEAD_DIM,
    }  # fmt: skip
    selector = CentroidSelector(centroids=GPU_LENGTH // 20, kept=GPU_KEPT, precision="float16", **shape)
    room = int(2 * GPU_KEPT * GPU_LENGTH)
    executor = TokenGatherAttention(kept=room, precision="float16", **shape)
    operator = get_operator("centroid_selector")
    constants = operator.make_constants(selector, lab.generator)
    choose, attend = on_gpu.prepared(lab, selector, "triton", constants), on_gpu.prepared(lab, executor, "triton", {})
    whole, lookups, kept = [], [], []
    for _ in range(on_gpu.copies(lab, 2.0 * GPU_KEPT * dense_bytes(shape))):
        given = {
            key: tensor.to(lab.torch_device) for key, tensor in operator.make_inputs(selector, lab.generator).items()
        }
        mask = operator.make_output(selector).to(lab.torch_device)
        tokens = torch.empty(GPU_HEADS * room, device=lab.torch_device, dtype=torch.int32)
        kv = (1, GPU_HEADS, GPU_LENGTH, HEAD_DIM)
        keys = {
            "q": given["q"], "k": on_gpu.normal(lab, *kv, precision="float16"),
            "v": on_gpu.normal(lab, *kv, precision="float16"), "tokens": tokens,
        }  # fmt: skip
        out = torch.empty_like(keys["q"])
        choose(given, mask)
        kept.append(int(mask.sum()))
        if kept[-1] > len(tokens):
            raise Unsupported(f"the threshold keeps {kept[-1]} tokens where there is room for {len(tokens)}")

        def look_up(
            given: dict[str, torch.Tensor] = given, mask: torch.Tensor = mask, tokens: torch.Tensor = tokens
        ) -> torch.Tensor:
            choose(given, mask)
            return compact(mask, tokens)

        def decode(
            keys: dict[str, torch.Tensor] = keys, out: torch.Tensor = out,
            look_up: Callable[[], torch.Tensor] = look_up,
        ) -> None:  # fmt: skip
            attend({**keys, "row_starts": look_up()}, out)

        decode()
        on_gpu.refuse_wrong_gather({**keys, "row_starts": look_up()}, out)
        whole.append(decode)
        lookups.append(look_up)
    dense = Attention(q_length=1, precision="float16", **shape)
    peer = on_gpu.strongest_dense(lab, dense, ("triton", "triton_split_kv"))
    ratio = lab.ratio(peer, lab.function(whole, "centroids"), budget_s=on_gpu.BUDGET_S)
    of_lookup = lab.ratio(lab.function(whole, "step"), lab.function(lookups, "look-up"), budget_s=on_gpu.BUDGET_S)
    share = sum(kept) / len(kept) / (GPU_HEADS * GPU_LENGTH)
    allowed = dense_bytes(shape) / (float(selector.expected_work().bytes) + share * dense_bytes(shape))
    return Finding(
        passed=ratio.value >= GPU_RATIO,
        value=ratio.value,
        threshold=GPU_RATIO,
        unit="x",
        text=f"{ratio} over {peer.label} ({ratio.slow_s * 1e6:.0f} us against {ratio.fast_s * 1e6:.0f}); {share:.1%} of the "
        f"keys kept; the look-up takes {1.0 / of_lookup.value:.0%} of the step; bytes allow {allowed:.1f}x",
        reason=""
        if ratio.value >= GPU_RATIO
        else f"bytes allow {allowed:.1f}x; the look-up, five small kernels, takes {1.0 / of_lookup.value:.0%} of the step",
    )


def dense_bytes(shape: dict[str, Any]) -> float:
    """Bytes of keys and values in float16."""
    return 2.0 * shape["kv_heads"] * shape["kv_length"] * shape["head_dim"] * 2.0
