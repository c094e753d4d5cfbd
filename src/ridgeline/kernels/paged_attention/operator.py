"""``paged_attention``: inputs, reference and tolerance of attention over ragged sequences with a paged KV cache."""

from __future__ import annotations

import torch

from ridgeline.analytical.operators import PagedAttention
from ridgeline.analytical.problem import Structure
from ridgeline.kernels.masked_attention import masked_attention
from ridgeline.kernels.registry import Operator, Tensors, Tolerance, Unsupported, operator


def paged_case(
    shape: tuple[int, int, int, int, int, int], page: int, precision: str = "float32", kv_precision: str = ""
) -> PagedAttention:
    """A test problem from (batch, q_heads, kv_heads, q_length, kv_length, head_dim)."""
    batch, q_heads, kv_heads, q_length, kv_length, head_dim = shape
    return PagedAttention(
        batch=batch,
        q_heads=q_heads,
        kv_heads=kv_heads,
        q_length=q_length,
        kv_length=kv_length,
        head_dim=head_dim,
        page=page,
        precision=precision,
        kv_precision=kv_precision,
    )


def last_keys(problem: PagedAttention, lengths: torch.Tensor) -> torch.Tensor:
    """[batch, q_length]: the last key that each query sees; negative where it sees none."""
    steps = torch.arange(1 - problem.q_length, 1, device=lengths.device)
    return lengths[:, None] - 1 + steps


def gathered(pages: torch.Tensor, block_table: torch.Tensor) -> torch.Tensor:
    """Keys or values [batch, kv_heads, most pages * page, d] copied out of their pages, with what fills up the table."""
    batch, most = block_table.shape
    _, heads, page, d = pages.shape
    return pages[block_table.long()].transpose(1, 2).reshape(batch, heads, most * page, d)


@operator
class PagedAttentionOperator(Operator):
    """O[batch, q_heads, T, d] of ``q`` of that shape and of pages ``k``, ``v`` [pages, kv_heads, page, d], all normal.

    ``lengths`` int32[batch]: cached tokens of each sequence. ``block_table`` int32[batch, most pages]: token s of a
    sequence is row s % page of its page number block_table[b, s // page]; pages lie in random order, and what fills
    up a row of the table is 0, a page of some sequence that must not be looked at.
    """

    name = "paged_attention"
    baselines = {"cpu": "torch_sdpa", "cuda": "torch_sdpa"}
    fixed_inputs = frozenset({"block_table", "lengths"})
    # As of `attention`: the same arithmetic.
    tolerances = {
        "float32": Tolerance(1e-5, "float32 accumulation over d and S, and exponentials to a few units of 6e-8"),
        "float16": Tolerance(3e-3, "scores, weights and O may each be rounded to float16: 5e-4 relative"),
        "bfloat16": Tolerance(2e-2, "scores, weights and O may each be rounded to bfloat16: 4e-3 relative"),
    }
    test_problems = (
        paged_case((1, 1, 1, 1, 1, 64), 16),
        paged_case((3, 6, 2, 1, 131, 64), 16),
        paged_case((2, 5, 1, 1, 70, 80), 7),
        paged_case((5, 6, 3, 4, 9, 64), 1),
        paged_case((2, 6, 2, 1, 257, 128), 64, "float16"),
        paged_case((2, 4, 1, 4, 65, 64), 16, "bfloat16"),
        paged_case((3, 4, 2, 2, 90, 40), 32, "float32", "float16"),
    )

    def make_inputs(self, problem: PagedAttention, generator: torch.Generator) -> dict[str, torch.Tensor]:
        kv_precision = problem.kv_precision or problem.precision
        dtype = getattr(torch, problem.precision)
        kv_dtype = getattr(torch, kv_precision, None)
        if kv_dtype is None or not kv_dtype.is_floating_point:
            raise Unsupported(f"paged_attention has keys in floating point, not in {kv_precision}: that needs scales")
        lengths = torch.from_numpy(problem.lengths())
        held = (lengths + problem.page - 1) // problem.page
        count = int(held.sum())
        table = torch.zeros(problem.batch, int(held.max()), dtype=torch.int32)
        used = torch.arange(table.shape[1]) < held[:, None]
        table[used] = torch.randperm(count, generator=generator).int()
        kv_shape = (count, problem.kv_heads, problem.page, problem.head_dim)
        q_shape = (problem.batch, problem.q_heads, problem.q_length, problem.head_dim)
        return {
            "q": torch.randn(q_shape, generator=generator).to(dtype),
            "k": torch.randn(kv_shape, generator=generator).to(kv_dtype),
            "v": torch.randn(kv_shape, generator=generator).to(kv_dtype),
            "block_table": table,
            "lengths": lengths.int(),
        }

    def make_output(self, problem: PagedAttention) -> torch.Tensor:
        shape = (problem.batch, problem.q_heads, problem.q_length, problem.head_dim)
        return torch.empty(shape, dtype=getattr(torch, problem.precision))

    def structure(self, problem: PagedAttention, constants: Tensors, inputs: Tensors) -> Structure:
        """Tokens, pages and pairs of the lengths that ``inputs`` holds."""
        return problem.structure_of(inputs["lengths"].cpu().long().numpy())

    def reference(
        self, problem: PagedAttention, constants: Tensors, inputs: Tensors, rows: torch.Tensor | None
    ) -> torch.Tensor:
        q = inputs["q"].reshape(-1, problem.head_dim)
        out_shape = inputs["q"].shape if rows is None else (len(rows), problem.head_dim)
        rows = torch.arange(len(q)) if rows is None else rows.long()
        kv_row = rows // problem.q_length // (problem.q_heads // problem.kv_heads)  # sequence kv_heads + KV head
        last = last_keys(problem, inputs["lengths"].long())[rows // problem.q_length // problem.q_heads]
        last = last.gather(1, (rows % problem.q_length)[:, None])
        answer = torch.zeros(len(rows), problem.head_dim, dtype=torch.float64)
        for which in sorted(set(kv_row.tolist())):
            chosen = (kv_row == which).nonzero().squeeze(1)
            sequence, head = divmod(which, problem.kv_heads)
            length = int(inputs["lengths"][sequence])
            token = torch.arange(length)
            page = inputs["block_table"][sequence].long()[token // problem.page]
            keys, values = (inputs[name][page, head, token % problem.page] for name in ("k", "v"))
            answer[chosen] = masked_attention(q[rows[chosen]], keys, values, token > last[chosen])
        return answer.reshape(out_shape)
