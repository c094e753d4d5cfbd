"""``paged_attention`` in C++: the loop of ``attention``, with keys and values found through the block table."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import PagedAttention
from ridgeline.kernels.native.attention import NativeAttention, Pages
from ridgeline.kernels.native.attention_tiles import Shape
from ridgeline.kernels.native.build import NativeBuildError, NativeCallError
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation


@implementation("paged_attention", "native", precisions=("float32",))
def prepare(problem: PagedAttention, constants: Tensors, context: Context) -> Run:
    """Online softmax; a work item is a sequence's KV head, so ragged lengths are shared out as threads become free."""
    if problem.kv_precision not in ("", "float32"):
        raise Unsupported(f"keys and values are float32, not {problem.kv_precision}")
    shape = Shape(
        problem.batch, problem.q_heads, problem.kv_heads, problem.q_length, problem.kv_length, problem.head_dim
    )
    try:
        kernel = NativeAttention(shape, causal=True, pages=Pages(problem.page), threads=context.threads)
    except (NativeBuildError, NativeCallError) as error:
        raise Unsupported(str(error)) from None

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        kernel(
            inputs["q"], inputs["k"], inputs["v"], out,
            kv_lengths=inputs["lengths"], block_table=inputs["block_table"],
        )  # fmt: skip

    return run
