"""``token_gather_attention`` in C++: AVX-512, AVX2 or portable, chosen at run time, on a pool of pinned threads."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import TokenGatherAttention
from ridgeline.kernels.native.build import NativeBuildError, NativeCallError
from ridgeline.kernels.native.token_gather import token_gather_attention, token_gather_paths
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation


@implementation(
    "token_gather_attention",
    "native",
    precisions=("float32",),
    papers=("double-sparsity", "squeezed-attention", "a2ats"),
)
def prepare(problem: TokenGatherAttention, constants: Tensors, context: Context) -> Run:
    """All lists end to end are cut into one piece for each thread; a list that a cut goes through is reduced."""
    try:
        token_gather_paths()
    except (NativeBuildError, NativeCallError) as error:
        raise Unsupported(str(error)) from None

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        token_gather_attention(
            inputs["q"], inputs["k"], inputs["v"], inputs["row_starts"], inputs["tokens"], out, context.threads
        )

    return run
