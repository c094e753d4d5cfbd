"""Block-sparse attention in C++: every path against the reference, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from ridgeline.analytical.operators import BlockSparseAttention
from ridgeline.kernels.block_sparse_attention.operator import BlockSparseAttentionOperator, block_sparse_case
from ridgeline.kernels.native.block_sparse import block_sparse_attention, block_sparse_paths
from ridgeline.kernels.native.build import NativeCallError

OPERATOR = BlockSparseAttentionOperator()
PROBLEMS = (
    *(p for p in OPERATOR.test_problems if p.precision == "float32"),
    block_sparse_case((1, 3, 1, 37, 5, 7), pattern="random", density=0.5),
    block_sparse_case((2, 2, 2, 70, 33, 48), pattern="lines", columns=45, diagonals=20),
    block_sparse_case((1, 2, 1, 1, 1, 1), pattern="strided", local=1, stride=1),
    block_sparse_case((1, 1, 1, 300, 16, 130), pattern="strided", local=1, stride=2),
)
Made = tuple[dict[str, torch.Tensor], torch.Tensor]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """torch's threads spin where others use the machine: for tensors this small they cost far more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(problem: BlockSparseAttention) -> Made:
    inputs = OPERATOR.make_inputs(problem, torch.Generator().manual_seed(2))
    return inputs, torch.full_like(OPERATOR.make_output(problem), float("nan"))


@pytest.mark.parametrize("path", ["avx512", "avx2", "portable"])
def test_paths_give_the_reference(path: str) -> None:
    if path not in block_sparse_paths():
        pytest.skip(f"this CPU has no {path}")
    for problem in PROBLEMS:
        inputs, out = made(problem)
        block_sparse_attention(problem, inputs, out, 2, path=path)
        expected = OPERATOR.reference(problem, {}, inputs, None)
        assert float((out.double() - expected).norm() / expected.norm()) < 1e-5, problem.label


def test_large_scores_do_not_overflow() -> None:
    problem = PROBLEMS[0]
    inputs, out = made(problem)
    inputs["q"] *= 1000.0
    block_sparse_attention(problem, inputs, out)
    expected = OPERATOR.reference(problem, {}, inputs, None)
    # One key takes all the weight of a query; a score of 1e4 has lost three digits of what decides between two.
    assert float((out.double() - expected).norm() / expected.norm()) < 1e-2


def test_not_a_number_stays_with_its_query_and_with_those_that_see_the_key() -> None:
    problem = block_sparse_case((1, 1, 1, 256, 64, 64), pattern="strided", local=1, stride=4)
    inputs, out = made(problem)
    inputs["q"][0, 0, 70, 3] = float("nan")
    inputs["k"][0, 0, 130, 0] = float("nan")
    block_sparse_attention(problem, inputs, out)
    # Block 2 is no strided one: its own queries from key 130 on see it, and no others do.
    wrong = torch.tensor([t == 70 or 130 <= t < 192 for t in range(256)])
    assert torch.equal(torch.isnan(out[0, 0]).all(-1), wrong)
    assert torch.equal(torch.isnan(OPERATOR.reference(problem, {}, inputs, None)[0, 0]).all(-1), wrong)
    inputs, out = made(problem)
    inputs["k"][0, 0, 130] = float("inf")
    block_sparse_attention(problem, inputs, out)
    assert torch.equal(out.isnan(), OPERATOR.reference(problem, {}, inputs, None).isnan())


def strided_view(tensor: torch.Tensor) -> torch.Tensor:
    return torch.stack((tensor, tensor), dim=-1)[..., 0]


def off_by_a_byte(tensor: torch.Tensor) -> torch.Tensor:
    memory = torch.zeros(tensor.numel() * tensor.element_size() + 1, dtype=torch.uint8)
    return torch.frombuffer(memory.numpy()[1:], dtype=tensor.dtype).view(tensor.shape)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("q", lambda t: t.double(), "float64"),
        ("k", strided_view, "strides"),
        ("v", lambda t: t[:, :, 1:].contiguous(), "float32"),
        ("k", off_by_a_byte, "bytes"),
        ("row_starts", lambda t: t.long(), "int64"),
        ("row_starts", lambda t: t[:, 1:].contiguous(), "row_starts"),
        ("block_keys", lambda t: t.float(), "block_keys"),
        ("row_starts", lambda t: t + 1000, "bad argument"),
        ("row_starts", lambda t: t.flip(1), "bad argument"),
        ("block_keys", lambda t: t - 10_000, "bad argument"),
        ("block_keys", lambda t: t + 10_000, "bad argument"),
        ("columns", lambda t: t + 10_000, "bad argument"),
        ("column_starts", lambda t: t - 1, "bad argument"),
    ],
)
def test_what_points_outside_is_refused(name: str, change: Any, words: str) -> None:
    problem = block_sparse_case((1, 2, 2, 200, 64, 64), pattern="lines", columns=40, diagonals=3)
    inputs, out = made(problem)
    with pytest.raises(NativeCallError, match=words) as caught:
        block_sparse_attention(problem, {**inputs, name: change(inputs[name])}, out)
    assert "\n" not in str(caught.value)


def test_threads_and_paths_that_are_not_there() -> None:
    inputs, out = made(PROBLEMS[0])
    with pytest.raises(NativeCallError, match="more threads than CPUs"):
        block_sparse_attention(PROBLEMS[0], inputs, out, 10_000)
    with pytest.raises(NativeCallError, match="no path 'sse9'"):
        block_sparse_attention(PROBLEMS[0], inputs, out, path="sse9")


def test_a_chunk_is_the_end_of_the_whole() -> None:
    """Chunked prefill: the last queries alone give what they give among all."""
    whole = block_sparse_case((1, 4, 2, 250, 32, 32), pattern="strided", local=2, stride=2)
    chunk = replace(whole, q_length=58)
    inputs, out = made(whole)
    block_sparse_attention(whole, inputs, out)
    last, answer = made(chunk)
    last = {**last, "q": inputs["q"][:, :, 192:].contiguous(), "k": inputs["k"], "v": inputs["v"]}
    block_sparse_attention(chunk, last, answer)
    torch.testing.assert_close(answer, out[:, :, 192:], rtol=1e-6, atol=1e-6)
