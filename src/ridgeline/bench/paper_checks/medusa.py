"""medusa: what is built of it so far, attention under the tree's mask."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ridgeline.bench.paper_checks.frame import Finding, Lab, check

if TYPE_CHECKING:
    from ridgeline.analytical.operators import TreeAttention

TOLERANCE = 1e-5
"""Relative L2 error in float32: what `tree_attention` states."""


@check(
    "medusa",
    "tree-mask-equals-dense",
    kind="correctness",
    states="""Attention under the tree's ancestor mask equals dense attention under the same mask, in every
        implementation, Triton's in its interpreter; and a node's output is that of plain attention over its path""",
)
def tree_mask_equals_dense(lab: Lab) -> Finding:
    from ridgeline.analytical.operators import TreeAttention
    from ridgeline.kernels.interpreted import interpreted_errors
    from ridgeline.kernels.registry import implementations

    # 64 nodes are Medusa's tree of 63 and its root; 37 nodes end inside a word of ancestor bits and inside a tile.
    trees = [
        TreeAttention(batch=1, q_heads=6, kv_heads=2, context=150, nodes=64, head_dim=64, seed=1),
        TreeAttention(batch=2, q_heads=4, kv_heads=4, context=33, nodes=37, head_dim=40, seed=2),
    ]
    paths = max(_worst_path(lab, tree) for tree in trees)
    errors: dict[str, float] = {}
    for found in implementations("tree_attention"):
        if lab.torch_device in found.devices:
            errors[found.name] = max(lab.worst_error("tree_attention", tree, found.name) for tree in trees)
        else:
            lab.sources.add(found.path)
            errors[found.name] = max(interpreted_errors("tree_attention", trees, found.name))
    worst = max(paths, *errors.values())
    text = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    return Finding(
        passed=worst <= TOLERANCE,
        value=worst if math.isfinite(worst) else None,
        threshold=TOLERANCE if math.isfinite(worst) else None,
        text=f"relative error of {text}; dense mask against the path of each node {paths:.1e}",
    )


def _worst_path(lab: Lab, tree: TreeAttention) -> float:
    """Largest relative error of the operator's dense reference against attention over each node's path, unmasked."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from ridgeline.kernels.registry import get_operator

    operator = get_operator("tree_attention")
    constants = operator.make_constants(tree, lab.generator)
    inputs = operator.make_inputs(tree, lab.generator)
    dense = operator.reference(tree, constants, inputs, None)
    q, k, v = (inputs[name].double() for name in ("q", "k", "v"))
    worst = 0.0
    for node in range(tree.nodes):
        path = tree.context + constants["ancestors"][node].nonzero().flatten()
        seen = torch.cat([torch.arange(tree.context), path])
        plain = scaled_dot_product_attention(q[:, :, node, None], k[:, :, seen], v[:, :, seen], enable_gqa=True)
        difference = dense[:, :, node, None] - plain
        worst = max(worst, float(difference.norm() / plain.norm()))
    return worst
