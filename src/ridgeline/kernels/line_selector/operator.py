"""``line_selector``: planted inputs, exact reference."""

from __future__ import annotations

import math

import torch

from ridgeline.analytical.operators import LineSelector
from ridgeline.analytical.operators.block_sparse_attention import LOCAL_DIAGONALS, SINK_COLUMNS
from ridgeline.kernels.line_selector.planted import planted_lines
from ridgeline.kernels.registry import Operator, Tensors, Tolerance, operator


def line_selector_case(
    shape: tuple[int, int, int, int, int], columns: int, diagonals: int, precision: str = "float32"
) -> LineSelector:
    """A test problem from (batch, q_heads, kv_heads, length, head_dim)."""
    batch, q_heads, kv_heads, length, head_dim = shape
    return LineSelector(
        batch=batch, q_heads=q_heads, kv_heads=kv_heads, length=length, head_dim=head_dim, columns=columns,
        diagonals=diagonals, precision=precision,
    )  # fmt: skip


def last_scores(problem: LineSelector, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """[batch, q_heads, last_queries, length]: scores of the last queries, -inf at keys that they do not see."""
    last, group = problem.last_queries, problem.q_heads // problem.kv_heads
    queries = q[:, :, problem.length - last :].reshape(problem.batch, problem.kv_heads, group * last, problem.head_dim)
    scores = (queries @ k.transpose(-1, -2)).view(problem.batch, problem.q_heads, last, problem.length)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) / math.sqrt(problem.head_dim)
    hidden = torch.ones(last, last, dtype=torch.bool, device=q.device).triu(1)
    scores[..., problem.length - last :].masked_fill_(hidden, -math.inf)
    return scores


def line_sums(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [..., last queries, length] added up by key, and by distance from query to key: [..., length] each."""
    *heads, last, length = weights.shape
    # Zeros before the first key, and rows read one element later each: a distance becomes a column.
    padded = torch.nn.functional.pad(weights.reshape(-1, last, length), (last - 1, 0))
    slanted = padded.as_strided(
        (padded.shape[0], last, length), (last * padded.shape[2], padded.shape[2] + 1, 1), padded.storage_offset()
    )
    return weights.sum(-2), slanted.sum(1).flip(-1).view(*heads, length)


def chosen_lines(problem: LineSelector, weights: torch.Tensor) -> torch.Tensor:
    """int64[..., columns + diagonals]: the chosen columns, ascending, then the chosen distances."""
    columns, distances = line_sums(weights)
    columns[..., :SINK_COLUMNS] = math.inf
    distances[..., :LOCAL_DIAGONALS] = math.inf
    chosen = [
        sums.topk(count, sorted=False).indices.sort().values
        for sums, count in ((columns, problem.columns), (distances, problem.diagonals))
    ]
    return torch.cat(chosen, dim=-1)


@operator
class LineSelectorOperator(Operator):
    """int32[batch, q_heads, columns + diagonals] of ``q`` [batch, q_heads, S, d] and ``k`` [batch, kv_heads, S, d].

    As many lines are planted as are asked for beyond those always chosen, so that the choice is clear in any
    precision. Rolled elements would tear the lines: the inputs are fixed.
    """

    name = "line_selector"
    baselines = {"cpu": "torch", "cuda": "torch"}
    fixed_inputs = frozenset({"q", "k"})
    tolerances = dict.fromkeys(
        ("float32", "float16", "bfloat16"),
        Tolerance(0.0, "numbers of lines: planted ones outweigh the others by far more than any rounding"),
    )
    test_problems = (
        line_selector_case((1, 2, 2, 300, 64), 40, 104),
        line_selector_case((2, 6, 2, 257, 32), 33, 102),
        line_selector_case((1, 5, 1, 500, 128), 30, 108),
        line_selector_case((1, 2, 1, 400, 64), 35, 103, "float16"),
        line_selector_case((1, 2, 2, 411, 64), 34, 100, "bfloat16"),
    )

    def make_inputs(self, problem: LineSelector, generator: torch.Generator) -> dict[str, torch.Tensor]:
        planted = planted_lines(problem, generator)
        dtype = getattr(torch, problem.precision)
        return {"q": planted.q.to(dtype), "k": planted.k.to(dtype)}

    def make_output(self, problem: LineSelector) -> torch.Tensor:
        return torch.empty(problem.batch, problem.q_heads, problem.columns + problem.diagonals, dtype=torch.int32)

    def reference(
        self,
        problem: LineSelector,
        constants: Tensors,
        inputs: Tensors,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        weights = last_scores(problem, inputs["q"].double(), inputs["k"].double()).softmax(-1)
        chosen = chosen_lines(problem, weights).double()
        return chosen if rows is None else chosen.reshape(-1, chosen.shape[-1])[rows.long()]
