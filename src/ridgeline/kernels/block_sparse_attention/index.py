"""The index of block-sparse attention: which blocks of keys, and which single keys, each block of queries sees.

Compressed sparse rows for each query head: row r of head h lists ``block_keys[row_starts[h, r] : row_starts[h, r + 1]]``,
the first key of each block, ascending and disjoint. Blocks of S2-Attention begin at multiples of the block; those that
cover a diagonal begin wherever it does. Single keys are listed alike. Made with numpy, apart from what executes it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridgeline.analytical.operators import BlockSparseAttention, strided_shifts
from ridgeline.analytical.operators.block_sparse_attention import LOCAL_DIAGONALS, SINK_COLUMNS
from ridgeline.analytical.problem import Structure

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class BlockIndex:
    """Lists of every query head of every sequence; ``heads`` = batch q_heads, ``rows`` = blocks of queries."""

    row_starts: Ints
    """[heads, rows + 1]: where each row's blocks begin in ``block_keys``; its last entry is where the next head's begin."""
    block_keys: Ints
    """[blocks]: first key of each block."""
    column_starts: Ints | None = None
    """[heads, rows + 1]: where each row's single keys begin in ``columns``; ``None`` for a pattern without."""
    columns: Ints | None = None
    """[keys]: single keys, ascending in a row, none of them in a block of that row."""

    def arrays(self) -> dict[str, Ints]:
        """By the names that the operator gives its inputs."""
        found = {"row_starts": self.row_starts, "block_keys": self.block_keys}
        if self.column_starts is not None and self.columns is not None:
            found |= {"column_starts": self.column_starts, "columns": self.columns}
        return found


def build_index(problem: BlockSparseAttention) -> BlockIndex:
    """The index that the problem's pattern and seed say."""
    heads = problem.batch * problem.q_heads
    random = np.random.default_rng(problem.seed)
    if problem.pattern == "lines":
        return index_of_lines(problem, *draw_lines(problem, random))
    if problem.pattern == "strided":
        return index_of_blocks(np.broadcast_to(strided_pattern(problem), (problem.batch, *_shape(problem))), problem)
    assert problem.density is not None
    kept = random.random((heads, problem.block_rows, problem.block_columns)) < problem.density
    row, column = _blocks(problem)
    kept |= row == column
    if problem.causal:
        kept &= column <= row
    return index_of_blocks(kept, problem)


def _shape(problem: BlockSparseAttention) -> tuple[int, int, int]:
    return problem.q_heads, problem.block_rows, problem.block_columns


def _blocks(problem: BlockSparseAttention) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Block rows as a column, with those of the past counted, and block columns as a row."""
    rows = np.arange(problem.block_columns - problem.block_rows, problem.block_columns)
    return rows[:, None], np.arange(problem.block_columns)[None, :]


def strided_pattern(problem: BlockSparseAttention) -> NDArray[np.bool_]:
    """[q_heads, block_rows, block_columns]: blocks that S2-Attention keeps (Lin et al. 2024, section 3.1)."""
    assert problem.local is not None
    assert problem.stride is not None
    row, column = _blocks(problem)
    shifts = strided_shifts(problem.q_heads, problem.kv_heads, problem.stride, problem.dense_heads or 0)
    shift = np.array([0 if s is None else s for s in shifts])[:, None, None]
    dense = np.array([s is None for s in shifts])[:, None, None]
    kept = (row - column < problem.local) | ((column + shift) % problem.stride == 0) | dense
    return np.repeat(kept & (column <= row), problem.q_heads // problem.kv_heads, axis=0)


def is_kv_cache_efficient(pattern: NDArray[np.bool_]) -> bool:
    """Whether a block that a row sees, wholly before that row, was seen by the row before it too.

    Then what a head has stopped looking at never comes back, and its keys and values can be dropped (S2-Attention's
    condition; linxihui/dkernel at 44c51bd, function of this name).

    Args:
        pattern: [heads, block rows, block columns], square: row r holds the diagonal at column r.
    """
    before = np.tril(np.ones(pattern.shape[1:], dtype=bool), -1)
    return not bool((pattern[:, 1:] & ~pattern[:, :-1] & before[1:]).any())


def index_of_blocks(kept: NDArray[np.bool_], problem: BlockSparseAttention) -> BlockIndex:
    """The index of a pattern [..., block_rows, block_columns] of all heads of all sequences."""
    flat = kept.reshape(-1, problem.block_columns)
    column = np.nonzero(flat)[1]
    return BlockIndex(_starts(np.count_nonzero(flat, axis=1), problem), (column * problem.block).astype(np.int32))


def _starts(counts: NDArray[Any], problem: BlockSparseAttention) -> Ints:
    """Row starts of each head, of the lists' lengths [heads rows]; a head's last entry is the next one's first."""
    ends = np.cumsum(counts).reshape(-1, problem.block_rows)
    first = np.concatenate(([0], ends[:-1, -1]))[:, None]
    return np.concatenate((first, ends), axis=1).astype(np.int32)


# Lines: columns and diagonals


def draw_lines(problem: BlockSparseAttention, random: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Columns [heads, columns] and distances [heads, diagonals], ascending: those always kept, and others drawn evenly."""
    assert problem.columns is not None
    assert problem.diagonals is not None
    heads = problem.batch * problem.q_heads

    def lines(count: int, always: int) -> NDArray[Any]:
        always = min(count, always)
        rest = np.arange(always, problem.length)
        drawn = [np.sort(random.choice(rest, count - always, replace=False)) for _ in range(heads)]
        return np.concatenate((np.tile(np.arange(always), (heads, 1)), np.array(drawn)), axis=1).astype(np.int64)

    return lines(problem.columns, SINK_COLUMNS), lines(problem.diagonals, LOCAL_DIAGONALS)


def index_of_lines(problem: BlockSparseAttention, columns: NDArray[Any], diagonals: NDArray[Any]) -> BlockIndex:
    """The index that covers lines, as few blocks as cover a row's diagonals, and its columns outside of them.

    Args:
        problem: gives the shape; its pattern must be ``lines``.
        columns: [heads, any number], keys, ascending.
        diagonals: [heads, any number], distances from a query back to the key it sees, ascending.

    The blocks of a row are a cover of intervals of one length by intervals of that length, taken greedily from the
    left: none is covered twice, and no fewer blocks could do.
    """
    block, rows = problem.block, problem.block_rows
    heads, count = diagonals.shape
    start = problem.past + block * np.arange(rows)  # position of the first query of each row
    last = np.minimum(start + block, problem.length) - 1
    covered = np.zeros((heads, rows), dtype=np.int64)  # keys below are in a block already, or need none
    added = np.zeros((heads, rows, count), dtype=bool)
    first = np.zeros((heads, rows, count), dtype=np.int32)
    for i in range(count):  # the farthest first: its keys are the first
        begin = start[None, :] - diagonals[:, count - 1 - i, None]
        end = np.minimum(begin + block, last[None, :] + 1)
        at = np.maximum(begin, covered)
        new = end > at
        added[:, :, i], first[:, :, i] = new, at
        covered = np.where(new, at + block, covered)
    block_keys = first[added]
    row_starts = _starts(np.count_nonzero(added, axis=2).reshape(-1), problem)

    # A column is listed where the row's last block that begins at or before it ends before it too. One number for row
    # and key makes this a search in one ascending array.
    row_of_block = np.nonzero(added.reshape(heads * rows, count))[0]
    span = problem.length + block
    position = row_of_block * span + block_keys
    wanted = np.arange(heads * rows).reshape(heads, rows, 1) * span + columns[:, None, :]
    before = np.searchsorted(position, wanted, side="right") - 1
    inside = (before >= 0) & (wanted - position[np.maximum(before, 0)] < block)
    listed = ~inside & (columns[:, None, :] <= last[None, :, None])
    keys = np.broadcast_to(columns[:, None, :], listed.shape)[listed].astype(np.int32)
    return BlockIndex(row_starts, block_keys, _starts(np.count_nonzero(listed, axis=2).reshape(-1), problem), keys)


# What was realised


def structure_of(problem: BlockSparseAttention, index: BlockIndex) -> Structure:
    """Figures of an index, and its digest."""
    block, rows = problem.block, problem.block_rows
    start = problem.past + block * np.arange(rows)
    queries = np.minimum(problem.length - start, block)
    row = np.tile(np.repeat(np.arange(rows), 1), index.row_starts.shape[0])
    row_of_block = np.repeat(row, np.diff(index.row_starts, axis=1).reshape(-1))
    keys = index.block_keys.astype(np.int64)
    width = np.minimum(block, problem.length - keys)
    if problem.causal:
        # Query x of the row sees min(max(start + x - key + 1, 0), width) keys of the block.
        to_key = start[row_of_block] - keys
        pairs = _ramp(to_key + queries[row_of_block], width) - _ramp(to_key, width)
    else:
        pairs = queries[row_of_block] * width
    figures = {"kept_blocks": float(len(keys)), "kept_pairs": float(pairs.sum())}
    figures["kept_keys"] = float(_different_keys(problem, index, last=start + queries - 1))
    if index.columns is not None and index.column_starts is not None:
        row_of_column = np.repeat(row, np.diff(index.column_starts, axis=1).reshape(-1))
        seen = start[row_of_column] + queries[row_of_column] - index.columns
        figures["kept_pairs"] += float(np.clip(seen, 0, queries[row_of_column]).sum())
        figures["kept_columns"] = float(len(index.columns))
    text = hashlib.sha256()
    for name, array in index.arrays().items():
        text.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return Structure(figures, text.hexdigest()[:16])


def _ramp(upto: NDArray[Any], width: NDArray[Any]) -> NDArray[Any]:
    """Sum of min(max(x, 0), width) over the whole numbers x <= upto."""
    inside = np.clip(upto, 0, width)
    return inside * (inside + 1) // 2 + np.maximum(upto - width, 0) * width


def _different_keys(problem: BlockSparseAttention, index: BlockIndex, last: NDArray[Any]) -> int:
    """Keys that some query sees, over all sequences and KV heads. ``last``: position of the last query of each row."""
    group, total = problem.q_heads // problem.kv_heads, 0
    for head in range(0, index.row_starts.shape[0], group):
        edges = np.zeros(problem.length + problem.block + 1, dtype=np.int64)
        begins, ends = index.row_starts[head, 0], index.row_starts[head + group - 1, -1]
        keys = index.block_keys[begins:ends].astype(np.int64)
        counts = np.diff(index.row_starts[head : head + group], axis=1).reshape(-1)
        seen = np.minimum(keys + problem.block, problem.length)
        if problem.causal:
            seen = np.minimum(seen, np.repeat(np.tile(last, group), counts) + 1)
        np.add.at(edges, keys, 1)
        np.add.at(edges, np.maximum(seen, keys), -1)
        kept = np.cumsum(edges)[: problem.length] > 0
        if index.columns is not None and index.column_starts is not None:
            kept[index.columns[index.column_starts[head, 0] : index.column_starts[head + group - 1, -1]]] = True
        total += int(np.count_nonzero(kept))
    return total
