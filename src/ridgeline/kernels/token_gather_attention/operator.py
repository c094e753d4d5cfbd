"""``token_gather_attention``: inputs, reference and tolerance of decode over a list of tokens for each query head."""

from __future__ import annotations

import hashlib
import math

import torch

from ridgeline.analytical.operators import TokenGatherAttention
from ridgeline.analytical.problem import Structure
from ridgeline.kernels.registry import Operator, Tensors, Tolerance, operator


def gather_case(
    shape: tuple[int, int, int, int, int, int], spread: float = 0.0, precision: str = "float32"
) -> TokenGatherAttention:
    """A test problem from (batch, q_heads, kv_heads, kv_length, kept, head_dim)."""
    batch, q_heads, kv_heads, kv_length, kept, head_dim = shape
    return TokenGatherAttention(
        batch=batch,
        q_heads=q_heads,
        kv_heads=kv_heads,
        kv_length=kv_length,
        kept=kept,
        head_dim=head_dim,
        spread=spread,
        precision=precision,
    )


def drawn_lists(problem: TokenGatherAttention) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each list starts, int32 [B H + 1], and the token ids of all lists, int32, each list in order."""
    generator = torch.Generator().manual_seed(problem.seed)
    rows, widest = problem.batch * problem.q_heads, problem.widest
    lengths = problem.kept + torch.randint(-widest, widest + 1, (rows,), generator=generator)
    starts = torch.zeros(rows + 1, dtype=torch.int32)
    starts[1:] = lengths.cumsum(0)
    lists = [
        torch.randperm(problem.kv_length, generator=generator)[:length].sort().values for length in lengths.tolist()
    ]
    return starts, torch.cat(lists).to(torch.int32)


def lists_structure(row_starts: torch.Tensor, tokens: torch.Tensor, kv_groups: int, kv_length: int) -> Structure:
    """Figures of lists: ``kept_pairs``, their lengths; ``kept_keys``, different tokens of each of ``kv_groups`` KV heads."""
    lengths = row_starts.long().diff()
    kv_head = torch.repeat_interleave(torch.arange(len(lengths)) // (len(lengths) // kv_groups), lengths)
    kept = torch.zeros(kv_groups * kv_length, dtype=torch.bool)
    kept[kv_head * kv_length + tokens.long()] = True
    digest = hashlib.sha256(row_starts.numpy().tobytes() + tokens.numpy().tobytes()).hexdigest()[:16]
    return Structure({"kept_keys": float(kept.sum()), "kept_pairs": float(len(tokens))}, digest)


@operator
class TokenGatherAttentionOperator(Operator):
    """O[batch, q_heads, d] of ``q`` [batch, q_heads, d] and the listed tokens of ``k``, ``v`` [batch, kv_heads, S, d].

    The list of query head h of sequence b is ``tokens[row_starts[r] : row_starts[r + 1]]`` with r = b q_heads + h, int32;
    a head without tokens gives zeros.
    """

    name = "token_gather_attention"
    baselines = {"cpu": "torch_masked_sdpa", "cuda": "torch_masked_sdpa"}
    fixed_inputs = frozenset({"row_starts", "tokens"})
    # As dense attention: normal q and k, so weights of one order. Worst seen over the test problems on x86: float32
    # 3e-7, float16 5e-4, bfloat16 4e-3.
    tolerances = {
        "float32": Tolerance(1e-5, "float32 accumulation over d and the list, and exponentials to a few units of 6e-8"),
        "float16": Tolerance(3e-3, "scores, weights and O may each be rounded to float16: 5e-4 relative"),
        "bfloat16": Tolerance(2e-2, "scores, weights and O may each be rounded to bfloat16: 4e-3 relative"),
    }
    test_problems = (
        gather_case((1, 1, 1, 1, 1, 64)),
        gather_case((2, 4, 2, 65, 9, 64)),
        gather_case((1, 6, 2, 131, 37, 80), 1.0),
        gather_case((1, 5, 1, 70, 33, 128), 0.7),
        gather_case((1, 3, 3, 300, 300, 40)),
        gather_case((2, 3, 3, 40, 2, 24), 1.0),  # some lists are empty
        gather_case((1, 6, 3, 90, 40, 64), 0.5, "float16"),
        gather_case((1, 4, 1, 130, 30, 80), 0.5, "bfloat16"),
        gather_case((1, 4, 4, 67, 20, 64), 0.0, "float16"),
        gather_case((1, 2, 2, 67, 20, 72), 0.0, "bfloat16"),
    )

    def make_inputs(self, problem: TokenGatherAttention, generator: torch.Generator) -> dict[str, torch.Tensor]:
        dtype = getattr(torch, problem.precision)
        kv_shape = (problem.batch, problem.kv_heads, problem.kv_length, problem.head_dim)
        inputs = {
            name: torch.randn(shape, generator=generator).to(dtype)
            for name, shape in (
                ("q", (problem.batch, problem.q_heads, problem.head_dim)),
                ("k", kv_shape),
                ("v", kv_shape),
            )
        }
        inputs["row_starts"], inputs["tokens"] = drawn_lists(problem)
        return inputs

    def make_output(self, problem: TokenGatherAttention) -> torch.Tensor:
        shape = (problem.batch, problem.q_heads, problem.head_dim)
        return torch.empty(shape, dtype=getattr(torch, problem.precision))

    def structure(self, problem: TokenGatherAttention, constants: Tensors, inputs: Tensors) -> Structure:
        groups = problem.batch * problem.kv_heads
        return lists_structure(inputs["row_starts"], inputs["tokens"], groups, problem.kv_length)

    def reference(
        self, problem: TokenGatherAttention, constants: Tensors, inputs: Tensors, rows: torch.Tensor | None
    ) -> torch.Tensor:
        shape = inputs["q"].shape if rows is None else (len(rows), problem.head_dim)
        q = inputs["q"].reshape(-1, problem.head_dim)
        group = problem.q_heads // problem.kv_heads
        keys = inputs["k"].reshape(-1, problem.kv_length, problem.head_dim)
        values = inputs["v"].reshape(-1, problem.kv_length, problem.head_dim)
        starts, tokens = inputs["row_starts"].tolist(), inputs["tokens"].long()
        answers = []
        for row in range(len(q)) if rows is None else rows.tolist():
            listed = tokens[starts[row] : starts[row + 1]]
            scores = keys[row // group, listed].double() @ q[row].double() / math.sqrt(problem.head_dim)
            answers.append(torch.softmax(scores, 0) @ values[row // group, listed].double())
        return torch.stack(answers).reshape(shape)
