"""``attention_quantiser`` in C++ for queries and keys: AVX-512, AVX2 or portable (kernels/native)."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import AttentionQuantiser
from ridgeline.kernels.native.attention_quantiser import bind_quantiser
from ridgeline.kernels.native.build import NativeBuildError, NativeCallError
from ridgeline.kernels.quantised_attention.quantise import LARGEST, SCALE_FLOOR
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation


@implementation("attention_quantiser", "native", precisions=("float32",), papers=("sageattention2",))
def prepare(problem: AttentionQuantiser, constants: Tensors, context: Context) -> Run:
    """``config``: ``path``, an instruction path."""
    if problem.to == "float8_e4m3fn":
        raise Unsupported("FP8: the kernel writes integers")
    try:
        bound = bind_quantiser(
            problem, LARGEST[problem.to], SCALE_FLOOR, context.threads, path=context.config.get("path")
        )
    except (NativeBuildError, NativeCallError) as error:
        raise Unsupported(str(error)) from None

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        bound.run(inputs["x"], out)

    return run
