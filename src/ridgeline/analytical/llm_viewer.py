"""LLM-Viewer's own formulas, defects included, to show where its figures and ours part.

Yuan et al., "LLM Inference Unveiled: Survey and Roofline Model Insights", arXiv 2402.16363; the code of
hahnyuan/LLM-Viewer at commit 472f71f (model_analyzer.py, roofline_model.py, configs/Llama.py, hardwares/
hardware_params.py), written anew from its formulas. Our own model is
:mod:`ridgeline.analytical.architectures.operations`; docs/model-formulas.md compares the two term by term.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.mixers import Attention
from ridgeline.analytical.architectures.parts import Mlp
from ridgeline.analytical.ceilings import Bandwidth, Rate, Source

Stage = Literal["prefill", "decode"]
STAGES: tuple[Stage, ...] = ("prefill", "decode")


class ParityError(ValueError):
    """A model, device or precision that LLM-Viewer cannot express. One line."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A row of its hardware table."""

    bandwidth_per_s: float
    fp16_per_s: float
    int8_per_s: float | None
    onchip_bytes: float


HARDWARE: Mapping[str, Hardware] = {
    name: Hardware(bandwidth_per_s=bandwidth, fp16_per_s=fp16, int8_per_s=int8, onchip_bytes=onchip)
    for name, bandwidth, fp16, int8, onchip in (
        ("nvidia_V100", 900e9, 112e12, 62e12, 20480e3),
        ("nvidia_A6000", 768e9, 309.677e12 / 2, 309.7e12, 21504e3),
        ("nvidia_A100", 1555e9, 312e12, 624e12, 27648e3),
        ("nvidia_A100_40G", 1555e9, 312e12, 624e12, 27648e3),
        ("nvidia_A100_80G", 2039e9, 312e12, 624e12, 27648e3),
        ("nvidia_A800_80G_SXM", 2039e9, 312e12, 624e12, 27648e3),
        ("nvidia_A40", 696e9, 149.7e12, 299.3e12, 21504e3),
        ("nvidia_H100", 3072e9, 1979e12 / 2, 3958e12 / 2, 33792e3),
        ("nvidia_H100_SXM", 3072e9, 1979e12 / 2, 3958e12 / 2, 33792e3),
        ("nvidia_H100_PCIe", 2048e9, 1513e12 / 2, 3026e12 / 2, 29184e3),
        ("nvidia_L40", 864e9, 181e12, 362e12, 36352e3),
        ("intel_13900k", 89.6e9, 8 * 5.4e9 * (512 / 16), None, 36e6),
    )
}
"""Its hardware_params.py at 472f71f: bytes/s, 16-bit and INT8 operations/s, on-chip bytes."""

NAMES: Mapping[str, str] = {
    "nvidia-a100-sxm4-40gb": "nvidia_A100_40G",
    "nvidia-a100-sxm4-80gb": "nvidia_A100_80G",
    "nvidia-h100-sxm5-80gb": "nvidia_H100_SXM",
    "nvidia-h100-pcie-80gb": "nvidia_H100_PCIe",
    "nvidia-a40": "nvidia_A40",
    "nvidia-l40": "nvidia_L40",
    "nvidia-rtx-a6000": "nvidia_A6000",
}
"""Ids of our catalogue to its names."""

DEFECTS: Mapping[str, str] = {
    "no causal mask": "prefill counts all S x S pairs, twice what a causal model needs",
    "scores stored": "without flash, the S x S scores are written and read, as no kernel has done since 2022",
    "flash output": "with flash, the output is S x S values for each head instead of S x head_dim, and written twice",
    "flash loses GQA": "with flash, keys and values are read once for each query head, and again for each block of "
    "queries, a block being at most head_dim rows",
    "prefill q": "without flash, prefill reads the queries with the number of KV heads",
    "head": "lm_head counts one operation for a multiply-add, and its activations do not grow with the batch",
    "head_dim": "head_dim is always width / heads: wrong for Gemma, Qwen 3, Mistral Small and others",
    "activation": "the MLP's activation has the hidden width instead of the intermediate one",
    "residual": "a residual sum reads one input, not two",
    "units": "softmax, norms and sums run at the matrix unit's peak",
    "bandwidth": "H100 SXM has 3,072 GB/s; its data sheet says 3,350",
    "INT8": "the INT8 peak counts only if weights, activations and cache are all of 8 bits or less; no FP8",
    "missing": "no embedding, rotation or last norm; no tensor, pipeline or expert parallelism",
}
"""What the formulas below do knowingly wrong, because LLM-Viewer does."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One operator of one layer, with LLM-Viewer's own columns in bytes."""

    name: str
    count: int
    """Layers that it runs in."""
    operations: float
    load_weight_bytes: float = 0.0
    load_activation_bytes: float = 0.0
    store_activation_bytes: float = 0.0
    load_kv_bytes: float = 0.0
    store_kv_bytes: float = 0.0
    peak_per_s: float = field(repr=False)
    bandwidth_per_s: float = field(repr=False)

    @property
    def bytes(self) -> float:
        """All five."""
        return (
            self.load_weight_bytes
            + self.load_activation_bytes
            + self.store_activation_bytes
            + self.load_kv_bytes
            + self.store_kv_bytes
        )

    @property
    def intensity_flop_per_byte(self) -> float:
        """Operations over bytes."""
        return self.operations / self.bytes

    @property
    def bound_by(self) -> str:
        """memory or compute."""
        return "memory" if self.intensity_flop_per_byte < self.peak_per_s / self.bandwidth_per_s else "compute"

    @property
    def seconds(self) -> float:
        """OPs / min(peak, intensity x bandwidth), of one run."""
        if self.bound_by == "memory":
            return self.operations / (self.intensity_flop_per_byte * self.bandwidth_per_s)
        return self.operations / self.peak_per_s


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """What its configs/Llama.py reads."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int


def dimensions(architecture: Architecture) -> Dimensions:
    """The dimensions of a dense Llama-like model.

    Raises:
        ParityError: for a model of another kind: LLM-Viewer's Llama config knows only these.
    """
    stack = architecture.decoder
    blocks = stack.distinct if stack is not None else ()
    attention = [p for block, _ in blocks for p in block.parts if isinstance(p, Attention)]
    mlps = [p for block, _ in blocks for p in block.parts if isinstance(p, Mlp)]
    same = len({(a.q_heads, a.kv_heads) for a in attention}) == 1 and len({m.intermediate for m in mlps}) == 1
    plain = all(len(block.mixers) == 1 for block, _ in blocks) and all(m.gated for m in mlps)
    if stack is None or architecture.encoder is not None or not same or not plain or len(mlps) != len(attention):
        raise ParityError(
            f"{architecture.name}: LLM-Viewer's Llama config reads dense decoders with a gated MLP only; "
            "leave --parity out for our own table"
        )
    head = stack.outputs[-1]
    return Dimensions(
        hidden=stack.width,
        intermediate=mlps[0].intermediate,
        layers=stack.layer_count,
        heads=attention[0].q_heads,
        kv_heads=attention[0].kv_heads,
        vocabulary=getattr(head, "outputs", 0),
    )


def hardware(device: str) -> Hardware:
    """Its row for one of our device ids, or for a name of its own.

    Raises:
        ParityError: for a device that it does not know.
    """
    name = NAMES.get(device, device)
    if name not in HARDWARE:
        raise ParityError(f"device: LLM-Viewer's table has no {device}: one of {', '.join([*NAMES, *HARDWARE])}")
    return HARDWARE[name]


def ceilings_of(name: str) -> tuple[Bandwidth | Rate, ...]:
    """A row of its table as ceilings of ours: main memory, and the matrix rates of 16 and 8 bits where it has them.

    Raises:
        ParityError: for a device that it does not know.
    """
    row = hardware(name)
    source = Source(title="hahnyuan/LLM-Viewer, hardwares/hardware_params.py", detail=f"{name}, commit 472f71f")

    def figure(value: float) -> dict[str, Any]:
        return {"value_per_s": value, "low_per_s": value, "high_per_s": value, "kind": "datasheet", "source": source}

    found: list[Bandwidth | Rate] = [Bandwidth(level="DRAM", **figure(row.bandwidth_per_s))]
    found.append(Rate(unit="matrix", a="float16", b="float16", accumulator="float32", **figure(row.fp16_per_s)))
    if row.int8_per_s is not None:
        found.append(Rate(unit="matrix", a="int8", b="int8", accumulator="int32", **figure(row.int8_per_s)))
    return tuple(found)


def analyse(
    model: Dimensions,
    on: Hardware,
    stage: Stage,
    *,
    sequence: int,
    batch: int = 1,
    weight_bits: int = 16,
    activation_bits: int = 16,
    kv_bits: int = 16,
    flash: bool = False,
) -> tuple[Row, ...]:
    """Its operators of one stage, in its order: per layer, then lm_head.

    Raises:
        ParityError: for 8-bit work on a device for which its table has no INT8 rate (a KeyError there).
    """
    peak = on.fp16_per_s
    if max(weight_bits, activation_bits, kv_bits) <= 8:
        if on.int8_per_s is None:
            raise ParityError("device: LLM-Viewer's table has no INT8 rate for it")
        peak = on.int8_per_s
    widths = weight_bits / 8, activation_bits / 8, kv_bits / 8

    def row(name: str, operations: float, moved: Mapping[str, float], count: int) -> Row:
        return Row(
            name=name, count=count, operations=operations, peak_per_s=peak, bandwidth_per_s=on.bandwidth_per_s, **moved
        )

    rows = [row(*operator, model.layers) for operator in _layer(model, on, stage, sequence, batch, widths, flash)]
    w, a, _ = widths
    head = {
        "load_weight_bytes": model.hidden * model.vocabulary * w,
        "load_activation_bytes": model.hidden * a,
        "store_activation_bytes": model.vocabulary * a,
    }
    rows.append(row("lm_head", batch * model.hidden * model.vocabulary, head, 1))
    return tuple(rows)


def total_s(rows: tuple[Row, ...]) -> float:
    """Seconds of a stage: every operator in every layer, one after the other."""
    return sum(row.seconds * row.count for row in rows)


def _layer(
    m: Dimensions, on: Hardware, stage: Stage, s: int, b: int, widths: tuple[float, float, float], flash: bool
) -> Iterator[tuple[str, float, dict[str, float]]]:
    w, a, kv = widths
    queries = s if stage == "prefill" else 1
    rows = b * queries
    kv_width = m.hidden * m.kv_heads / m.heads
    for name, inputs, outputs in (
        ("q_proj", m.hidden, m.hidden),
        ("k_proj", m.hidden, kv_width),
        ("v_proj", m.hidden, kv_width),
        ("out_proj", m.hidden, m.hidden),
        ("gate_proj", m.hidden, m.intermediate),
        ("up_proj", m.hidden, m.intermediate),
        ("down_proj", m.intermediate, m.hidden),
    ):
        cached = name in ("k_proj", "v_proj")
        stored = outputs * rows * (kv if cached else a)
        yield (
            name,
            inputs * outputs * rows * 2,
            {
                "load_weight_bytes": inputs * outputs * w,
                "load_activation_bytes": inputs * rows * a,
                ("store_kv_bytes" if cached else "store_activation_bytes"): stored,
            },
        )
    yield from _attention(m, on, stage, s, b, a, kv, flash)
    values = rows * m.hidden
    for name in ("attn_norm", "mlp_norm"):
        yield name, values * 7, {"load_activation_bytes": values * a, "store_activation_bytes": values * a}
    for name in ("attn_add", "mlp_add"):
        yield name, values, {"load_activation_bytes": values * a, "store_activation_bytes": values * a}
    yield "mlp_act", values * 2, {"load_activation_bytes": values * a * 2, "store_activation_bytes": values * a}


def _attention(
    m: Dimensions, on: Hardware, stage: Stage, s: int, b: int, a: float, kv: float, flash: bool
) -> Iterator[tuple[str, float, dict[str, float]]]:
    queries = s if stage == "prefill" else 1
    head_dim = m.hidden // m.heads
    scores = queries * s * b * m.heads
    product, softmax = scores * head_dim * 2, scores * 5
    vectors = queries * head_dim * b * m.heads * a
    if flash:
        block = min(math.ceil(on.onchip_bytes / (kv * head_dim)), head_dim)
        blocks = math.ceil(queries / block)
        yield (
            "fused_attention",
            2 * product + softmax,
            {
                "load_activation_bytes": vectors,
                "store_activation_bytes": scores * a * 2,
                "load_kv_bytes": blocks * s * head_dim * b * m.heads * kv * 2,
            },
        )
        return
    keys = s * head_dim * b * m.kv_heads * kv
    read = queries * head_dim * b * (m.kv_heads if stage == "prefill" else m.heads) * a
    yield (
        "qk_matmul",
        product,
        {"load_activation_bytes": read, "store_activation_bytes": scores * a, "load_kv_bytes": keys},
    )
    yield (
        "sv_matmul",
        product,
        {"load_activation_bytes": scores * a, "store_activation_bytes": vectors, "load_kv_bytes": keys},
    )
    yield "softmax", softmax, {"load_activation_bytes": scores * a, "store_activation_bytes": scores * a}
