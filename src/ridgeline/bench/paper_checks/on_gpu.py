"""What the checks on a GPU share: tensors drawn on the card, sides whose outputs were checked, torch's kernels beside them.

Inputs of hundreds of megabytes are drawn where they are used: on the host they took longer than everything that is timed.
Imports torch at the top: the check modules import this one inside their functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from ridgeline.analytical.operators import Attention
from ridgeline.analytical.problem import Problem
from ridgeline.bench.checks import IncorrectError, poison
from ridgeline.bench.launches import COLD_FACTOR, tolerance_of
from ridgeline.bench.paper_checks.lab import FunctionSide, Lab, Ratio
from ridgeline.kernels.registry import Context, Run, Tensors, Unsupported, get_operator

ROWS = 6
"""Rows of an output that are held against float64: spread over all of it, the first and the last among them."""
BUDGET_S = 1.0
"""Seconds of a ratio: on an H200 fifty quads of launches of a millisecond, and intervals of half a percent."""
FLASH_ATTENTION_2 = "FlashAttention-2"


def normal(lab: Lab, *shape: int, precision: str = "bfloat16") -> torch.Tensor:
    """Standard normal values, drawn on the unit."""
    return torch.randn(shape, device=lab.torch_device, dtype=torch.float32).to(getattr(torch, precision))


def attention_inputs(lab: Lab, problem: Attention) -> dict[str, torch.Tensor]:
    """q [B, H, T, d], k and v [B, H_kv, S, d]."""
    q = (problem.batch, problem.q_heads, problem.q_length, problem.head_dim)
    kv = (problem.batch, problem.kv_heads, problem.kv_length, problem.head_dim)
    return {name: normal(lab, *shape, precision=problem.precision) for name, shape in (("q", q), ("k", kv), ("v", kv))}


def copies(lab: Lab, bytes_of_one: float) -> int:
    """Sets of buffers that pass through the caches before one is used again."""
    return max(2, math.ceil(COLD_FACTOR * lab.cache_bytes / bytes_of_one) + 1)


def checked_side(
    lab: Lab,
    problem: Problem,
    name: str,
    inputs: Callable[[], Tensors],
    config: Mapping[str, Any] | None = None,
) -> FunctionSide:
    """A registered implementation on as many sets of ``inputs()`` as a cold cache takes; rows of one output were checked.

    Raises:
        Unsupported: where it does not take this problem here.
        IncorrectError: where a row is off by more than the operator's tolerance.
    """
    found = lab.implementation(problem.operator, problem, name, config)
    operator = get_operator(problem.operator)
    run = prepared(lab, problem, name, {}, config)
    count = copies(lab, problem.footprint_bytes())
    slots = [(inputs(), operator.make_output(problem).to(lab.torch_device)) for _ in range(count)]
    given, out = slots[0]
    poison(out)
    run(given, out)
    flat = out.cpu().reshape(-1, operator.row_elements(problem, out))
    rows = torch.linspace(0, len(flat) - 1, ROWS).round().long().unique()
    on_host = {key: tensor.cpu() for key, tensor in given.items()}
    expected = operator.reference(problem, {}, on_host, rows).double()
    refuse_unlike(name, flat[rows].double(), expected, tolerance_of(operator, found.implementation, problem))
    return lab.function([partial(run, *slot) for slot in slots], name)


def prepared(lab: Lab, problem: Problem, name: str, constants: Tensors, config: Mapping[str, Any] | None = None) -> Run:
    """A registered implementation, ready to run; ``constants`` are where it wants them.

    Raises:
        Unsupported: where it does not take this problem here.
    """
    found = lab.implementation(problem.operator, problem, name, config)
    return found.implementation.prepare(problem, constants, Context(lab.torch_device, lab.threads, found.config))


def refuse_wrong_gather(given: Tensors, out: torch.Tensor) -> None:
    """Hold rows of ``token_gather_attention``'s output against float64 on the same lists, where the tensors lie.

    Raises:
        IncorrectError: where one is off by more than float16 explains.
    """
    q, k, v = (given[name] for name in ("q", "k", "v"))
    heads, group = q.shape[1], q.shape[1] // k.shape[1]
    starts = given["row_starts"].tolist()
    rows = torch.linspace(0, q.shape[0] * heads - 1, ROWS).round().long().unique().tolist()
    expected = []
    for row in rows:
        listed = given["tokens"][starts[row] : starts[row + 1]].long()
        keys, values = (x[row // heads, row % heads // group, listed].double() for x in (k, v))
        scores = keys @ q[row // heads, row % heads].double() / math.sqrt(q.shape[-1])
        expected.append(torch.softmax(scores, 0) @ values)
    found = out.view(-1, q.shape[-1])[rows].double()
    refuse_unlike("token_gather_attention", found, torch.stack(expected), 3e-3)


def refuse_unlike(name: str, found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Raise IncorrectError for a relative L2 error above ``tolerance``, or one that is no number."""
    error = float((found - expected).norm() / expected.norm())
    if not error <= tolerance:
        raise IncorrectError(f"{name}: {len(found)} rows are off by {error:.2g}, above {tolerance:.2g}")


def flash_attention_2(lab: Lab, problem: Attention, inputs: Callable[[], Tensors] | None = None) -> FunctionSide:
    """FlashAttention-2 as torch ships it, without a copy of its output: what a caller of torch gets.

    ``inputs`` gives ``q``, ``k`` and ``v``; drawn by default.

    Raises:
        Unsupported: where torch has no such kernel for these tensors.
    """
    from torch.nn.attention import SDPBackend

    return torch_attention(lab, problem, SDPBackend.FLASH_ATTENTION, FLASH_ATTENTION_2, inputs)


def torch_attention(
    lab: Lab, problem: Attention, backend: Any, label: str, inputs: Callable[[], Tensors] | None = None
) -> FunctionSide:
    """``scaled_dot_product_attention`` with one backend; masks are none, or causal and square.

    Raises:
        Unsupported: where the backend does not take these tensors.
    """
    from torch.nn.attention import sdpa_kernel

    causal, grouped = problem.causal and problem.q_length > 1, problem.q_heads != problem.kv_heads
    draw = inputs or partial(attention_inputs, lab, problem)
    slots = [draw() for _ in range(copies(lab, problem.footprint_bytes()))]

    def attend(slot: Tensors) -> torch.Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(slot["q"], slot["k"], slot["v"], is_causal=causal, enable_gqa=grouped)

    try:
        attend(slots[0])
    except RuntimeError as error:
        raise Unsupported(f"{label}: {str(error).splitlines()[0]}") from None
    return lab.function([partial(attend, slot) for slot in slots], label)


def strongest_dense(lab: Lab, problem: Attention, names: Sequence[str]) -> FunctionSide:
    """The fastest of FlashAttention-2, cuDNN and the registered implementations ``names``, as far as they run here."""
    from torch.nn.attention import SDPBackend

    sides: list[FunctionSide] = []
    makers: list[Callable[[], FunctionSide]] = [
        partial(flash_attention_2, lab, problem),
        partial(torch_attention, lab, problem, SDPBackend.CUDNN_ATTENTION, "cuDNN"),
        *(partial(checked_side, lab, problem, name, partial(attention_inputs, lab, problem)) for name in names),
    ]
    for make in makers:
        try:
            sides.append(make())
        except Unsupported:
            continue
    best = lab.strongest(sides)
    assert isinstance(best, FunctionSide)
    return best


def tera_per_s(flop: float, seconds: float) -> str:
    """A rate in words."""
    return f"{flop / seconds / 1e12:.0f} TFLOP/s"


def geometric_mean(ratios: Sequence[Ratio]) -> float:
    """Of the ratios' values."""
    return math.exp(sum(math.log(ratio.value) for ratio in ratios) / len(ratios))
