"""``attention`` by one named kernel behind ``scaled_dot_product_attention``, whatever torch itself would choose.

``torch_flash`` is FlashAttention-2 (Dao 2023) as torch ships it: what many papers state their gains over. ``torch_cudnn``
is NVIDIA's library. CUDA only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import scaled_dot_product_attention

from ridgeline.analytical.operators import Attention
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation

if TYPE_CHECKING:
    from torch.nn.attention import SDPBackend

NONE_TAKES_IT = ("No available kernel", "No viable backend")
"""What torch says where the only backend that it may use does not take the tensors."""


def _only(backend: SDPBackend, problem: Attention) -> Run:
    from torch.nn.attention import sdpa_kernel

    if problem.transform != "softmax":
        raise Unsupported(f"scaled_dot_product_attention computes softmax, not {problem.transform}")
    if problem.window is not None:
        raise Unsupported("scaled_dot_product_attention knows no window")
    # torch aligns is_causal top-left: only here is that bottom-right too.
    if problem.causal and problem.q_length not in (1, problem.kv_length):
        raise Unsupported("a causal mask aligned bottom-right has to be square for it, or of one query")
    causal = problem.causal and problem.q_length > 1
    grouped = problem.q_heads != problem.kv_heads

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        with sdpa_kernel(backend):
            try:
                answer = scaled_dot_product_attention(
                    inputs["q"], inputs["k"], inputs["v"], is_causal=causal, enable_gqa=grouped
                )
            except RuntimeError as error:
                if any(words in str(error) for words in NONE_TAKES_IT):
                    raise Unsupported(f"torch's {backend.name} does not take these tensors on this card") from None
                raise
        out.copy_(answer)

    return run


@implementation("attention", "torch_flash", devices=("cuda",), precisions=("bfloat16", "float16"))
def prepare_flash(problem: Attention, constants: Tensors, context: Context) -> Run:
    """FlashAttention-2."""
    from torch.nn.attention import SDPBackend

    return _only(SDPBackend.FLASH_ATTENTION, problem)


@implementation("attention", "torch_cudnn", devices=("cuda",), precisions=("bfloat16", "float16"))
def prepare_cudnn(problem: Attention, constants: Tensors, context: Context) -> Run:
    """cuDNN's fused attention."""
    from torch.nn.attention import SDPBackend

    return _only(SDPBackend.CUDNN_ATTENTION, problem)
