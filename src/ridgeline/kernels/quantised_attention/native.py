"""``quantised_attention`` in C++: exact integer products, softmax and P V in float32 (kernels/native)."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import QuantisedAttention
from ridgeline.kernels.native.build import NativeBuildError, NativeCallError
from ridgeline.kernels.native.quantised_attention import VALUE_TYPES, bind
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation


@implementation("quantised_attention", "native", precisions=("float32",), papers=("sageattention2",))
def prepare(problem: QuantisedAttention, constants: Tensors, context: Context) -> Run:
    """``config``: ``path``, an instruction path. INT4 runs in the form of INT8: the values are held in bytes.

    V of fewer than 32 bits is widened, and P stays in float32: a CPU's vectors have no faster product for them.
    """
    if problem.scores == "float8_e4m3fn":
        raise Unsupported("Q K^T of FP8 scores: the kernel multiplies integers")
    if getattr(torch, problem.values) not in VALUE_TYPES:
        raise Unsupported(f"P V in {problem.values} is counted, not computed: V may be FP8 or a wider float")
    try:
        return bind(problem, context.threads, path=context.config.get("path"))
    except (NativeBuildError, NativeCallError) as error:
        raise Unsupported(str(error)) from None
