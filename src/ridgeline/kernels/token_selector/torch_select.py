"""The three selectors in torch: products, the largest by ``topk``, look-ups by ``gather``."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import CentroidSelector, CodebookSelector, LabelChannelSelector
from ridgeline.kernels.registry import Context, Run, Tensors, implementation
from ridgeline.kernels.token_selector.centroids import cluster_logits, kept_tokens, log_scores
from ridgeline.kernels.token_selector.lists import lists_of_top_k


@implementation("label_channel_selector", "torch_top_k", devices=("cpu", "cuda"), precisions=("float32",))
def prepare_labels(problem: LabelChannelSelector, constants: Tensors, context: Context) -> Run:
    """Labels are widened to float32 in every call, where they are not."""
    b, heads, kv_heads, r = problem.batch, problem.q_heads, problem.kv_heads, problem.channels
    group = heads // kv_heads
    channels = constants["channels"].long().repeat_interleave(group, 0).expand(b, heads, r).contiguous()
    scale = constants["scale"].repeat_interleave(group, 0) if "scale" in constants else None

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        short = inputs["q"].gather(-1, channels)
        if scale is not None:
            short = short * scale
        labels = inputs["labels"].float()
        scores = short.view(b, kv_heads, group, r) @ labels.transpose(-1, -2)
        out.copy_(lists_of_top_k(scores.view(b, heads, -1), problem.kept))

    return run


@implementation("centroid_selector", "torch_threshold", devices=("cpu", "cuda"), precisions=("float32", "float16"))
def prepare_centroids(problem: CentroidSelector, constants: Tensors, context: Context) -> Run:
    """Scores in logarithms and float32, then a look-up of each token's cluster."""
    threshold = float(constants["threshold"])

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        logits = cluster_logits(inputs["q"].float()[:, :, None], inputs["centroids"].float())
        scores = log_scores(logits, inputs["sizes"])[:, :, 0]
        out.copy_(kept_tokens(scores, inputs["assignment"], threshold))

    return run


@implementation("codebook_selector", "torch_codes", devices=("cpu", "cuda"), precisions=("float32",))
def prepare_codes(problem: CodebookSelector, constants: Tensors, context: Context) -> Run:
    """Scores of all codewords, gathered by each token's code."""
    b, heads, kv_heads, s = problem.batch, problem.q_heads, problem.kv_heads, problem.kv_length
    group, sinks, last = heads // kv_heads, problem.sinks, s - problem.window
    words = constants["codebook"].transpose(-1, -2)
    first = torch.arange(sinks, dtype=torch.int32, device=context.device)
    window = torch.arange(last, s, dtype=torch.int32, device=context.device)

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        by_code = (inputs["q"].view(b, kv_heads, group, -1) @ words).view(b, heads, -1)
        codes = inputs["codes"][..., sinks:last].long().repeat_interleave(group, 1)
        out[..., :sinks] = first
        out[..., sinks : sinks + problem.kept] = lists_of_top_k(by_code.gather(-1, codes), problem.kept) + sinks
        out[..., sinks + problem.kept :] = window

    return run
