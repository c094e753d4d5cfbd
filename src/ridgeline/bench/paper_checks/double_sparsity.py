"""double-sparsity: label channels choose, the executor attends exactly to what was chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ridgeline.bench.paper_checks.frame import Finding, Lab, check

if TYPE_CHECKING:
    import torch

    from ridgeline.bench.paper_checks.token_decode import Copies, Step

HEADS, HEAD_DIM, CHANNELS = 8, 128, 16
SPARSITY = 16
LENGTHS = (4096, 16384)
OUTLIERS, KEY_OUTLIER, QUERY_OUTLIER = 12, 16.0, 3.0
"""Channels of each head that are larger, and by what, in keys and in queries; which ones differ from head to head."""
CALIBRATION = 256


def _draw(lab: Lab, length: int, planted: bool) -> tuple[Step, torch.Tensor]:
    """A decode step, and calibration queries [1, H, T, d] of the same distribution."""
    import torch

    from ridgeline.bench.paper_checks.token_decode import Step

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=lab.generator)

    q, calibration = normal(1, HEADS, HEAD_DIM), normal(1, HEADS, CALIBRATION, HEAD_DIM)
    k, v = normal(1, HEADS, length, HEAD_DIM), normal(1, HEADS, length, HEAD_DIM)
    if planted:
        for head in range(HEADS):
            channels = torch.randperm(HEAD_DIM, generator=lab.generator)[:OUTLIERS]
            k[0, head, :, channels] *= KEY_OUTLIER
            q[0, head, channels] *= QUERY_OUTLIER
            calibration[0, head, :, channels] *= QUERY_OUTLIER
    return Step(q, k, v), calibration


def _choose(lab: Lab, step: Step, calibration: torch.Tensor, label: str, kept: int) -> torch.Tensor:
    """Token ids, int32 [1, H, kept]: channels from calibration, then the native selector."""
    import torch

    from ridgeline.kernels.native.token_select import token_products, token_top_k
    from ridgeline.kernels.token_selector.label_channels import label_cache, label_channels

    cache = label_cache(step.k, label_channels(calibration, step.k, CHANNELS), label)
    scores = torch.empty(1, HEADS, step.k.shape[2])
    token_products(step.q, cache.labels, scores, lab.threads, channels=cache.channels, scales=cache.scale)
    out = torch.empty(1, HEADS, kept, dtype=torch.int32)
    token_top_k(scores, out, lab.threads)
    return out


@check(
    "double-sparsity",
    "all-tokens-is-dense",
    kind="correctness",
    states="With k = S the output equals dense attention at S 4k and 16k, through the selector and the executor",
)
def all_tokens_is_dense(lab: Lab) -> Finding:
    from ridgeline.bench.paper_checks.token_decode import TOLERANCE, attend, dense, relative
    from ridgeline.kernels.token_selector.lists import lists_of_rows

    errors = []
    for length in LENGTHS:
        step, calibration = _draw(lab, length, planted=True)
        lists = _choose(lab, step, calibration, "float32", length)
        errors.append(relative(attend(step, *lists_of_rows(lists), lab.threads), dense(step)))
    worst = max(errors)
    return Finding(
        passed=worst <= TOLERANCE,
        value=worst,
        threshold=TOLERANCE,
        text=", ".join(f"S {s}: {e:.1e}" for s, e in zip(LENGTHS, errors, strict=True)),
    )


@check(
    "double-sparsity",
    "equals-masked-dense",
    kind="correctness",
    states="Every executor equals attention over the listed tokens to 1e-5 at S 4k and 16k, H 8, d 128, k = S / 16",
)
def equals_masked_dense(lab: Lab) -> Finding:
    from ridgeline.bench.paper_checks.token_decode import TOLERANCE, worst_gather_error

    worst, text = worst_gather_error(lab, [(length, length // SPARSITY, 0.0) for length in LENGTHS])
    return Finding(passed=worst <= TOLERANCE, value=worst, threshold=TOLERANCE, text=f"relative error: {text}")


@check(
    "double-sparsity",
    "recall-on-outlier-channels",
    kind="quality",
    states="""On keys with planted channel outliers the selector finds at least 90 % of the true top S / 16, at S 4k and
        16k, with labels of float32 and of int8""",
)
def recall_on_outlier_channels(lab: Lab) -> Finding:
    from ridgeline.bench.paper_checks.token_decode import exact_scores, recall

    found = {}
    for length in LENGTHS:
        step, calibration = _draw(lab, length, planted=True)
        scores, kept = exact_scores(step.q, step.k), length // SPARSITY
        for label in ("float32", "int8"):
            chosen = _choose(lab, step, calibration, label, kept)
            found[f"S {length} {label}"] = recall(chosen, scores, kept)
    worst = min(found.values())
    planted = f"{OUTLIERS} of {HEAD_DIM} channels, keys x{KEY_OUTLIER:g}, queries x{QUERY_OUTLIER:g}"
    return Finding(
        passed=worst >= 0.9,
        value=worst,
        threshold=0.9,
        text=f"{planted}: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()),
    )


def expected_recall(share: float, correlation: float) -> float:
    """Recall of the top ``share`` by a score that is jointly normal with the true one: P(both above) / share."""
    from scipy.stats import multivariate_normal, norm

    edge = norm.isf(share)
    both = multivariate_normal.cdf([-edge, -edge], cov=[[1.0, correlation], [correlation, 1.0]])
    return float(both / share)


@check(
    "double-sparsity",
    "recall-on-isotropic-keys",
    kind="quality",
    states="""On isotropic keys, the negative control, selection fails: recall is that of a score correlated by
        sqrt(r / d) with the true one, within 0.05, and below 0.3""",
)
def recall_on_isotropic_keys(lab: Lab) -> Finding:
    from ridgeline.bench.paper_checks.token_decode import exact_scores, recall

    kept_share = 1.0 / SPARSITY
    expected = expected_recall(kept_share, (CHANNELS / HEAD_DIM) ** 0.5)
    found = {}
    for length in LENGTHS:
        step, calibration = _draw(lab, length, planted=False)
        chosen = _choose(lab, step, calibration, "float32", length // SPARSITY)
        found[length] = recall(chosen, exact_scores(step.q, step.k), length // SPARSITY)
    off, highest = max(abs(value - expected) for value in found.values()), max(found.values())
    return Finding(
        passed=off <= 0.05 and highest < 0.3,
        value=highest,
        threshold=0.3,
        text=", ".join(f"S {s}: {value:.3f}" for s, value in found.items())
        + f"; {expected:.3f} for a correlation of sqrt({CHANNELS}/{HEAD_DIM}), {kept_share:.4f} by chance",
    )


@check(
    "double-sparsity",
    "int8-labels-halve-bytes",
    kind="mechanism",
    states="An int8 label cache halves the bytes that the selector reads against 16 bits, a quarter of float32",
)
def int8_labels_halve_bytes(lab: Lab) -> Finding:
    from ridgeline.analytical.operators import LabelChannelSelector
    from ridgeline.kernels.token_selector.label_channels import label_cache, label_channels

    step, calibration = _draw(lab, LENGTHS[1], planted=True)
    channels = label_channels(calibration, step.k, CHANNELS)
    held = {one: label_cache(step.k, channels, one).bytes for one in ("float32", "float16", "int8")}
    counted = {
        one: LabelChannelSelector(
            batch=1, q_heads=HEADS, kv_heads=HEADS, kv_length=LENGTHS[1], head_dim=HEAD_DIM, channels=CHANNELS,
            kept=LENGTHS[1] // SPARSITY, label_precision=one,
        ).work().read_bytes
        for one in held
    }  # fmt: skip
    agree = all(counted[one]["kv"] + counted[one].get("scales", 0.0) == held[one] for one in held)
    half, quarter = held["int8"] / held["float16"], held["int8"] / held["float32"]
    return Finding(
        passed=agree and half <= 0.51 and quarter <= 0.26,
        value=half,
        threshold=0.51,
        text=f"S {LENGTHS[1]}: int8 {held['int8']} bytes with its scales, {half:.4f} of float16's, {quarter:.4f} of "
        f"float32's; {'equal to' if agree else 'unlike'} what the formula counts",
    )


def _steps(
    lab: Lab, length: int, label: str
) -> tuple[list[Callable[[], object]], list[Callable[[], object]], Copies, float]:
    """Whole decode steps, and their choices of the k largest alone, on buffers of their own; how many these are; the seconds
    that building the index took."""
    import time

    import torch

    from ridgeline.bench.paper_checks.token_decode import copies
    from ridgeline.kernels.native.token_gather import token_gather_attention
    from ridgeline.kernels.native.token_select import token_products, token_top_k
    from ridgeline.kernels.token_selector.label_channels import label_cache, label_channels
    from ridgeline.kernels.token_selector.lists import lists_of_rows

    step, calibration = _draw(lab, length, planted=True)
    kept = length // SPARSITY
    began = time.monotonic()
    cache = label_cache(step.k, label_channels(calibration, step.k, CHANNELS), label)
    built_s = time.monotonic() - began
    touched = cache.bytes + 2.0 * HEADS * kept * HEAD_DIM * 4
    whole: list[Callable[[], object]] = []
    choices: list[Callable[[], object]] = []
    dense_bytes = 2.0 * HEADS * length * HEAD_DIM * 4
    cold = copies(lab.cache_bytes, touched, cache.bytes + dense_bytes, dense_bytes)
    for _ in range(cold.count):
        own = [tensor.clone() for tensor in (step.q, step.k, step.v, cache.labels)]
        scores, lists = torch.empty(1, HEADS, length), torch.empty(1, HEADS, kept, dtype=torch.int32)
        starts, tokens = lists_of_rows(lists)
        out = torch.empty(1, HEADS, HEAD_DIM)

        def choose(scores: torch.Tensor = scores, lists: torch.Tensor = lists) -> None:
            token_top_k(scores, lists, lab.threads)

        def decode(
            own: list[torch.Tensor] = own, scores: torch.Tensor = scores, starts: torch.Tensor = starts,
            tokens: torch.Tensor = tokens, out: torch.Tensor = out, choose: Callable[[], None] = choose,
        ) -> None:  # fmt: skip
            q, k, v, labels = own
            token_products(q, labels, scores, lab.threads, channels=cache.channels, scales=cache.scale)
            choose()  # fills the lists that tokens are a view of
            token_gather_attention(q, k, v, starts, tokens, out, lab.threads)

        whole.append(decode)
        choices.append(choose)
    return whole, choices, cold, built_s


def _faster(lab: Lab, length: int, threshold: float) -> Finding:
    from ridgeline.bench.paper_checks.token_decode import against_dense, index_cost, share, strongest_dense

    peer = strongest_dense(lab, HEADS, HEADS, length, HEAD_DIM)
    ratios, shares, costs = {}, {}, {}
    for label, per_channel in (("float32", 4.0), ("int8", 1.0)):
        whole, choices, cold, built_s = _steps(lab, length, label)
        ratios[label] = against_dense(lab, peer, whole, f"label channels, {label}", cold)
        shares[label] = share(lab, whole, choices)
        costs[label] = index_cost(built_s, ratios[label])
        del whole, choices
        bytes_per_token = CHANNELS * per_channel + 2 * HEAD_DIM * 4 / SPARSITY
        shares[label + " bytes"] = 2 * HEAD_DIM * 4 / bytes_per_token
    best = max(("float32", "int8"), key=lambda label: ratios[label].value)
    value = ratios[best].value
    text = "; ".join(
        f"{label} labels {ratios[label]} ({ratios[label].slow_s * 1e3:.2f} ms against {ratios[label].fast_s * 1e3:.2f} ms, "
        f"top-k {shares[label]:.0%} of the step, bytes allow {shares[label + ' bytes']:.1f}x; {costs[label]})"
        for label in ("float32", "int8")
    )
    return Finding(
        passed=value >= threshold,
        value=value,
        threshold=threshold,
        unit="x",
        text=f"S {length}, H {HEADS}, d {HEAD_DIM}, 1/{SPARSITY}, against {peer.label}: {text}",
        reason=""
        if value >= threshold
        else f"bytes allow {shares[best + ' bytes']:.1f}x; rows of {HEAD_DIM * 4} bytes at scattered addresses are read "
        f"below streaming bandwidth, and the choice of the k largest takes {shares[best]:.0%} of the step",
    )


@check(
    "double-sparsity",
    "decode-faster",
    kind="ratio",
    states="""At 1/16 and S = 16k decode is at least four times as fast as the strongest dense decode, selection included,
        with the share of the selection""",
)
def decode_faster(lab: Lab) -> Finding:
    return _faster(lab, LENGTHS[1], 4.0)


@check(
    "double-sparsity",
    "decode-faster-short",
    kind="ratio",
    states="At 1/16 and S = 4k decode is at least twice as fast as the strongest dense decode, selection included",
)
def decode_faster_short(lab: Lab) -> Finding:
    return _faster(lab, LENGTHS[0], 2.0)


GPU_BATCH, GPU_HEADS = 8, 32
GPU_RATIO = 4.0


@check(
    "double-sparsity",
    "gpu-decode-faster",
    kind="ratio",
    on="cuda",
    states="""On a GPU at 1/16 of the channels and of the tokens, B8 H32 S 16k d 128 in float16 with int8 labels, decode is at
        least four times as fast as the strongest dense decode, selection included""",
)
def gpu_decode_faster(lab: Lab) -> Finding:

    import torch

    from ridgeline.analytical.operators import Attention, LabelChannelSelector, TokenGatherAttention
    from ridgeline.bench.paper_checks import on_gpu

    length, kept = LENGTHS[1], LENGTHS[1] // SPARSITY
    shape: dict[str, Any] = {
        "batch": GPU_BATCH, "q_heads": GPU_HEADS, "kv_heads": GPU_HEADS, "kv_length": length, "head_dim": HEAD_DIM,
    }  # fmt: skip
    selector = LabelChannelSelector(channels=HEAD_DIM // SPARSITY, kept=kept, label_precision="int8", **shape)
    executor = TokenGatherAttention(kept=kept, precision="float16", **shape)
    channels = torch.stack(
        [torch.randperm(HEAD_DIM, generator=lab.generator)[: selector.channels] for _ in range(GPU_HEADS)]
    )
    constants = {
        "channels": channels.sort().values.to(lab.torch_device, torch.int32),
        "scale": torch.full(channels.shape, 0.02, device=lab.torch_device),
    }
    choose, attend = (
        on_gpu.prepared(lab, problem, "triton", given) for problem, given in ((selector, constants), (executor, {}))
    )
    rows = GPU_BATCH * GPU_HEADS
    starts = torch.arange(rows + 1, device=lab.torch_device, dtype=torch.int32) * kept
    whole, choices = [], []
    for _ in range(on_gpu.copies(lab, executor.footprint_bytes())):
        labels = on_gpu.normal(lab, GPU_BATCH, GPU_HEADS, length, selector.channels, precision="float32")
        given = {
            "q": on_gpu.normal(lab, GPU_BATCH, GPU_HEADS, HEAD_DIM, precision="float32"),
            "labels": (labels * 40.0).round().clamp(-127.0, 127.0).to(torch.int8),
        }
        lists = torch.empty(GPU_BATCH, GPU_HEADS, kept, device=lab.torch_device, dtype=torch.int32)
        kv = (GPU_BATCH, GPU_HEADS, length, HEAD_DIM)
        keys = {
            "q": given["q"].half(), "k": on_gpu.normal(lab, *kv, precision="float16"),
            "v": on_gpu.normal(lab, *kv, precision="float16"), "row_starts": starts, "tokens": lists.view(-1),
        }  # fmt: skip
        out = torch.empty_like(keys["q"])

        def select(given: dict[str, torch.Tensor] = given, lists: torch.Tensor = lists) -> None:
            choose(given, lists)

        def decode(
            keys: dict[str, torch.Tensor] = keys, out: torch.Tensor = out, select: Callable[[], None] = select
        ) -> None:
            select()
            attend(keys, out)

        decode()
        on_gpu.refuse_wrong_gather(keys, out)
        whole.append(decode)
        choices.append(select)
    dense = Attention(q_length=1, precision="float16", **shape)
    peer = on_gpu.strongest_dense(lab, dense, ("triton", "triton_split_kv"))
    ratio = lab.ratio(peer, lab.function(whole, "label channels"), budget_s=on_gpu.BUDGET_S)
    of_choice = lab.ratio(lab.function(whole, "step"), lab.function(choices, "choice"), budget_s=on_gpu.BUDGET_S)
    allowed = float(dense.expected_work().bytes / (selector.expected_work().bytes + executor.expected_work().bytes))
    return Finding(
        passed=ratio.value >= GPU_RATIO,
        value=ratio.value,
        threshold=GPU_RATIO,
        unit="x",
        text=f"{ratio} over {peer.label} ({ratio.slow_s * 1e6:.0f} us against {ratio.fast_s * 1e6:.0f}); choosing takes "
        f"{1.0 / of_choice.value:.0%} of the step; bytes allow {allowed:.1f}x",
        reason=""
        if ratio.value >= GPU_RATIO
        else f"bytes allow {allowed:.1f}x; choosing the k largest takes {1.0 / of_choice.value:.0%} of the step",
    )
