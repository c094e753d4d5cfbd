"""The three selectors in C++: AVX-512, AVX2 or portable, chosen at run time, on a pool of pinned threads.

Products are cut evenly among the threads, choices by query head. Scores go through a buffer of each prepared state.
"""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import CentroidSelector, CodebookSelector, LabelChannelSelector
from ridgeline.kernels.native.build import NativeBuildError, NativeCallError
from ridgeline.kernels.native.token_select import token_mask, token_products, token_select_paths, token_top_k
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation


def _there() -> None:
    try:
        token_select_paths()
    except (NativeBuildError, NativeCallError) as error:
        raise Unsupported(str(error)) from None


@implementation("label_channel_selector", "native", precisions=("float32",), papers=("double-sparsity",))
def prepare_labels(problem: LabelChannelSelector, constants: Tensors, context: Context) -> Run:
    """Labels of 8 bits are widened in registers; the k largest by a histogram of the scores' highest bits."""
    if problem.label_precision not in ("float32", "int8"):
        raise Unsupported(f"reads labels of float32 and int8, not {problem.label_precision}")
    _there()
    scores = torch.empty(problem.batch, problem.q_heads, problem.kv_length)
    channels, scale = constants["channels"], constants.get("scale")

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        token_products(inputs["q"], inputs["labels"], scores, context.threads, channels=channels, scales=scale)
        token_top_k(scores, out, context.threads)

    return run


@implementation("centroid_selector", "native", precisions=("float32",), papers=("squeezed-attention",))
def prepare_centroids(problem: CentroidSelector, constants: Tensors, context: Context) -> Run:
    """Scores are compared in logarithms, so that one too small for float32 is still above a threshold of 0."""
    _there()
    logits = torch.empty(problem.batch, problem.q_heads, problem.centroids)
    threshold = float(constants["threshold"])

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        token_products(inputs["q"], inputs["centroids"], logits, context.threads)
        token_mask(logits, inputs["sizes"], inputs["assignment"], threshold, problem.head_dim, out, context.threads)

    return run


@implementation("codebook_selector", "native", precisions=("float32",), papers=("a2ats",))
def prepare_codes(problem: CodebookSelector, constants: Tensors, context: Context) -> Run:
    """Scores of codewords become whole numbers in their order before tokens look them up."""
    _there()
    by_code = torch.empty(problem.batch, problem.q_heads, problem.codes)
    words = constants["codebook"]

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        token_products(inputs["q"], words, by_code, context.threads)
        token_top_k(by_code, out, context.threads, codes=inputs["codes"], sinks=problem.sinks, window=problem.window)

    return run
