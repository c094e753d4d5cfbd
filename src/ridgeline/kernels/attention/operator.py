"""``attention``: inputs, reference and tolerance of softmax and sigmoid attention over grouped heads."""

from __future__ import annotations

import math

import torch

from ridgeline.analytical.operators import Attention
from ridgeline.analytical.operators.attention import SIGMOIDS
from ridgeline.kernels.registry import Operator, Tensors, Tolerance, operator


def attention_case(
    shape: tuple[int, int, int, int, int, int],
    causal: bool,
    transform: str,
    precision: str = "float32",
    window: int | None = None,
) -> Attention:
    """A test problem from (batch, q_heads, kv_heads, q_length, kv_length, head_dim)."""
    batch, q_heads, kv_heads, q_length, kv_length, head_dim = shape
    return Attention(
        batch=batch,
        q_heads=q_heads,
        kv_heads=kv_heads,
        q_length=q_length,
        kv_length=kv_length,
        head_dim=head_dim,
        causal=causal,
        transform=transform,
        precision=precision,
        window=window,
    )


def seen_keys(problem: Attention, query: torch.Tensor) -> torch.Tensor:
    """bool[len(query), S]: which keys the queries of these numbers (0 to T - 1) see."""
    key = torch.arange(problem.kv_length, device=query.device)
    position = query[:, None] + (problem.kv_length - problem.q_length)
    seen = key <= (position if problem.causal else torch.full_like(position, problem.kv_length))
    if problem.window is not None:
        seen = seen & (key > position - problem.window) & (key < position + problem.window)
    return seen


def seen_values(weights: torch.Tensor, seen: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """weights[n, S] values[S, d] over the keys that each row sees, so that no infinity or NaN is hidden and yet counts.

    ``weights`` are 0 where ``seen`` is false.
    """
    finite = values.isfinite().all(dim=1)
    answer = weights @ values.where(finite[:, None], 0.0)
    for key in (~finite).nonzero().flatten().tolist():
        answer[seen[:, key]] += weights[seen[:, key], key, None] * values[key]
    return answer


@operator
class AttentionOperator(Operator):
    """O[batch, q_heads, T, d] of ``q`` [batch, q_heads, T, d] and ``k``, ``v`` [batch, kv_heads, S, d], all normal.

    Query t of T stands at position t + S - T. It sees key s where s <= position if causal, and |s - position| < window
    where there is one; a query that sees no key gives zeros.
    """

    name = "attention"
    baselines = {"cpu": "torch_sdpa", "cuda": "torch_sdpa"}
    # Normal q and k give scores of variance 1, so the weights are of one order and errors do not cancel. Worst seen
    # over the test problems on x86: float32 5e-7, float16 5e-4, bfloat16 4e-3 (scores rounded to the operands' format).
    tolerances = {
        "float32": Tolerance(1e-5, "float32 accumulation over d and S, and exponentials to a few units of 6e-8"),
        "float16": Tolerance(3e-3, "scores, weights and O may each be rounded to float16: 5e-4 relative"),
        "bfloat16": Tolerance(2e-2, "scores, weights and O may each be rounded to bfloat16: 4e-3 relative"),
    }
    test_problems = (
        attention_case((1, 1, 1, 1, 1, 64), False, "softmax"),
        attention_case((2, 4, 2, 33, 65, 64), True, "softmax"),
        attention_case((1, 6, 2, 17, 129, 80), False, "softmax"),
        attention_case((2, 5, 1, 1, 131, 128), True, "softmax"),
        attention_case((2, 6, 3, 37, 13, 64), True, "softmax"),
        attention_case((1, 3, 3, 67, 67, 40), True, "softmax"),
        attention_case((1, 4, 1, 7, 3, 128), True, "softmax", "float16"),
        attention_case((1, 6, 2, 65, 130, 80), True, "softmax", "bfloat16"),
        attention_case((1, 6, 6, 1, 257, 64), False, "softmax", "float16"),
        attention_case((2, 4, 2, 33, 65, 64), True, "sigmoid"),
        attention_case((2, 3, 1, 1, 131, 128), False, "sigmoid"),
        attention_case((1, 6, 2, 37, 13, 40), True, "sigmoid"),
        attention_case((1, 6, 3, 19, 70, 64), True, "sigmoid", "float16"),
        attention_case((1, 2, 2, 65, 67, 80), False, "sigmoid", "bfloat16"),
        attention_case((1, 4, 2, 37, 70, 64), True, "sigmoid_without_bias"),
        attention_case((2, 3, 1, 45, 71, 40), True, "softmax", window=9),
        attention_case((1, 2, 1, 60, 33, 64), False, "softmax", window=12),
    )

    def baseline(self, problem: Attention, device: str) -> str:
        # torch's scaled_dot_product_attention knows no sigmoid.
        return "torch_eager" if problem.transform in SIGMOIDS else super().baseline(problem, device)

    def make_inputs(self, problem: Attention, generator: torch.Generator) -> dict[str, torch.Tensor]:
        dtype = getattr(torch, problem.precision)
        q_shape = (problem.batch, problem.q_heads, problem.q_length, problem.head_dim)
        kv_shape = (problem.batch, problem.kv_heads, problem.kv_length, problem.head_dim)
        return {
            name: torch.randn(shape, generator=generator).to(dtype)
            for name, shape in (("q", q_shape), ("k", kv_shape), ("v", kv_shape))
        }

    def make_output(self, problem: Attention) -> torch.Tensor:
        shape = (problem.batch, problem.q_heads, problem.q_length, problem.head_dim)
        return torch.empty(shape, dtype=getattr(torch, problem.precision))

    def reference(
        self,
        problem: Attention,
        constants: Tensors,
        inputs: Tensors,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        q = inputs["q"].reshape(-1, problem.head_dim)
        out_shape = inputs["q"].shape if rows is None else (len(rows), problem.head_dim)
        if rows is None:
            rows = torch.arange(len(q))
        rows = rows.long()
        group = problem.q_heads // problem.kv_heads
        # Row b H T + h T + t: because kv_heads group = H, (b H + h) // group is b kv_heads + (the KV head of h).
        kv_head = rows // problem.q_length // group
        keys = inputs["k"].reshape(-1, problem.kv_length, problem.head_dim)
        values = inputs["v"].reshape(-1, problem.kv_length, problem.head_dim)
        answer = torch.zeros(len(rows), problem.head_dim, dtype=torch.float64)
        for head in sorted(set(kv_head.tolist())):  # one KV head at a time in float64, whatever the batch
            chosen = (kv_head == head).nonzero().squeeze(1)
            scores = q[rows[chosen]].double() @ keys[head].double().T / math.sqrt(problem.head_dim)
            seen = seen_keys(problem, rows[chosen] % problem.q_length)
            if problem.transform in SIGMOIDS:
                weights = torch.sigmoid(scores + problem.score_bias)
            else:
                weights = torch.softmax(scores.masked_fill_(~seen, -math.inf), dim=-1)
            answer[chosen] = seen_values(weights.masked_fill_(~seen, 0.0), seen, values[head].double())
        return answer.reshape(out_shape)
