"""``block_sparse_attention``: inputs, index, reference and tolerance of attention over listed blocks and columns."""

from __future__ import annotations

import math
from typing import Any

import torch

from ridgeline.analytical.operators import BlockSparseAttention
from ridgeline.analytical.problem import Structure
from ridgeline.kernels.block_sparse_attention.index import BlockIndex, build_index, structure_of
from ridgeline.kernels.registry import Operator, Tensors, Tolerance, operator

INDEX_INPUTS = ("row_starts", "block_keys", "column_starts", "columns")


def block_sparse_case(
    shape: tuple[int, int, int, int, int, int], precision: str = "float32", **pattern: Any
) -> BlockSparseAttention:
    """A test problem from (batch, q_heads, kv_heads, length, head_dim, block) and the parameters of its pattern."""
    batch, q_heads, kv_heads, length, head_dim, block = shape
    return BlockSparseAttention(
        batch=batch, q_heads=q_heads, kv_heads=kv_heads, length=length, head_dim=head_dim, block=block,
        precision=precision, **pattern,
    )  # fmt: skip


def index_of(inputs: Tensors) -> BlockIndex:
    """The index among ``inputs``, as arrays."""
    return BlockIndex(**{name: inputs[name].cpu().numpy() for name in INDEX_INPUTS if name in inputs})


def index_tensors(index: BlockIndex) -> dict[str, torch.Tensor]:
    """The index as inputs of the operator."""
    return {name: torch.from_numpy(array) for name, array in index.arrays().items()}


def kept_keys(problem: BlockSparseAttention, inputs: Tensors, head: int) -> torch.Tensor:
    """bool[block_rows, length]: what the rows of one of the batch q_heads heads list, before the causal mask."""
    keys, rows = problem.length, problem.block_rows
    starts = inputs["row_starts"][head].long()
    first = inputs["block_keys"][int(starts[0]) : int(starts[-1])].long()
    row = torch.arange(rows, device=first.device).repeat_interleave(starts.diff())
    # One more where a block begins, one less where it ends: inside of one, the running sum is positive.
    edges = torch.zeros(rows * (keys + 1), dtype=torch.int32, device=first.device)
    for at, step in ((first, 1), ((first + problem.block).clamp(max=keys), -1)):
        edges.index_add_(0, row * (keys + 1) + at, torch.full_like(at, step, dtype=torch.int32))
    kept = edges.view(rows, keys + 1).cumsum(1)[:, :keys] > 0
    if "columns" in inputs:
        starts = inputs["column_starts"][head].long()
        row = torch.arange(rows, device=first.device).repeat_interleave(starts.diff())
        kept[row, inputs["columns"][int(starts[0]) : int(starts[-1])].long()] = True
    return kept


def expanded_mask(problem: BlockSparseAttention, inputs: Tensors, head: int) -> torch.Tensor:
    """bool[q_length, length] of one head: which keys each query sees."""
    mask = kept_keys(problem, inputs, head).repeat_interleave(problem.block, 0)[: problem.queries]
    return mask.tril_(problem.past) if problem.causal else mask


@operator
class BlockSparseAttentionOperator(Operator):
    """O[batch, q_heads, T, d] of ``q`` [batch, q_heads, T, d] and ``k``, ``v`` [batch, kv_heads, S, d], all normal.

    ``row_starts`` [batch q_heads, rows + 1] and ``block_keys`` say which blocks of keys each block of queries sees;
    with the pattern ``lines``, ``column_starts`` and ``columns`` say which single keys. The index is drawn with the
    problem's seed, so that all sets of inputs have the same one.
    """

    name = "block_sparse_attention"
    baselines = {"cpu": "torch_masked", "cuda": "torch_masked"}
    fixed_inputs = frozenset(INDEX_INPUTS)
    # As of dense attention: fewer terms in each sum change nothing in how they are rounded.
    tolerances = {
        "float32": Tolerance(1e-5, "float32 accumulation over d and the kept keys, and exponentials to a few units"),
        "float16": Tolerance(3e-3, "scores, weights and O may each be rounded to float16: 5e-4 relative"),
        "bfloat16": Tolerance(2e-2, "scores, weights and O may each be rounded to bfloat16: 4e-3 relative"),
    }
    test_problems = (
        block_sparse_case((2, 4, 2, 200, 64, 64), pattern="random", density=0.4),
        block_sparse_case((1, 3, 3, 150, 40, 32), pattern="random", density=0.3, causal=False),
        block_sparse_case((1, 6, 2, 333, 80, 64), pattern="strided", local=2, stride=2, dense_heads=1),
        block_sparse_case((2, 4, 4, 256, 64, 64), pattern="strided", local=1, stride=3, q_length=64),
        block_sparse_case((1, 5, 1, 300, 128, 64), pattern="lines", columns=40, diagonals=103),
        block_sparse_case((1, 2, 2, 331, 64, 64), pattern="lines", columns=35, diagonals=3, q_length=75),
        block_sparse_case((1, 2, 1, 130, 64, 64), "float16", pattern="strided", local=1, stride=2),
        block_sparse_case((1, 2, 2, 190, 64, 64), "bfloat16", pattern="lines", columns=40, diagonals=5),
    )

    def make_inputs(self, problem: BlockSparseAttention, generator: torch.Generator) -> dict[str, torch.Tensor]:
        dtype = getattr(torch, problem.precision)
        kv = (problem.batch, problem.kv_heads, problem.length, problem.head_dim)
        q = (problem.batch, problem.q_heads, problem.queries, problem.head_dim)
        made = {
            name: torch.randn(shape, generator=generator).to(dtype) for name, shape in (("q", q), ("k", kv), ("v", kv))
        }
        return made | index_tensors(build_index(problem))

    def structure(self, problem: BlockSparseAttention, constants: Tensors, inputs: Tensors) -> Structure:
        return structure_of(problem, index_of(inputs))

    def make_output(self, problem: BlockSparseAttention) -> torch.Tensor:
        shape = (problem.batch, problem.q_heads, problem.queries, problem.head_dim)
        return torch.empty(shape, dtype=getattr(torch, problem.precision))

    def reference(
        self,
        problem: BlockSparseAttention,
        constants: Tensors,
        inputs: Tensors,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """Dense attention in float64 under the mask that the index expands to."""
        q = inputs["q"].reshape(-1, problem.head_dim)
        out_shape = inputs["q"].shape if rows is None else (len(rows), problem.head_dim)
        rows = torch.arange(len(q)) if rows is None else rows.long()
        head = rows // problem.queries
        keys = inputs["k"].reshape(-1, problem.length, problem.head_dim)
        values = inputs["v"].reshape(-1, problem.length, problem.head_dim)
        answer = torch.zeros(len(rows), problem.head_dim, dtype=torch.float64)
        for one in sorted(set(head.tolist())):
            chosen = (head == one).nonzero().squeeze(1)
            query = rows[chosen] % problem.queries
            seen = kept_keys(problem, inputs, one)[query // problem.block]
            if problem.causal:
                seen &= torch.arange(problem.length) <= (query + problem.past)[:, None]
            kv_head = one // (problem.q_heads // problem.kv_heads)
            scores = q[rows[chosen]].double() @ keys[kv_head].double().T / math.sqrt(problem.head_dim)
            weights = torch.softmax(scores.masked_fill_(~seen, -math.inf), dim=-1)  # every query sees its own key
            answer[chosen] = weights @ values[kv_head].double()
        return answer.reshape(out_shape)
