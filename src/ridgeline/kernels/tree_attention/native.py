"""``tree_attention`` in C++: the loop of ``attention``, with the tree as a mask of bits over the last keys."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import TreeAttention
from ridgeline.kernels.native.attention import NativeAttention
from ridgeline.kernels.native.attention_tiles import Shape
from ridgeline.kernels.native.build import NativeBuildError, NativeCallError
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, implementation


@implementation("tree_attention", "native", precisions=("float32",), papers=("medusa",))
def prepare(problem: TreeAttention, constants: Tensors, context: Context) -> Run:
    """Online softmax; blocks of keys before the tree are not masked."""
    shape = Shape(
        problem.batch, problem.q_heads, problem.kv_heads, problem.nodes, problem.context + problem.nodes,
        problem.head_dim,
    )  # fmt: skip
    try:
        kernel = NativeAttention(shape, tree=constants["ancestors"].cpu(), threads=context.threads)
    except (NativeBuildError, NativeCallError) as error:
        raise Unsupported(str(error)) from None

    def run(inputs: Tensors, out: torch.Tensor) -> None:
        kernel(inputs["q"], inputs["k"], inputs["v"], out)

    return run
