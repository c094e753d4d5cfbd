"""``tree_attention``: inputs, reference and tolerance of the verification of a drafted tree (Medusa, Cai et al. 2024)."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import TreeAttention
from ridgeline.analytical.problem import Structure
from ridgeline.kernels.masked_attention import masked_attention
from ridgeline.kernels.registry import Operator, Tensors, Tolerance, operator


def tree_case(shape: tuple[int, int, int, int, int, int], precision: str = "float32", seed: int = 1) -> TreeAttention:
    """A test problem from (batch, q_heads, kv_heads, context, nodes, head_dim)."""
    batch, q_heads, kv_heads, context, nodes, head_dim = shape
    return TreeAttention(
        batch=batch,
        q_heads=q_heads,
        kv_heads=kv_heads,
        context=context,
        nodes=nodes,
        head_dim=head_dim,
        precision=precision,
        seed=seed,
    )


def hidden_keys(problem: TreeAttention, ancestors: torch.Tensor) -> torch.Tensor:
    """bool[nodes, context + nodes], true where a node does not see a key: no ancestor's, and not its own."""
    return torch.cat([ancestors.new_zeros(problem.nodes, problem.context), ~ancestors], dim=1)


@operator
class TreeAttentionOperator(Operator):
    """O[batch, q_heads, n, d] of ``q`` of that shape and ``k``, ``v`` [batch, kv_heads, context + n, d], all normal.

    Constant ``ancestors`` bool[n, n]: whether the node of the row sees that of the column, an ancestor or itself. The
    tree is the problem's; every node sees the whole context.
    """

    name = "tree_attention"
    baselines = {"cpu": "torch_sdpa", "cuda": "torch_sdpa"}
    # As of `attention`: the same arithmetic.
    tolerances = {
        "float32": Tolerance(1e-5, "float32 accumulation over d and S, and exponentials to a few units of 6e-8"),
        "float16": Tolerance(3e-3, "scores, weights and O may each be rounded to float16: 5e-4 relative"),
        "bfloat16": Tolerance(2e-2, "scores, weights and O may each be rounded to bfloat16: 4e-3 relative"),
    }
    test_problems = (
        tree_case((1, 1, 1, 1, 1, 64)),
        tree_case((2, 4, 2, 37, 26, 64)),
        tree_case((1, 6, 2, 129, 64, 80), seed=2),
        tree_case((1, 5, 1, 3, 67, 40)),
        tree_case((1, 6, 2, 70, 33, 128), "float16"),
        tree_case((2, 4, 4, 33, 9, 64), "bfloat16", seed=3),
    )

    def make_constants(self, problem: TreeAttention, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"ancestors": torch.from_numpy(problem.ancestors())}

    def make_inputs(self, problem: TreeAttention, generator: torch.Generator) -> dict[str, torch.Tensor]:
        dtype = getattr(torch, problem.precision)
        q_shape = (problem.batch, problem.q_heads, problem.nodes, problem.head_dim)
        kv_shape = (problem.batch, problem.kv_heads, problem.context + problem.nodes, problem.head_dim)
        return {
            name: torch.randn(shape, generator=generator).to(dtype)
            for name, shape in (("q", q_shape), ("k", kv_shape), ("v", kv_shape))
        }

    def make_output(self, problem: TreeAttention) -> torch.Tensor:
        shape = (problem.batch, problem.q_heads, problem.nodes, problem.head_dim)
        return torch.empty(shape, dtype=getattr(torch, problem.precision))

    def structure(self, problem: TreeAttention, constants: Tensors, inputs: Tensors) -> Structure:
        """Ancestors of the tree that ``constants`` holds."""
        return problem.structure_of(constants["ancestors"].cpu().numpy())

    def reference(
        self, problem: TreeAttention, constants: Tensors, inputs: Tensors, rows: torch.Tensor | None
    ) -> torch.Tensor:
        q = inputs["q"].reshape(-1, problem.head_dim)
        out_shape = inputs["q"].shape if rows is None else (len(rows), problem.head_dim)
        rows = torch.arange(len(q)) if rows is None else rows.long()
        kv_row = rows // problem.nodes // (problem.q_heads // problem.kv_heads)
        hidden = hidden_keys(problem, constants["ancestors"].cpu())
        keys, values = (inputs[name].flatten(0, 1) for name in ("k", "v"))
        answer = torch.zeros(len(rows), problem.head_dim, dtype=torch.float64)
        for which in sorted(set(kv_row.tolist())):
            chosen = (kv_row == which).nonzero().squeeze(1)
            mask = hidden[rows[chosen] % problem.nodes]
            answer[chosen] = masked_attention(q[rows[chosen]], keys[which], values[which], mask)
        return answer.reshape(out_shape)
