"""What the checks of block-sparse prefill share: the dense side, and the roofline's reason for a ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ridgeline.bench.paper_checks.frame import Finding
from ridgeline.bench.paper_checks.lab import Lab, Ratio, Side

if TYPE_CHECKING:
    from ridgeline.analytical.operators import Attention, BlockSparseAttention
    from ridgeline.kernels.registry import Tensors

DENSE = ("torch_sdpa", "native", "native_unified_max")
"""Dense implementations that can be the strongest at 8192 tokens. Eager and compiled torch write the whole score matrix."""
TOLERANCE = 1e-5
"""Accepted relative error in float32: the rows of the papers ask for it."""
RANKED_AT = 2048
"""Tokens at which the dense implementations are ranked: a sixteenth of the time that 8192 take."""
RATIO_BUDGET_S = 20.0
"""One quad of dense attention over 8192 tokens takes 3 to 5 s on two threads."""


def dense_problem(problem: BlockSparseAttention) -> Attention:
    """Dense causal attention of the same shape."""
    from ridgeline.analytical.operators import Attention

    return Attention(
        batch=problem.batch, q_heads=problem.q_heads, kv_heads=problem.kv_heads, q_length=problem.queries,
        kv_length=problem.length, head_dim=problem.head_dim, causal=True, precision=problem.precision,
    )  # fmt: skip


def strongest_dense(lab: Lab, problem: BlockSparseAttention) -> Side:
    """The fastest dense causal attention registered for this device."""
    from ridgeline.kernels.registry import implementations

    ranked = dense_problem(replace(problem, length=RANKED_AT))
    registered = {i.name for i in implementations("attention") if lab.torch_device in i.devices}
    best = lab.strongest([lab.implementation("attention", ranked, name) for name in DENSE if name in registered])
    return lab.implementation("attention", dense_problem(problem), best.label)


def gflop_per_s(problem: BlockSparseAttention, ratio: Ratio, pairs: float) -> tuple[float, float]:
    """Rates of the dense and of the sparse side, 1e9 operations on unmasked pairs a second."""
    flop = 4.0 * problem.head_dim
    return flop * problem.dense_pairs / ratio.slow_s / 1e9, flop * pairs / ratio.fast_s / 1e9


def error_against_masked(lab: Lab, problem: BlockSparseAttention, name: str) -> float:
    """Relative L2 error of implementation ``name`` against dense attention under the expanded mask, over the whole output.

    Both float32; the masked one is torch's.
    """
    import torch

    from ridgeline.kernels.registry import Context, get_implementation, get_operator

    operator = get_operator("block_sparse_attention")
    inputs: Tensors = operator.make_inputs(problem, lab.generator)
    outs: list[torch.Tensor] = []
    for implementation in (name, "torch_masked"):
        side = lab.implementation("block_sparse_attention", problem, implementation)
        outs.append(operator.make_output(problem).fill_(float("nan")))
        get_implementation("block_sparse_attention", side.implementation.name).prepare(
            problem, {}, Context(lab.torch_device, lab.threads)
        )(inputs, outs[-1])
    return float((outs[0] - outs[1]).norm() / outs[1].norm())


def equal_to_masked(lab: Lab, shapes: Sequence[BlockSparseAttention], small: Sequence[BlockSparseAttention]) -> Finding:
    """Whether the native kernel on ``shapes`` and Triton's in its interpreter on ``small`` equal masked dense attention."""
    from ridgeline.kernels.interpreted import interpreted_errors
    from ridgeline.kernels.registry import get_implementation

    whole = max(error_against_masked(lab, problem, "native") for problem in shapes)
    rows = max(lab.worst_error("block_sparse_attention", problem, "native") for problem in shapes)
    lab.sources.add(get_implementation("block_sparse_attention", "triton").path)
    triton = max(interpreted_errors("block_sparse_attention", list(small), "triton"))
    worst = max(whole, rows, triton)
    return Finding(
        passed=worst <= TOLERANCE,
        value=worst if math.isfinite(worst) else None,
        threshold=TOLERANCE if math.isfinite(worst) else None,
        text=f"native: whole output against torch under the mask {whole:.1e}, sampled rows against float64 {rows:.1e}; "
        f"triton in the interpreter {triton:.1e}",
    )


def gpu_ratio(lab: Lab, problem: BlockSparseAttention) -> tuple[Ratio, float, str]:
    """FlashAttention-2's causal time over that of the Triton kernel on ``problem``, what the pairs allow, and both in words."""
    from functools import partial

    from ridgeline.bench.paper_checks.on_gpu import attention_inputs, checked_side, flash_attention_2, tera_per_s
    from ridgeline.kernels.block_sparse_attention.index import build_index, structure_of
    from ridgeline.kernels.block_sparse_attention.operator import index_tensors

    dense = dense_problem(problem)
    index = build_index(problem)
    pairs = structure_of(problem, index).figure("kept_pairs")

    def inputs() -> Tensors:
        lists = {name: tensor.to(lab.torch_device) for name, tensor in index_tensors(index).items()}
        return attention_inputs(lab, dense) | lists

    ours = checked_side(lab, problem, "triton", inputs)
    ratio = lab.ratio(flash_attention_2(lab, dense, partial(attention_inputs, lab, dense)), ours, budget_s=3.0)
    flop = 4.0 * problem.head_dim
    ideal = problem.dense_pairs / pairs
    return (
        ratio,
        ideal,
        (
            f"Triton {ratio} over FlashAttention-2 (B1 H{problem.q_heads} S{problem.length} d{problem.head_dim} "
            f"{problem.precision}; {ratio.slow_s * 1e3:.2f} ms against {ratio.fast_s * 1e3:.2f}); pairs allow {ideal:.1f}x; "
            f"{tera_per_s(flop * problem.dense_pairs, ratio.slow_s)} against {tera_per_s(flop * pairs, ratio.fast_s)} on "
            "unmasked pairs"
        ),
    )
