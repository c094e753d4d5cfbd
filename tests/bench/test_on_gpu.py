"""What the checks on a GPU share, on the CPU: sides are checked on rows of their output, and a wrong one is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch.nn.attention import SDPBackend

from ridgeline.analytical.operators import Attention
from ridgeline.bench.checks import IncorrectError
from ridgeline.bench.paper_checks import on_gpu
from ridgeline.bench.paper_checks.lab import Lab, open_lab
from ridgeline.kernels import registry
from ridgeline.kernels.attention.torch_backends import _only
from ridgeline.kernels.registry import Unsupported

PROBLEM = Attention(batch=1, q_heads=4, kv_heads=2, q_length=33, kv_length=33, head_dim=16, causal=True)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab("cpu", threads=1) as lab:
        lab.cache_bytes = 1e5
        yield lab


def test_a_side_rotates_through_the_caches_and_was_checked(lab: Lab) -> None:
    drawn: list[registry.Tensors] = []

    def inputs() -> registry.Tensors:
        drawn.append(on_gpu.attention_inputs(lab, PROBLEM))
        return drawn[-1]

    side = on_gpu.checked_side(lab, PROBLEM, "torch_sdpa", inputs)
    assert len(side.functions) == len(drawn) == on_gpu.copies(lab, PROBLEM.footprint_bytes())
    assert (len(drawn) - 1) * PROBLEM.footprint_bytes() >= 3e5
    assert drawn[0]["k"].shape == (1, 2, 33, 16)
    assert drawn[0]["k"].dtype == torch.float32
    assert not torch.equal(drawn[0]["k"], drawn[1]["k"])


def test_a_wrong_row_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    right = registry.get_implementation("attention", "torch_sdpa")

    def prepare(problem: Attention, constants: registry.Tensors, context: registry.Context) -> registry.Run:
        run = right.prepare(problem, constants, context)

        def last_row_off(inputs: registry.Tensors, out: torch.Tensor) -> None:
            run(inputs, out)
            out[:, -1, -1] = 0.0

        return last_row_off

    wrong = dataclasses.replace(right, prepare=prepare)
    monkeypatch.setitem(registry._IMPLEMENTATIONS, ("attention", "torch_sdpa"), wrong)
    with pytest.raises(IncorrectError, match="torch_sdpa: 6 rows are off by"):
        on_gpu.checked_side(lab, PROBLEM, "torch_sdpa", lambda: on_gpu.attention_inputs(lab, PROBLEM))
    with pytest.raises(Unsupported, match="runs on cuda only"):
        on_gpu.checked_side(lab, PROBLEM, "triton", lambda: on_gpu.attention_inputs(lab, PROBLEM))


def test_a_backend_of_torch_computes_attention_or_says_that_it_does_not(lab: Lab) -> None:
    half = dataclasses.replace(PROBLEM, precision="float16")
    given = on_gpu.attention_inputs(lab, half)
    side = on_gpu.torch_attention(lab, half, SDPBackend.MATH, "math", lambda: given)
    operator = registry.get_operator("attention")
    expected = operator.reference(half, {}, given, None)
    found = side.functions[0]()
    assert isinstance(found, torch.Tensor)
    on_gpu.refuse_unlike("math", found.double(), expected, 3e-3)
    with pytest.raises(Unsupported, match="cuDNN: No"):
        on_gpu.torch_attention(lab, half, SDPBackend.CUDNN_ATTENTION, "cuDNN", lambda: given)


def test_named_backends_fill_the_output_and_refuse_what_they_do_not_compute(lab: Lab) -> None:
    half = dataclasses.replace(PROBLEM, precision="float16")
    given, operator = on_gpu.attention_inputs(lab, half), registry.get_operator("attention")
    out = operator.make_output(half).fill_(float("nan"))
    _only(SDPBackend.FLASH_ATTENTION, half)(given, out)
    on_gpu.refuse_unlike("flash", out.double(), operator.reference(half, {}, given, None), 3e-3)
    with pytest.raises(Unsupported, match="CUDNN_ATTENTION does not take these tensors"):
        _only(SDPBackend.CUDNN_ATTENTION, half)(given, out)
    for changes, words in (
        ({"transform": "sigmoid"}, "computes softmax, not sigmoid"),
        ({"window": 5}, "knows no window"),
        ({"q_length": 7}, "has to be square"),
    ):
        with pytest.raises(Unsupported, match=words):
            _only(SDPBackend.MATH, dataclasses.replace(half, **changes))


def test_rows_of_a_gather_are_held_against_their_own_lists(lab: Lab) -> None:
    from ridgeline.kernels.token_gather_attention.operator import gather_case

    operator = registry.get_operator("token_gather_attention")
    problem = gather_case((2, 4, 2, 65, 9, 64), 0.7, "float16")
    given = operator.make_inputs(problem, torch.Generator().manual_seed(0))
    out = operator.reference(problem, {}, given, None).to(torch.float16)
    on_gpu.refuse_wrong_gather(given, out)
    with pytest.raises(IncorrectError, match="token_gather_attention: 6 rows are off"):
        on_gpu.refuse_wrong_gather({**given, "tokens": given["tokens"].flip(0)}, out)
