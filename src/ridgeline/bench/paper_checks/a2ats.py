"""a2ats: windowed RoPE and query-aware vector quantisation choose; the serving system around them is not built."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ridgeline.bench.paper_checks.frame import Finding, Lab, check

if TYPE_CHECKING:
    import torch

    from ridgeline.bench.paper_checks.lab import Ratio

HEADS, HEAD_DIM, LENGTH = 8, 128, 16384
CODES, SINKS, WINDOW = 4096, 8, 64
KEPT = 0.03
TRUE_CLUSTERS, NOISE = 1024, 0.15
"""Keys before RoPE are one of so many centres of a head plus noise."""
ITERATIONS = 4
SPECTRUM = 1.0
"""Decades over which the standard deviations of anisotropic queries fall."""


def _normal(lab: Lab, *shape: int) -> torch.Tensor:
    import torch

    return torch.randn(*shape, generator=lab.generator)


def _kept(length: int) -> int:
    """Tokens chosen by score, beside sinks and window."""
    return int(KEPT * length)


@check(
    "a2ats",
    "all-tokens-is-dense",
    kind="correctness",
    states="""With all tokens selected the output equals dense attention with windowed rotary embedding, computed with a
        rotation of every query and key to their own positions""",
)
def all_tokens_is_dense(lab: Lab) -> Finding:
    import torch

    from ridgeline.bench.paper_checks.token_decode import TOLERANCE, Step, attend, every_token, relative
    from ridgeline.kernels.token_selector.windowed_rope import FAR, rotate, windowed_keys, windowed_query

    heads, length = 4, LENGTH
    q, k = _normal(lab, 1, heads, HEAD_DIM), _normal(lab, 1, heads, length, HEAD_DIM)
    v = _normal(lab, 1, heads, length, HEAD_DIM)
    # Inside the window each at its own position, beyond it the query at FAR and keys at 0.
    double_q, double_k = q.double()[:, :, None], k.double()
    position = torch.tensor([length - 1])
    near = rotate(double_q, position) @ rotate(double_k, torch.arange(length)).transpose(-1, -2)
    far = rotate(double_q, torch.tensor([FAR])) @ double_k.transpose(-1, -2)
    distance = length - 1 - torch.arange(length)
    scores = torch.where(distance < WINDOW, near, far) / HEAD_DIM**0.5
    expected = (scores.softmax(-1) @ v.double())[:, :, 0]
    step = Step(windowed_query(q), windowed_keys(k, WINDOW).contiguous(), v)
    error = relative(attend(step, *every_token(heads, length), lab.threads), expected)
    # Far keys at one position are another attention than RoPE's own: the embedding is not a no-op.
    plain = relative((near / HEAD_DIM**0.5).softmax(-1) @ v.double(), expected[:, :, None])
    return Finding(
        passed=error <= TOLERANCE < plain,
        value=error,
        threshold=TOLERANCE,
        text=f"S {length}, window {WINDOW}: relative error {error:.1e}; plain RoPE differs by {plain:.2f}",
    )


@check(
    "a2ats",
    "equals-masked-dense",
    kind="correctness",
    states="Every executor equals attention over the selected tokens to 1e-5, at S 16k and 3 %, H 8, d 128",
)
def equals_masked_dense(lab: Lab) -> Finding:
    from ridgeline.bench.paper_checks.token_decode import TOLERANCE, worst_gather_error

    worst, text = worst_gather_error(lab, [(LENGTH, _kept(LENGTH) + SINKS + WINDOW, 0.0)])
    return Finding(passed=worst <= TOLERANCE, value=worst, threshold=TOLERANCE, text=f"relative error: {text}")


@check(
    "a2ats",
    "query-aware-beats-plain",
    kind="quality",
    states="""On anisotropic queries the mean square error of scores on other keys and queries is below that of plain
        vector quantisation with as many codes; on isotropic queries, the control, they are alike within 10 %""",
)
def query_aware_beats_plain(lab: Lab) -> Finding:
    import torch

    from ridgeline.kernels.token_selector.codebook import build_codebook

    codes, heads = 1024, 2
    keys, others = _normal(lab, 1, heads, LENGTH, HEAD_DIM), _normal(lab, 1, heads, 4096, HEAD_DIM)
    falling = 10.0 ** (-SPECTRUM * torch.arange(HEAD_DIM) / HEAD_DIM)
    turn = torch.linalg.qr(_normal(lab, HEAD_DIM, HEAD_DIM)).Q
    ratios = {}
    began = time.monotonic()
    for name, spread in (("anisotropic", falling), ("isotropic", torch.ones(HEAD_DIM))):
        q, test = (_normal(lab, 1, heads, n, HEAD_DIM) * spread @ turn for n in (2048, 256))
        errors = {}
        for kind, calibration in (("query-aware", q), ("plain", None)):
            book = build_codebook(keys, codes, lab.generator, q=calibration, iterations=ITERATIONS)
            assigned = book.assign(others).long()
            stand_in = torch.stack([book.words[h][assigned[0, h]] for h in range(heads)])[None]
            errors[kind] = float((test @ (others - stand_in).transpose(-1, -2)).square().mean())
        ratios[name] = errors["query-aware"] / errors["plain"]
    ours, control = ratios["anisotropic"], ratios["isotropic"]
    return Finding(
        passed=ours < 1.0 and abs(control - 1.0) <= 0.1,
        value=ours,
        threshold=1.0,
        unit="x",
        text=f"{codes} codes, deviations of queries falling by {10.0**SPECTRUM:g}: {ours:.3f}x the error of plain "
        f"quantisation; isotropic queries {control:.3f}x; four codebooks of {heads} heads in {time.monotonic() - began:.1f} s",
    )


@check(
    "a2ats",
    "recall-on-clustered-keys",
    kind="quality",
    states="""At 3 % kept, recall on clustered keys is at least 0.8, with a codebook of 4096 words built on other keys; on
        isotropic keys, the negative control, it is below half of that""",
)
def recall_on_clustered_keys(lab: Lab) -> Finding:
    began = time.monotonic()
    clustered = _recall(lab, clustered=True)
    built_s = time.monotonic() - began
    isotropic = _recall(lab, clustered=False)
    return Finding(
        passed=clustered >= 0.8 and isotropic < 0.4,
        value=clustered,
        threshold=0.8,
        text=f"S {LENGTH}, {CODES} codes, {TRUE_CLUSTERS} centres with noise {NOISE:g}: {clustered:.3f} (codebooks of 2 heads "
        f"in {built_s:.1f} s); isotropic keys {isotropic:.3f}, by chance {KEPT:g}",
    )


def _recall(lab: Lab, clustered: bool) -> float:
    import torch

    from ridgeline.bench.paper_checks.token_decode import exact_scores, recall
    from ridgeline.kernels.native.token_select import token_products, token_top_k
    from ridgeline.kernels.token_selector.codebook import build_codebook
    from ridgeline.kernels.token_selector.windowed_rope import windowed_query

    heads, kept = 2, _kept(LENGTH)
    centres = _normal(lab, heads, TRUE_CLUSTERS, HEAD_DIM)

    def keys() -> torch.Tensor:
        if not clustered:
            return _normal(lab, 1, heads, LENGTH, HEAD_DIM)
        which = torch.randint(TRUE_CLUSTERS, (heads, LENGTH), generator=lab.generator)
        own = centres.gather(1, which[..., None].expand(-1, -1, HEAD_DIM))
        return (own + NOISE * _normal(lab, heads, LENGTH, HEAD_DIM))[None]

    calibration = windowed_query(_normal(lab, 1, heads, 1024, HEAD_DIM))
    book = build_codebook(keys(), CODES, lab.generator, q=calibration, iterations=ITERATIONS)
    k = keys()
    codes = book.assign(k)
    by_code = torch.empty(1, heads, CODES)
    lists = torch.empty(1, heads, SINKS + kept + WINDOW, dtype=torch.int32)
    found = []
    for _ in range(16):
        q = windowed_query(_normal(lab, 1, heads, HEAD_DIM))
        token_products(q, book.words, by_code, lab.threads)
        token_top_k(by_code, lists, lab.threads, codes=codes, sinks=SINKS, window=WINDOW)
        # Among the tokens that compete: sinks and window are kept whatever their scores.
        between = slice(SINKS, LENGTH - WINDOW)
        chosen = lists[..., SINKS : SINKS + kept] - SINKS
        found.append(recall(chosen, exact_scores(q, k)[..., between], kept))
    return sum(found) / len(found)


def _faster(lab: Lab, length: int, budget_s: float = 4.0) -> tuple[Ratio, float, float, float]:
    """Ratio against the strongest dense decode, shares of the codebook's products and of gathering codes, and what
    bytes allow. Codes and words are random: what they are changes no time."""
    import torch

    from ridgeline.bench.paper_checks.token_decode import against_dense, copies, share, strongest_dense
    from ridgeline.kernels.native.token_gather import token_gather_attention
    from ridgeline.kernels.native.token_select import token_products, token_top_k
    from ridgeline.kernels.token_selector.lists import lists_of_rows

    peer = strongest_dense(lab, HEADS, HEADS, length, HEAD_DIM)
    listed = SINKS + _kept(length) + WINDOW
    dense_bytes = 2.0 * HEADS * length * HEAD_DIM * 4
    touched = HEADS * (CODES * HEAD_DIM * 4.0 + length * 2.0) + dense_bytes * listed / length
    whole: list[Callable[[], object]] = []
    products: list[Callable[[], object]] = []
    choices: list[Callable[[], object]] = []
    k, v = _normal(lab, 1, HEADS, length, HEAD_DIM), _normal(lab, 1, HEADS, length, HEAD_DIM)
    cold = copies(lab.cache_bytes, touched, dense_bytes, dense_bytes)
    for _ in range(cold.count):
        own = [_normal(lab, 1, HEADS, HEAD_DIM), k.clone(), v.clone(), _normal(lab, HEADS, CODES, HEAD_DIM)]
        codes = torch.randint(CODES, (1, HEADS, length), generator=lab.generator, dtype=torch.int16)
        by_code, lists = torch.empty(1, HEADS, CODES), torch.empty(1, HEADS, listed, dtype=torch.int32)
        (starts, tokens), out = lists_of_rows(lists), torch.empty(1, HEADS, HEAD_DIM)

        def score(own: list[torch.Tensor] = own, by_code: torch.Tensor = by_code) -> None:
            token_products(own[0], own[3], by_code, lab.threads)

        def choose(by_code: torch.Tensor = by_code, lists: torch.Tensor = lists, codes: torch.Tensor = codes) -> None:
            token_top_k(by_code, lists, lab.threads, codes=codes, sinks=SINKS, window=WINDOW)

        def decode(
            own: list[torch.Tensor] = own, starts: torch.Tensor = starts, tokens: torch.Tensor = tokens,
            out: torch.Tensor = out, score: Callable[[], None] = score, choose: Callable[[], None] = choose,
        ) -> None:  # fmt: skip
            score()
            choose()  # fills the lists that tokens are a view of
            token_gather_attention(own[0], own[1], own[2], starts, tokens, out, lab.threads)

        score()
        whole.append(decode)
        products.append(score)
        choices.append(choose)
    ratio = against_dense(lab, peer, whole, "codebook", cold, budget_s)
    return ratio, share(lab, whole, products), share(lab, whole, choices), dense_bytes / touched


@check(
    "a2ats",
    "decode-faster",
    kind="ratio",
    states="""At 3 % and S = 16k decode is at least 2.5 times as fast as the strongest dense decode, with the cost of
        gathering codes""",
)
def decode_faster(lab: Lab) -> Finding:
    ratio, products, choice, allowed = _faster(lab, LENGTH)
    return Finding(
        passed=ratio.value >= 2.5,
        value=ratio.value,
        threshold=2.5,
        unit="x",
        text=f"S {LENGTH}, H {HEADS}, d {HEAD_DIM}, {KEPT:.0%}: {ratio} ({ratio.slow_s * 1e3:.2f} ms against "
        f"{ratio.fast_s * 1e3:.2f} ms); products with the codebook {products:.0%} of the step, gathering scores by code "
        f"and the choice {choice:.0%}; bytes allow {allowed:.1f}x",
        reason=""
        if ratio.value >= 2.5
        else f"bytes allow {allowed:.1f}x: the codebook of {HEADS * CODES * HEAD_DIM * 4 / 1e6:.1f} MB takes "
        f"{products:.0%} of the step whatever S is",
    )


@check(
    "a2ats",
    "gain-grows-with-length",
    kind="ratio",
    states="The gain grows from S = 4k over 16k to 32k, because reading the codebook costs the same at every length",
)
def gain_grows_with_length(lab: Lab) -> Finding:
    found = {length: _faster(lab, length, budget_s=3.0) for length in (4096, 16384, 32768)}
    values = [entry[0].value for entry in found.values()]
    growth = values[-1] / values[0]
    rising = values[0] < values[1] < values[2]
    return Finding(
        passed=rising,
        value=growth,
        threshold=1.0,
        unit="x",
        text=", ".join(
            f"S {length}: {ratio} (codebook {products:.0%} of the step, bytes allow {allowed:.1f}x)"
            for length, (ratio, products, _, allowed) in found.items()
        ),
        reason="" if rising else "the gain does not rise at every step: see the shares",
    )
