"""What the rooflines say of published figures, on the hardware and shape that each was published for.

A claim of the ledger names its model here. Shapes that a source does not state are those of its public benchmark where
there is one, and said. Each gives the interval between what the limits allow and what they allow without overlap, where
that differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.ceilings import PHYSICAL
from ridgeline.analytical.device import Device
from ridgeline.analytical.operators import (
    attention_pairs,
    attention_work,
    centroid_selector_work,
    gemm_work,
    label_channel_selector_work,
    quantised_attention_work,
    sparse_attention_work,
    strided_blocks,
)
from ridgeline.analytical.roofline import bound
from ridgeline.analytical.work import Work, fma_key

H100 = "nvidia-h100-sxm5-80gb"
RTX_4090 = "nvidia-geforce-rtx-4090"
A100 = "nvidia-a100-sxm4-80gb"


@dataclass(frozen=True)
class Modelled:
    """What a model says of a figure."""

    low: float
    high: float
    """Ends of what it allows; equal where there is one answer."""
    unit: str
    device: str
    """Id of the device of the catalogue; empty where the figure is of work alone and holds on any."""
    text: str
    """What was modelled: shape, and what limits."""

    @property
    def figure(self) -> str:
        """The interval in words."""
        low, high = f"{self.low:.3g}", f"{self.high:.3g}"
        return f"{low if low == high else f'{low} to {high}'}{'' if self.unit == 'x' else ' '}{self.unit}"

    def against(self, published: float | None) -> str:
        """Where the published figure stands to it."""
        if published is None:
            return f"{self.figure}: {self.text}"
        # Figures are published rounded: within 5 % is the same.
        if published > self.high * 1.05:
            return f"the model allows {self.figure}, less than is claimed: {self.text}"
        if published < self.low * 0.95:
            return f"the model allows {self.figure}, more than is claimed: {self.text}"
        return f"the model allows {self.figure}, as claimed: {self.text}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def model_of(name: str) -> Modelled:
    """The model called ``name``.

    Raises:
        KeyError: where there is none.
    """
    return MODELS[name]()


def _seconds(work: Work, device: Device) -> tuple[float, float]:
    """Seconds of the bound with everything overlapped, and with nothing: the sum of all limits."""
    physical = device.select(PHYSICAL, 1)
    found = bound(work, physical, device.main_memory.name)
    assert found is not None
    return found.seconds, sum(term.seconds for term in found.terms)


def _gain(slow: Work, fast: Work, device: Device) -> tuple[float, float]:
    """Smallest and largest ratio of times, overlapped and not."""
    a, b = _seconds(slow, device), _seconds(fast, device)
    ratios = a[0] / b[0], a[1] / b[1]
    return min(ratios), max(ratios)


def _with_vector(work: Work, per_score: float, scores: float) -> Work:
    """``work`` with ``per_score`` vector instructions a score, each in the place of a multiply-add."""
    key = fma_key("float32", "vector")
    return Work(
        {**work.operations, key: work.operations.get(key, 0.0) + 2.0 * per_score * scores},
        work.read_bytes,
        work.written_bytes,
    )


SOFTMAX_INSTRUCTIONS = 4.0
"""Vector instructions a score of the online softmax: maximum, scaled subtraction, sum, half a conversion, half of what
rescaling and reducing cost (counted by hand from the equations of FlashAttention-2, algorithm 1)."""
SIGMOID_INSTRUCTIONS = 2.5
"""Of sigmoid: scale with bias, half scale of the tanh, half a conversion (FlashSigmoid, Ramapuram et al. 2024, appendix)."""


def flashsigmoid_h100() -> Modelled:
    """Forward at d = 64 in bfloat16, softmax against sigmoid: both spend one special function a score."""
    device = catalogue()[H100]
    shape = (1, 32, 32, 8192, 8192, 64, False, "bfloat16")
    work = attention_work(*shape)
    scores = 32.0 * 8192 * 8192
    low, high = _gain(
        _with_vector(work, SOFTMAX_INSTRUCTIONS, scores), _with_vector(work, SIGMOID_INSTRUCTIONS, scores), device
    )
    return Modelled(
        (low - 1.0) * 100.0, (high - 1.0) * 100.0, "%", device.id,
        "forward B1 H32 S8k d64: matrix products and one special function a score are the same for both, so with overlap "
        "nothing is saved, and without any the vector instructions are; reductions across lanes and rescaling of the "
        "accumulator are not counted",
    )  # fmt: skip


def _sageattention2(accumulator: str) -> tuple[float, float]:
    device = catalogue()[RTX_4090]
    shape = (4, 32, 32, 8192, 8192, 128, False)
    fast = quantised_attention_work(*shape, scores="int4", accumulator=accumulator, output="float16")
    return _gain(attention_work(*shape, "float16"), fast, device)


def sageattention2_rtx4090() -> Modelled:
    """INT4 scores and FP8 values against FP16 with float32 accumulation, at d = 128."""
    low, high = _sageattention2("float32")[0], _sageattention2("float16")[1]
    return Modelled(
        low, high, "x", RTX_4090,
        "B4 H32 S8k d128, FP8 values accumulated in float32 and in float16, against FP16 products accumulated in float32",
    )  # fmt: skip


def s2_attention_blocks() -> Modelled:
    """Blocks of the causal triangle over those kept, at the shape of the library's benchmark."""
    rows, local = 1024.0, 8.0
    dense = float(attention_pairs(rows, rows, True))
    kept = [float(strided_blocks(rows, local, stride)) for stride in (16.0, 32.0)]
    return Modelled(
        dense / kept[0], dense / kept[1], "x", "",
        "S 64k, blocks of 64, 8 local ones, every 16th or every 32nd of the others: work saved, so a gain on any device; "
        "the claim's pattern is not stated",
    )  # fmt: skip


def double_sparsity_bytes() -> Modelled:
    """Bytes of dense decode over those of labels and of the tokens kept, 1/16 of each."""
    length, dim, kept = 16384.0, 128.0, 16384.0 / 16
    dense = attention_work(1, 32, 32, 1, length, dim, False, "float16").bytes
    ratios = []
    for label in ("float16", "int4"):
        selector = label_channel_selector_work(1, 32, 32, length, dim / 16, kept, "float16", label)
        executor = sparse_attention_work(32.0, 32.0 * kept, 32.0 * kept, 32.0 * kept, dim, "float16")
        ratios.append(float(dense) / float(selector.bytes + executor.bytes))
    return Modelled(
        ratios[0], ratios[1], "x", "",
        "decode at S 16k, d 128, H32, 1/16 of channels and tokens: bytes saved with labels of 16 and of 4 bits; the claim "
        "does not state the width of its labels",
    )  # fmt: skip


def squeezed_attention_bytes() -> Modelled:
    """Bytes of dense decode over those of centroids (5 % of the keys) and of the keys kept."""
    length, dim = 32768.0, 128.0
    dense = attention_work(1, 32, 32, 1, length, dim, False, "float16").bytes
    ratios = []
    for share in (0.2, 0.1):
        kept = share * length
        lookup = centroid_selector_work(1, 32, 32, length, 0.05 * length, dim, "float16")
        executor = sparse_attention_work(32.0, 32.0 * kept, 32.0 * kept, 32.0 * kept, dim, "float16")
        ratios.append(float(dense) / float(lookup.bytes + executor.bytes))
    return Modelled(
        ratios[0], ratios[1], "x", "",
        "decode at 32k, d 128, centroids for 5 % of the keys, 20 % and 10 % of the keys kept: bytes saved, lookup included",
    )  # fmt: skip


def flashdecoding_pp_padding() -> Modelled:
    """Loss of padding 8 rows to 64 in a product with weights: what the padded work exceeds the weights' bytes by."""
    device = catalogue()[A100]
    flat, padded = (_seconds(gemm_work(m, 4096, 4096, "float16"), device)[0] for m in (8, 64))
    loss = (1.0 - flat / padded) * 100.0
    return Modelled(
        loss, loss, "%", device.id,
        "8 rows padded to 64, 4096 x 4096 weights in float16: bytes of the weights hide the padded products, so the "
        "roofline sees hardly any loss; the claim's loss comes of units left idle, not of this limit",
    )  # fmt: skip


MODELS: dict[str, Callable[[], Modelled]] = {
    "flashsigmoid-h100": flashsigmoid_h100,
    "sageattention2-rtx4090": sageattention2_rtx4090,
    "s2-attention-blocks": s2_attention_blocks,
    "double-sparsity-bytes": double_sparsity_bytes,
    "squeezed-attention-bytes": squeezed_attention_bytes,
    "flashdecoding-pp-padding": flashdecoding_pp_padding,
}
"""Models by the name that claims give them."""
