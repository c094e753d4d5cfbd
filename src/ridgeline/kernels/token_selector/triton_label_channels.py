"""``label_channel_selector`` in Triton: scores from the label cache, then the k largest of each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl

from ridgeline.analytical.operators import LabelChannelSelector
from ridgeline.kernels.compiled import Compilation
from ridgeline.kernels.registry import Context, Run, Tensors, implementation
from ridgeline.kernels.token_selector import triton_top_k


@triton.jit
def label_scores_kernel(
    q_ptr,  # [B, H_kv, GROUP, Q_DIM]
    channels_ptr,  # [H_kv, R]
    scale_ptr,  # float32 [H_kv, R], read where SCALED
    labels_ptr,  # [B, H_kv, S, R]
    scores_ptr,  # float32 [B, H_kv, GROUP, S]
    S,
    kv_heads,
    R: tl.constexpr,
    GROUP: tl.constexpr,
    Q_DIM: tl.constexpr,
    SCALED: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """A block of tokens of one KV head: its labels are read once for all query heads of the group."""
    head = tl.program_id(0)
    of_head = (head % kv_heads) * R
    token = tl.program_id(1) * BLOCK_S + tl.arange(0, BLOCK_S)
    r = tl.arange(0, BLOCK_R)
    there = r < R
    channel = tl.load(channels_ptr + of_head + r, mask=there, other=0)
    at = (head.to(tl.int64) * S + token)[:, None] * R + r[None, :]
    labels = tl.load(labels_ptr + at, mask=(token < S)[:, None] & there[None, :], other=0).to(tl.float32)
    for h in range(GROUP):
        row = head.to(tl.int64) * GROUP + h
        q = tl.load(q_ptr + row * Q_DIM + channel, mask=there, other=0.0).to(tl.float32)
        if SCALED:
            q = q * tl.load(scale_ptr + of_head + r, mask=there, other=0.0)
        tl.store(scores_ptr + row * S + token, tl.sum(labels * q[None, :], axis=1), mask=token < S)


CONFIGS: tuple[dict[str, int], ...] = (
    {"block_s": 512, "num_warps": 4, "num_stages": 1},
    {"block_s": 128, "num_warps": 4, "num_stages": 1},
)
"""Tuning space: tokens of a program. On an H200, B8 H32 S 16k with 8 int8 labels a token: 63.9 us with the first, 69.7 with the
second, of which choosing the largest takes 44."""


@implementation(
    "label_channel_selector", "triton", devices=("cuda",), precisions=("float32",), papers=("double-sparsity",)
)
def prepare(problem: LabelChannelSelector, constants: Tensors, context: Context) -> Run:
    """``context.config`` as in ``CONFIGS``."""
    config = {**CONFIGS[0], **context.config}
    b, heads, kv_heads, s = problem.batch, problem.q_heads, problem.kv_heads, problem.kv_length
    channels = constants["channels"]
    scale = constants.get("scale", channels)  # a pointer that is not read
    scores = torch.empty(b, heads, s, dtype=torch.float32, device=context.device)
    grid = (b * kv_heads, triton.cdiv(s, config["block_s"]))
    meta = {
        "R": problem.channels,
        "GROUP": heads // kv_heads,
        "Q_DIM": problem.head_dim,
        "SCALED": "scale" in constants,
        "BLOCK_S": config["block_s"],
        "BLOCK_R": triton.next_power_of_2(problem.channels),
    }
    options = {"num_warps": config["num_warps"], "num_stages": config["num_stages"]}

    if context.device == "cuda":  # compile here, so that the time is prepare's
        label_scores_kernel.warmup(
            torch.float32, torch.int32, scale.dtype, getattr(torch, problem.label_precision), torch.float32, s, kv_heads,
            grid=grid, **meta, **options,
        )  # fmt: skip
        triton_top_k.warm_up(s, problem.kept)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        label_scores_kernel[grid](
            inputs["q"], channels, scale, inputs["labels"], scores, s, kv_heads, **meta, **options
        )
        triton_top_k.top_k(scores, out)

    return run


def compilations() -> tuple[Compilation, ...]:
    """16 labels of 128 channels: float16 over the tuning space, int8."""
    return (*(_compilation("fp16", config) for config in CONFIGS), _compilation("i8", CONFIGS[0]))


def _compilation(label: str, config: Mapping[str, Any]) -> Compilation:
    pointers = ("q_ptr", "channels_ptr", "scale_ptr", "labels_ptr", "scores_ptr")
    return Compilation(
        kernel=label_scores_kernel,
        label=f"label_channel_selector {label} r16 {config['block_s']}",
        signature={
            "q_ptr": "*fp32",
            "channels_ptr": "*i32",
            "scale_ptr": "*fp32",
            "labels_ptr": f"*{label}",
            "scores_ptr": "*fp32",
            "S": "i32",
            "kv_heads": "i32",
        },
        constexprs={
            "R": 16,
            "GROUP": 4,
            "Q_DIM": 128,
            "SCALED": label == "i8",
            "BLOCK_S": config["block_s"],
            "BLOCK_R": 16,
        },
        num_warps=config["num_warps"],
        num_stages=config["num_stages"],
        aligned=(*pointers, "S"),
    )
