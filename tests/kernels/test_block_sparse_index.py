"""Index of block-sparse attention against its definition, written out element by element."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ridgeline.analytical.operators import (
    BlockSparseAttention,
    make_problem,
    strided_blocks,
    strided_kv_bytes,
    strided_kv_tokens,
    strided_shifts,
)
from ridgeline.analytical.problem import ProblemError
from ridgeline.kernels.block_sparse_attention.index import (
    BlockIndex,
    build_index,
    draw_lines,
    index_of_lines,
    is_kv_cache_efficient,
    strided_pattern,
    structure_of,
)


def problem_of(**parameters: Any) -> BlockSparseAttention:
    shape = {"batch": 1, "q_heads": 4, "kv_heads": 2, "length": 96, "head_dim": 8, "block": 16}
    made = make_problem("block_sparse_attention", {**shape, **parameters})
    assert isinstance(made, BlockSparseAttention)
    return made


def expanded(problem: BlockSparseAttention, index: BlockIndex) -> NDArray[np.bool_]:
    """[heads, queries, length], read off the lists one entry at a time; no entry may be listed twice."""
    heads, block = problem.batch * problem.q_heads, problem.block
    seen = np.zeros((heads, problem.queries, problem.length), dtype=np.int64)
    for head in range(heads):
        for row in range(problem.block_rows):
            queries = slice(row * block, (row + 1) * block)
            for i in range(index.row_starts[head, row], index.row_starts[head, row + 1]):
                seen[head, queries, index.block_keys[i] : index.block_keys[i] + block] += 1
            if index.columns is not None and index.column_starts is not None:
                for i in range(index.column_starts[head, row], index.column_starts[head, row + 1]):
                    seen[head, queries, index.columns[i]] += 1
    assert seen.max() <= 1
    mask = seen > 0
    return mask & np.tri(problem.length, dtype=bool)[problem.past :] if problem.causal else mask


def assert_counted(problem: BlockSparseAttention, index: BlockIndex) -> None:
    """Figures of the structure against the expanded mask."""
    mask = expanded(problem, index)
    figures = structure_of(problem, index).figures
    of_kv_heads = mask.reshape(problem.batch * problem.kv_heads, -1, problem.length)
    assert figures["kept_pairs"] == mask.sum()
    assert figures["kept_keys"] == of_kv_heads.any(axis=1).sum()
    assert figures["kept_blocks"] == len(index.block_keys)
    for starts in (index.row_starts, index.column_starts):
        if starts is not None:
            assert (np.diff(starts, axis=1) >= 0).all()
            assert (starts[1:, 0] == starts[:-1, -1]).all()


@st.composite
def strided(draw: st.DrawFn) -> BlockSparseAttention:
    kv_heads, group = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    block = draw(st.sampled_from([1, 2, 5]))
    columns = draw(st.integers(1, 14))
    rows = draw(st.integers(1, columns))
    tail = draw(st.integers(0, block - 1))
    return problem_of(
        batch=draw(st.integers(1, 2)),
        q_heads=kv_heads * group,
        kv_heads=kv_heads,
        block=block,
        length=columns * block - tail,
        q_length=rows * block - tail,
        pattern="strided",
        local=draw(st.integers(1, 16)),
        stride=draw(st.integers(1, 9)),
        dense_heads=draw(st.integers(1, kv_heads)) if draw(st.booleans()) else None,
    )


@given(strided())
@settings(max_examples=60, deadline=None)
def test_strided_pattern_is_its_definition_and_its_forecast_exact(problem: BlockSparseAttention) -> None:
    index = build_index(problem)
    mask = expanded(problem, index)
    shifts = strided_shifts(problem.q_heads, problem.kv_heads, problem.stride or 0, problem.dense_heads or 0)
    assert shifts.count(None) == (problem.dense_heads or 0)
    b = problem.block
    for h in range(problem.batch * problem.q_heads):
        shift = shifts[h % problem.q_heads // (problem.q_heads // problem.kv_heads)]
        for t in range(problem.queries):
            position = t + problem.past
            for s in range(problem.length):
                row, column = position // b, s // b
                near = row - column < (problem.local or 0)
                listed = near or shift is None or (column + shift) % (problem.stride or 1) == 0
                assert mask[h, t, s] == (s <= position and listed)
    assert_counted(problem, index)
    assert problem.work(structure_of(problem, index)) == problem.expected_work()


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 9), st.integers(0, 20))
@settings(max_examples=100, deadline=None)
def test_counts_of_blocks_and_of_the_cache(rows: int, local: int, stride: int, shift: int) -> None:
    row, column = np.arange(rows)[:, None], np.arange(rows)[None, :]
    kept = ((row - column < local) | ((column + shift) % stride == 0)) & (column <= row)
    assert strided_blocks(rows, local, stride, shift) == kept.sum()
    # What a head still needs is what its last row and every later one see of the tokens there are.
    for tokens in (rows * 4, rows * 4 - 3):
        more, columns = np.arange(rows - 1, rows + 2 * stride + local)[:, None], np.arange(rows)[None, :]
        later = ((more - columns < local) | ((columns + shift) % stride == 0)) & (columns <= more)
        needed = np.repeat(later.any(axis=0), 4)[:tokens].sum()
        assert strided_kv_tokens(tokens, 4, local, stride, shift) == needed


def test_bytes_of_the_cache_that_heads_drop() -> None:
    problem = problem_of(length=96, pattern="strided", local=2, stride=3, dense_heads=1)
    # The sparse KV head keeps blocks 0 and 3 and the local 4 and 5; the other keeps all six.
    assert strided_kv_bytes(problem) == 2 * (4 + 6) * 16 * 8 * 4
    with pytest.raises(ProblemError, match="only a strided pattern"):
        strided_kv_bytes(problem_of(density=0.5))


def test_every_block_is_seen_by_some_head_where_heads_are_as_many_as_the_stride() -> None:
    problem = problem_of(q_heads=8, kv_heads=8, length=640, pattern="strided", local=1, stride=8)
    union = strided_pattern(problem).any(axis=0)
    assert (union == np.tri(40, dtype=bool)).all()
    fewer = problem_of(q_heads=4, kv_heads=4, length=640, pattern="strided", local=1, stride=8)
    assert not strided_pattern(fewer).any(axis=0)[-1].all()


def test_what_comes_back_cannot_be_dropped() -> None:
    assert is_kv_cache_efficient(strided_pattern(problem_of(pattern="strided", local=2, stride=3)))
    kept = np.tri(5, dtype=bool)[None].copy()
    kept[0, 3, 0] = False  # row 3 does not see block 0, row 4 does again
    assert not is_kv_cache_efficient(kept)
    kept[0, 4, 0] = False
    assert is_kv_cache_efficient(kept)


@pytest.mark.parametrize("causal", [True, False])
def test_drawn_blocks(causal: bool) -> None:
    problem = problem_of(batch=2, length=90, density=0.3, causal=causal, q_length=58)
    index = build_index(problem)
    mask = expanded(problem, index)
    assert_counted(problem, index)
    for t in range(problem.queries):
        assert mask[:, t, t + problem.past].all()
    assert not np.array_equal(mask[0], mask[1])
    assert structure_of(problem, build_index(problem)) == structure_of(problem, index)
    again = problem_of(batch=2, length=90, density=0.3, causal=causal, q_length=58, seed=2)
    assert structure_of(again, build_index(again)).digest != structure_of(problem, index).digest


@st.composite
def lines(draw: st.DrawFn) -> tuple[BlockSparseAttention, NDArray[Any], NDArray[Any]]:
    block = draw(st.sampled_from([4, 7]))
    blocks = draw(st.integers(1, 12))
    rows = draw(st.integers(1, blocks))
    tail = draw(st.integers(0, block - 1))
    length = blocks * block - tail
    problem = problem_of(
        q_heads=2, kv_heads=1, block=block, length=length, q_length=rows * block - tail,
        pattern="lines", columns=1, diagonals=1,
    )  # fmt: skip
    some = st.lists(st.integers(0, length - 1), min_size=1, max_size=9, unique=True).map(sorted)
    columns, diagonals = (np.array([draw(some)] * 2) for _ in range(2))  # the same for both heads
    return problem, columns, diagonals


@given(lines())
@settings(max_examples=80, deadline=None)
def test_lines_are_covered_by_few_blocks(case: tuple[BlockSparseAttention, NDArray[Any], NDArray[Any]]) -> None:
    problem, columns, diagonals = case
    index = index_of_lines(problem, columns, diagonals)
    mask = expanded(problem, index)
    assert_counted(problem, index)
    for t in range(problem.queries):
        position = t + problem.past
        for key in [*columns[0], *(position - diagonals[0])]:
            assert not 0 <= key <= position or mask[:, t, key].all()
    # No fewer blocks: of the distinct diagonals that meet a key, each needs one, and a block can serve only neighbours.
    counts = np.diff(index.row_starts, axis=1)
    assert (counts <= len(np.unique(diagonals))).all()
    assert (index.row_starts[1] - index.row_starts[0, -1] == index.row_starts[0]).all()


def test_the_forecast_of_lines_is_close() -> None:
    problem = problem_of(
        q_heads=8, kv_heads=8, length=8192, head_dim=128, block=64, pattern="lines", columns=64, diagonals=105
    )
    index = build_index(problem)
    found, forecast = problem.work(structure_of(problem, index)), problem.expected_work()
    assert float(forecast.flop) == pytest.approx(float(found.flop), rel=0.05)
    assert float(forecast.bytes) == pytest.approx(float(found.bytes), rel=0.01)
    columns, distances = draw_lines(problem, np.random.default_rng(problem.seed))
    assert (columns[:, :30] == np.arange(30)).all()
    assert (distances[:, :100] == np.arange(100)).all()
    assert all(len(np.unique(row)) == len(row) for row in (*columns, *distances))
